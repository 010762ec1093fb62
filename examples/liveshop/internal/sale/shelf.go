package sale

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/delayqueue"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/stock"
)

// A shelf is what a room sells, without what changes with every order. It is cached, in
// this process too, so that most orders are judged without a question to anybody.
type shelf struct {
	Host    int64  `json:"host"`
	PerUser int64  `json:"per_user"`
	Buckets int    `json:"buckets"`
	State   string `json:"state"`
	Items   []item `json:"items"`
}

type item struct {
	SKU       string `json:"sku"`
	Title     string `json:"title"`
	Image     string `json:"image"`
	Fen       int64  `json:"fen"` // of this sale
	Loaded    int64  `json:"loaded"`
	Units     int64  `json:"units"`
	Opens     int64  `json:"opens"`
	Closes    int64  `json:"closes"`
	Elsewhere bool   `json:"elsewhere"`
	Version   int64  `json:"version"`
}

func (s *shelf) item(sku string) *item {
	for i := range s.Items {
		if s.Items[i].SKU == sku {
			return &s.Items[i]
		}
	}
	return nil
}

// loaded returns with how many units the sale began, of what it sells itself.
func (s *shelf) loaded() map[string]int64 {
	units := map[string]int64{}
	for _, it := range s.Items {
		if !it.Elsewhere {
			units[it.SKU] = it.Loaded
		}
	}
	return units
}

// shelf returns the shelf of a room.
func (s *Sale) shelf(ctx context.Context, room int64) (shelf, error) {
	v, err := s.shelves.Get(ctx, room)
	if errors.Is(err, cache.ErrNotFound) {
		err = api.NotFound("sale")
	}
	return v, err
}

// loadShelf asks SQL.
func (s *Sale) loadShelf(ctx context.Context, room int64) (v shelf, err error) {
	err = s.env.DB.QueryRowContext(ctx, "SELECT host, per_user, buckets, state FROM sales WHERE room = ?", room).Scan(&v.Host, &v.PerUser, &v.Buckets, &v.State)
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("room %d: %w", room, cache.ErrNotFound)
	}
	if err != nil {
		return v, err
	}
	rows, err := s.env.DB.QueryContext(ctx, `SELECT i.sku, p.title, p.image, i.fen, i.loaded, i.units, p.opens_ms, p.closes_ms, p.elsewhere, p.version
		FROM sale_items i JOIN products p ON p.sku = i.sku WHERE i.room = ? ORDER BY i.sku`, room)
	if err != nil {
		return v, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	for rows.Next() {
		var it item
		if err := rows.Scan(&it.SKU, &it.Title, &it.Image, &it.Fen, &it.Loaded, &it.Units, &it.Opens, &it.Closes, &it.Elsewhere, &it.Version); err != nil {
			return v, err
		}
		v.Items = append(v.Items, it)
	}
	return v, rows.Err()
}

// forgetLater has shelves deleted a second time by the job queue, which survives this
// process.
func (s *Sale) forgetLater(ctx context.Context, after time.Duration, rooms []int64) error {
	_, err := s.jobs.Add(ctx, delayqueue.Job{Delay: after, Body: encode(job{Forget: rooms})})
	return err
}

// An Offer is a product on the shelf, with what is left of it.
type Offer struct {
	SKU       string `json:"sku"`
	Title     string `json:"title"`
	Image     string `json:"image"`
	Fen       int64  `json:"fen"`
	Total     int64  `json:"total"`
	Left      int64  `json:"left"`
	Version   int64  `json:"version"` // of left, as in the frames of stock
	PerUser   int64  `json:"per_user"`
	Opens     int64  `json:"opens"`
	Closes    int64  `json:"closes"`
	Elsewhere bool   `json:"elsewhere"`
	Edited    int64  `json:"edited"` // version of the product
	// Paused is that nothing is known to be left, which is not the same as sold out: it was
	// put on the shelf just now, or Redis lost it and the sale is rebuilt from SQL. It is not
	// to be had for the moment.
	Paused bool `json:"paused,omitempty"`
}

// Offers returns what a room sells, and what was left a quarter of a second ago at most.
func (s *Sale) Offers(ctx context.Context, room int64) ([]Offer, error) {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return nil, err
	}
	levels, err := s.levels.Get(ctx, room)
	if err != nil {
		return nil, err
	}
	offers := make([]Offer, 0, len(v.Items))
	for _, it := range v.Items {
		l, ok := levels[it.SKU]
		o := Offer{
			SKU: it.SKU, Title: it.Title, Image: it.Image, Fen: it.Fen, Total: it.Units, Left: l.Left, Version: l.Version,
			PerUser: v.PerUser, Opens: it.Opens, Closes: it.Closes, Elsewhere: it.Elsewhere, Edited: it.Version,
			Paused: !ok && !it.Elsewhere && v.State == stateOpen,
		}
		if v.State != stateOpen {
			o.Left = 0
		}
		offers = append(offers, o)
	}
	return offers, nil
}

// loadLevels asks Redis what is left in a room, of all it sells.
func (s *Sale) loadLevels(ctx context.Context, room int64) (map[string]stock.Level, error) {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return nil, err
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return nil, err
	}
	var own []string
	elsewhere := false
	for _, it := range v.Items {
		if it.Elsewhere {
			elsewhere = true
		} else {
			own = append(own, it.SKU)
		}
	}
	levels := map[string]stock.Level{}
	if len(own) > 0 {
		if levels, err = l.stock.Stock(ctx, own...); err != nil {
			return nil, err
		}
	}
	if elsewhere {
		if err := s.seenElsewhere(ctx, room, levels); err != nil {
			return nil, err
		}
	}
	return levels, nil
}

package sale

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// A Product is what the operator registered for a host.
type Product struct {
	SKU     string `json:"sku"`
	Host    int64  `json:"host"`
	Title   string `json:"title"`
	Image   string `json:"image"`
	Fen     int64  `json:"fen"`
	Total   int64  `json:"total"`    // units that the host was ever given of it
	PerUser int64  `json:"per_user"` // units that one user may buy in a room; 0 for any
	Opens   int64  `json:"opens"`    // ms; 0: at once
	Closes  int64  `json:"closes"`   // ms; 0: never
	// Elsewhere says that somebody else has the stock: it is shown, and sold there.
	Elsewhere bool  `json:"elsewhere"`
	Version   int64 `json:"version"`
}

// A SKU is lower case: some databases compare without case.
var skuForm = regexp.MustCompile(`^[a-z0-9._-]{1,40}$`)

const (
	maxUnits = 1 << 40
	maxMs    = 1 << 42 // in the year 2109: from now until then is a time.Duration
)

func (p Product) check() error {
	switch {
	case !skuForm.MatchString(p.SKU):
		return api.Bad("sku: 1 to 40 of a-z, 0-9, dot, dash, underscore")
	case p.Host < 1:
		return api.Bad("host: %d is no user", p.Host)
	case p.Title == "" || len(p.Title) > 200 || len(p.Image) > 300:
		return api.Bad("title: 1 to 200 bytes; image: at most 300")
	case p.Fen < 1 || p.Fen > maxUnits:
		return api.Bad("fen: %d, want 1 to 2^40", p.Fen)
	case p.Total < 0 || p.Total > maxUnits || p.PerUser < 0 || p.PerUser > maxUnits:
		return api.Bad("total and per_user: 0 to 2^40")
	case p.Opens < 0 || p.Opens > maxMs || p.Closes < 0 || p.Closes > maxMs:
		return api.Bad("opens and closes: 0 to 2^42 ms")
	case p.Closes > 0 && p.Closes <= p.Opens:
		return api.Bad("closes is not after opens")
	}
	return nil
}

// lockHost makes transactions about one host's products come one after the other, in
// both databases: SQLite has no SELECT … FOR UPDATE.
func lockHost(ctx context.Context, tx *sql.Tx, host int64) error {
	_, err := tx.ExecContext(ctx, "UPDATE products SET version = version WHERE host = ?", host)
	return err
}

// sameLimit refuses a product whose limit differs from those of the host's others. The
// limit holds for each product by itself, and it is one figure for a room, since it is
// one in stock.Options: kept there, it holds in the step that takes the stock.
func sameLimit(ctx context.Context, tx *sql.Tx, p Product) error {
	var others int64
	err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM products WHERE host = ? AND sku <> ? AND per_user <> ?",
		p.Host, p.SKU, p.PerUser).Scan(&others)
	if err == nil && others > 0 {
		err = &api.Error{Status: http.StatusUnprocessableEntity, Code: "per_user_differs",
			Msg: "all products of a host have the same per_user"}
	}
	return err
}

// sameOwner refuses that the stock of a product becomes somebody else's, or the host's,
// after it was on a shelf: what the sales of these rooms were is told from the product.
func sameOwner(ctx context.Context, tx *sql.Tx, was, p Product) error {
	if p.Elsewhere == was.Elsewhere {
		return nil
	}
	var rooms int64
	err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM sale_items WHERE sku = ?", p.SKU).Scan(&rooms)
	if err == nil && rooms > 0 {
		err = api.Conflict("was_on_sale", "who has the stock of a product stays once it was in a room: register another")
	}
	return err
}

// Register adds a product. The same again is no error.
func (s *Sale) Register(ctx context.Context, p Product) (Product, error) {
	if err := p.check(); err != nil {
		return Product{}, err
	}
	p.Version = 1
	err := s.env.Tx(ctx, func(tx *sql.Tx) error {
		if err := lockHost(ctx, tx, p.Host); err != nil {
			return err
		}
		if err := sameLimit(ctx, tx, p); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, s.env.InsertNew("products", "sku", "host", "title", "image", "fen", "total",
			"per_user", "opens_ms", "closes_ms", "elsewhere", "version"),
			p.SKU, p.Host, p.Title, p.Image, p.Fen, p.Total, p.PerUser, p.Opens, p.Closes, p.Elsewhere, p.Version)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		if was, err := product(ctx, tx, p.SKU); err != nil || was != p {
			return errors.Join(err, api.Conflict("sku_taken", "there is another product "+p.SKU))
		}
		return nil
	})
	return p, err
}

// A querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

const productColumns = "p.sku, p.host, p.title, p.image, p.fen, p.total, p.per_user, p.opens_ms, p.closes_ms, p.elsewhere, p.version"

func (p *Product) columns() []any {
	return []any{&p.SKU, &p.Host, &p.Title, &p.Image, &p.Fen, &p.Total, &p.PerUser, &p.Opens, &p.Closes, &p.Elsewhere, &p.Version}
}

func product(ctx context.Context, q querier, sku string) (p Product, err error) {
	err = q.QueryRowContext(ctx, "SELECT "+productColumns+" FROM products p WHERE p.sku = ?", sku).Scan(p.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return p, api.NotFound("product")
	}
	return p, err
}

// Update replaces the product of that SKU if it still has p's version: of two
// operators who changed the same one, the second is told instead of undoing what the
// first did. While it is on sale its price and limit stay, and its stock only grows; once
// it was on a shelf, who has the stock stays.
func (s *Sale) Update(ctx context.Context, p Product) (Product, error) {
	if err := p.check(); err != nil {
		return Product{}, err
	}
	var rooms []int64
	err := s.env.Tx(ctx, func(tx *sql.Tx) (err error) {
		rooms, err = s.update(ctx, tx, p)
		return err
	})
	if err != nil {
		return Product{}, err
	}
	p.Version++
	// The database has it: now the caches may not have the old one. A server that read it
	// just before may store it just after; the second delete is for that.
	if len(rooms) > 0 {
		if err := s.shelves.DeleteTwice(ctx, time.Second, rooms...); err != nil {
			s.env.Log.Warn("shelf stays cached for a while", "rooms", rooms, "err", err)
		}
	}
	for _, room := range rooms {
		if err := s.restock(ctx, room); err != nil {
			s.env.Log.Warn("restock is made later", "room", room, "err", err)
		}
	}
	return p, nil
}

// update returns the rooms on whose shelves the product is.
func (s *Sale) update(ctx context.Context, tx *sql.Tx, p Product) (rooms []int64, err error) {
	if err := lockHost(ctx, tx, p.Host); err != nil {
		return nil, err
	}
	was, err := product(ctx, tx, p.SKU)
	switch {
	case err != nil:
		return nil, err
	case was.Host != p.Host:
		return nil, api.Conflict("host_differs", "a product stays with its host")
	case was.Version != p.Version:
		return nil, &api.Error{Status: http.StatusConflict, Code: "stale", Msg: "somebody else changed it: look again", Data: was}
	}
	if err := sameLimit(ctx, tx, p); err != nil {
		return nil, err
	}
	if err := sameOwner(ctx, tx, was, p); err != nil {
		return nil, err
	}
	if rooms, err = onSale(ctx, tx, p.SKU); err != nil {
		return nil, err
	}
	if more := p.Total - was.Total; len(rooms) > 0 {
		if p.Fen != was.Fen || p.PerUser != was.PerUser || more < 0 {
			return nil, api.Conflict("on_sale", "while it is on sale its price and limit stay, and its total only grows")
		}
		if more > 0 && !p.Elsewhere {
			err = grow(ctx, tx, rooms[0], p.SKU, p.Version, more)
		}
	} else if more < 0 {
		var free int64
		if free, err = unloaded(ctx, tx, p.SKU); err == nil && free+more < 0 {
			err = api.Conflict("sold", fmt.Sprintf("only %d units can be taken away", free))
		}
	}
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE products SET title = ?, image = ?, fen = ?, total = ?, per_user = ?,
		opens_ms = ?, closes_ms = ?, elsewhere = ?, version = version + 1 WHERE sku = ?`,
		p.Title, p.Image, p.Fen, p.Total, p.PerUser, p.Opens, p.Closes, p.Elsewhere, p.SKU)
	return rooms, err
}

// onSale returns the open rooms that have the product, the newest first.
func onSale(ctx context.Context, tx *sql.Tx, sku string) ([]int64, error) {
	return column[int64](tx.QueryContext(ctx, `SELECT s.room FROM sale_items i JOIN sales s ON s.room = i.room
		WHERE i.sku = ? AND s.state = 'open' ORDER BY s.room DESC`, sku))
}

// unloaded returns how many units of a product are in no room's sale, and were not
// sold in one.
func unloaded(ctx context.Context, tx *sql.Tx, sku string) (free int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT total - COALESCE((SELECT SUM(units - returned) FROM sale_items i WHERE i.sku = p.sku), 0)
		FROM products p WHERE p.sku = ?`, sku).Scan(&free)
	return free, err
}

// grow notes that units are to be added to an open sale, once for each name, which is
// the product's version, or less than 0: the room, negated, that they come from.
func grow(ctx context.Context, tx *sql.Tx, room int64, sku string, name, more int64) error {
	_, err1 := tx.ExecContext(ctx, "UPDATE sale_items SET units = units + ? WHERE room = ? AND sku = ?", more, room, sku)
	_, err2 := tx.ExecContext(ctx, "INSERT INTO restocks (room, sku, version, qty, done) VALUES (?, ?, ?, ?, 0)", room, sku, name, more)
	return errors.Join(err1, err2)
}

// column returns the only column of a query.
func column[T any](rows *sql.Rows, err error) (all []T, _ error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

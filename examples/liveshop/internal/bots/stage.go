// Package bots is the customers of a demo and of a load test: they log in, watch, buy
// and pay over HTTP and WebSockets, as people do.
package bots

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
)

// A Stage is a host with an open room, and who operates the shop.
type Stage struct {
	Room     int64
	kind     string
	rains    bool
	host     *client.Client
	operator *client.Client
}

// Product is what a host sells.
type Product struct {
	SKU     string `json:"sku"`
	Host    int64  `json:"host"`
	Title   string `json:"title"`
	Image   string `json:"image"`
	Fen     int64  `json:"fen"`
	Total   int64  `json:"total"`
	PerUser int64  `json:"per_user"`
}

// NewStage logs a host in, has the operator grant what is in grants, and opens a room.
func NewStage(ctx context.Context, base, phone, title, kind string, grants ...string) (*Stage, error) {
	// The service answers about its invariants within 15 s, and where SQL holds it up later.
	web := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(), Timeout: 30 * time.Second}
	s := &Stage{
		kind: kind, rains: slices.Contains(grants, "rain"),
		host:     &client.Client{HTTP: web, Base: base},
		operator: &client.Client{HTTP: web, Base: base},
	}
	if err := s.host.LogIn(ctx, phone); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	for _, grant := range grants {
		in := map[string]any{"uid": s.host.Me.UID, "grant": grant}
		if err := s.operator.Sure(ctx, "POST /admin/grants", in, nil); err != nil {
			return nil, fmt.Errorf("grant: %w", err)
		}
	}
	var room struct{ ID int64 }
	if err := s.host.Sure(ctx, "POST /rooms", map[string]string{"title": title, "kind": kind}, &room); err != nil {
		return nil, fmt.Errorf("room: %w", err)
	}
	s.Room = room.ID
	return s, nil
}

// Sell puts a product on the room's shelf, under a SKU that is new.
func (s *Stage) Sell(ctx context.Context, p Product) (sku string, err error) {
	p.SKU, p.Host = "p-"+strings.ToLower(rand.Text()[:10]), s.host.Me.UID
	if err := s.operator.Sure(ctx, "POST /admin/products", p, nil); err != nil {
		return "", fmt.Errorf("product: %w", err)
	}
	in := map[string]string{"sku": p.SKU}
	if err := s.host.Sure(ctx, fmt.Sprintf("POST /rooms/%d/products", s.Room), in, nil); err != nil {
		return "", fmt.Errorf("shelf: %w", err)
	}
	return p.SKU, nil
}

// An Item is a product on the shelf.
type Item struct {
	SKU    string `json:"sku"`
	Left   int64  `json:"left"`
	Paused bool   `json:"paused"`
}

// Shelf returns what the room sells, as somebody sees it, but for what nobody can say of
// how much is left.
func (s *Stage) Shelf(ctx context.Context, who *client.Client) ([]Item, error) {
	var out struct{ Products []Item }
	err := who.Call(ctx, fmt.Sprintf("GET /rooms/%d/products", s.Room), nil, &out)
	return slices.DeleteFunc(out.Products, func(i Item) bool { return i.Paused }), err
}

// SoldOut tells whether the shelf says that nothing is left of a product.
func (s *Stage) SoldOut(ctx context.Context, sku string) bool {
	shelf, err := s.Shelf(ctx, s.host)
	return err == nil && slices.ContainsFunc(shelf, func(i Item) bool { return i.SKU == sku && i.Left == 0 })
}

// Close closes the room.
func (s *Stage) Close(ctx context.Context) error {
	return s.host.Sure(ctx, fmt.Sprintf("POST /rooms/%d/close", s.Room), nil, nil)
}

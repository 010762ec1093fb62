package sale

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

const (
	cartKept = 7 * 24 * time.Hour
	cartSize = 50 // products
	maxQty   = 1000
)

func cartKey(room, uid int64) string { return fmt.Sprintf("liveshop:cart:%d:%d", room, uid) }

// Cart returns what a user has put into the cart of a room and is still sold there, by
// SKU.
func (s *Sale) Cart(ctx context.Context, uid, room int64) ([]Priced, error) {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return nil, err
	}
	fields, err := s.env.Redis.HGetAll(ctx, cartKey(room, uid)).Result()
	if err != nil {
		return nil, down(err)
	}
	lines := make([]Priced, 0, len(fields))
	for sku, text := range fields {
		it := v.item(sku)
		if qty, err := strconv.ParseInt(text, 10, 64); err == nil && it != nil {
			lines = append(lines, Priced{Line{sku, qty}, goods{it.Title, it.Fen}})
		}
	}
	slices.SortFunc(lines, func(a, b Priced) int { return strings.Compare(a.SKU, b.SKU) })
	return lines, nil
}

// PutCart sets how many of a product are in the cart; 0 takes it out.
func (s *Sale) PutCart(ctx context.Context, uid, room int64, line Line) ([]Priced, error) {
	v, err := s.shelf(ctx, room)
	switch {
	case err != nil:
		return nil, err
	case v.item(line.SKU) == nil:
		return nil, api.NotFound("product in this room")
	case line.Qty < 0 || line.Qty > maxQty:
		return nil, api.Bad("qty: %d, want 0 to %d", line.Qty, maxQty)
	}
	key := cartKey(room, uid)
	if line.Qty == 0 {
		err = s.env.Redis.HDel(ctx, key, line.SKU).Err()
	} else {
		var n int64
		if n, err = s.env.Redis.HLen(ctx, key).Result(); err == nil && n >= cartSize {
			return nil, api.Conflict("cart_full", "the cart is full")
		}
		if err == nil {
			pipe := s.env.Redis.TxPipeline() // no cart without an end
			pipe.HSet(ctx, key, line.SKU, line.Qty)
			pipe.Expire(ctx, key, cartKept)
			_, err = pipe.Exec(ctx)
		}
	}
	if err != nil {
		return nil, down(err)
	}
	return s.Cart(ctx, uid, room)
}

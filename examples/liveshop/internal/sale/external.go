package sale

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

// A Warehouse has the stock of products that are sold elsewhere.
type Warehouse interface {
	// Left returns how many units there are of each SKU; those that it does not know
	// are missing.
	Left(ctx context.Context, skus []string) (map[string]int64, error)
}

const (
	lookEvery = time.Second     // one claim
	lookAgain = 5 * time.Second // at a room, at the earliest
	lookRooms = 5               // in one claim
	seenKept  = time.Hour       // without a look
	looksKey  = "liveshop:warehouse:looks"
)

var (
	//go:embed claim.lua
	claimLua string
	//go:embed seen.lua
	seenLua string

	claimScript = redis.NewScript(claimLua)
	seenScript  = redis.NewScript(seenLua)
)

func seenKeys(room int64) []string {
	tag := fmt.Sprintf("liveshop:warehouse:{%d}:", room)
	return []string{tag + "left", tag + "at"}
}

// watch has the stock of a room's products looked at that are sold elsewhere.
func (s *Sale) watch(ctx context.Context, room int64) error {
	return down(s.env.Redis.ZAddNX(ctx, looksKey, redis.Z{Member: room}).Err())
}

// runWarehouse looks at the stock of others, which tells nobody when it changes: each
// second at those five live rooms that were not looked at for the longest time, on one
// server each.
func (s *Sale) runWarehouse(ctx context.Context) {
	s.every(ctx, lookEvery, "warehouse", func(ctx context.Context) error {
		reply, err := claimScript.Run(ctx, s.env.Redis, []string{looksKey}, lookRooms, lookAgain.Microseconds()).Slice()
		if err != nil {
			return err
		}
		at, _ := reply[0].(int64)
		var errs []error
		for _, v := range reply[1:] {
			text, _ := v.(string)
			room, err := strconv.ParseInt(text, 10, 64)
			if err == nil {
				err = s.look(ctx, room, at)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// look asks the warehouse about a room's products, as of the time of the claim.
func (s *Sale) look(ctx context.Context, room, at int64) error {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return err
	}
	if v.State != stateOpen {
		return down(s.env.Redis.ZRem(ctx, looksKey, room).Err())
	}
	var skus []string
	for _, it := range v.Items {
		if it.Elsewhere {
			skus = append(skus, it.SKU)
		}
	}
	if len(skus) == 0 {
		return nil
	}
	left, err := s.opts.Warehouse.Left(ctx, skus)
	if err != nil {
		return fmt.Errorf("warehouse: %w", err)
	}
	args := []any{at, seenKept.Milliseconds()}
	for _, sku := range skus {
		args = append(args, sku, max(0, left[sku]))
	}
	crossed, err := seenScript.Run(ctx, s.env.Redis, seenKeys(room), args...).StringSlice()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(crossed); i += 2 {
		n, err := strconv.ParseInt(crossed[i+1], 10, 64)
		if err == nil {
			err = s.announce(ctx, room, StockFrame{SKU: crossed[i], Left: n, Version: at})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seenElsewhere adds to levels what was last seen in the warehouse.
func (s *Sale) seenElsewhere(ctx context.Context, room int64, levels map[string]stock.Level) error {
	seen, err := s.env.Redis.HGetAll(ctx, seenKeys(room)[0]).Result()
	if err != nil {
		return down(err)
	}
	for sku, text := range seen {
		var l stock.Level
		if _, err := fmt.Sscanf(text, "%d %d", &l.Left, &l.Version); err != nil {
			return fmt.Errorf("warehouse: %q of %s: %w", text, sku, err)
		}
		levels[sku] = l
	}
	return nil
}

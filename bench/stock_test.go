//go:build unix

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

// The sale: one SKU, one unit an order, more units than orders. An order's id has
// 11 bytes, its user 8.
const (
	sku   = "tea"
	units = 1 << 40
)

var (
	oneUnit = []stock.Item{{SKU: sku, Qty: 1}}
	users   = numbered("u-", 6, 100_000)
)

// numbered returns n names.
func numbered(prefix string, width, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%0*d", prefix, width, i)
	}
	return names
}

func order(i int) stock.Order {
	b := append(make([]byte, 0, 11), "o-000000000"...)
	digits := strconv.AppendInt(nil, int64(i), 10)
	copy(b[len(b)-len(digits):], digits)
	return stock.Order{ID: string(b), User: users[i%len(users)], Items: oneUnit}
}

// BenchmarkStockDeduct sells one unit an operation. Only Spillway's rows remember
// the order, so that a retry cannot sell twice, and write a journal.
func BenchmarkStockDeduct(b *testing.B) {
	for _, row := range []struct {
		name string
		run  func(b *testing.B, goroutines int)
	}{
		{"spillway", sell(stock.Options{})},
		{"spillway-limited", sell(stock.Options{UserLimit: units, UserSKULimit: units})},
		{"spillway-reserve", reserve},
		{"spillway-unmerged", sell(stock.Options{Unmerged: true})},
		{"redsync-lock", func(b *testing.B, goroutines int) { lockAndSet(b, goroutines) }},
		{"redsync-lock-tuned", tunedLock},
		{"lua-minimal", minimalLua},
		{"decrby", decrby},
		{"sql-row-lock", sqlStock(rowLock)},
		{"sql-conditional-update", sqlStock(conditionalUpdate)},
		{"sql-version-cas", sqlStock(versionCAS)},
	} {
		for _, goroutines := range []int{64, 256} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", row.name, goroutines), func(b *testing.B) { row.run(b, goroutines) })
		}
	}
}

func open(b *testing.B, rdb *redis.Client, opts stock.Options, left int64) *stock.Activity {
	b.Helper()
	a, err := stock.New(rdb, "sale", opts)
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Load(b.Context(), map[string]int64{sku: left}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Close(b.Context()) })
	return a
}

func sell(opts stock.Options) func(*testing.B, int) {
	return func(b *testing.B, goroutines int) {
		rdb := newClient(b)
		a, ctx := open(b, rdb, opts, units), b.Context()
		run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha"}, memory: true}, func(i int) error {
			_, err := a.Deduct(ctx, order(i))
			return err
		})
		level(b, a, stock.Level{Left: units - int64(b.N), Sold: int64(b.N)})
	}
}

func reserve(b *testing.B, goroutines int) {
	rdb := newClient(b)
	a, ctx := open(b, rdb, stock.Options{}, units), b.Context()
	run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha"}, memory: true}, func(i int) error {
		_, err := a.Reserve(ctx, order(i))
		return err
	})
	level(b, a, stock.Level{Left: units - int64(b.N), Reserved: int64(b.N)})
}

// level fails a row that did not do the work.
func level(b *testing.B, a *stock.Activity, want stock.Level) {
	b.Helper()
	levels, err := a.Stock(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	got := levels[sku]
	got.Version = 0
	if got != want {
		b.Fatalf("stock is %+v, want %+v", got, want)
	}
}

// counter is level for the rows whose stock is a plain key.
func counter(b *testing.B, rdb *redis.Client) {
	b.Helper()
	left, err := rdb.Get(b.Context(), "stock").Int64()
	if err != nil || left != units-int64(b.N) {
		b.Fatalf("%d units left (%v), want %d", left, err, units-int64(b.N))
	}
}

// lockAndSet is the stock of a shop that guards it with a lock: lock, GET, SET,
// unlock. Who fails to get the lock tries again, since the order is to be sold.
func lockAndSet(b *testing.B, goroutines int, options ...redsync.Option) {
	rdb, ctx := newClient(b), b.Context()
	rs := redsync.New(redsyncredis.NewPool(rdb))
	if err := rdb.Set(ctx, "stock", units, 0).Err(); err != nil {
		b.Fatal(err)
	}
	run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha", "set", "get"}}, func(int) error {
		mu := rs.NewMutex("lock", options...)
		err := mu.LockContext(ctx)
		for errors.Is(err, redsync.ErrFailed) || errors.As(err, new(*redsync.ErrTaken)) {
			err = mu.LockContext(ctx)
		}
		if err != nil {
			return err
		}
		left, err := rdb.Get(ctx, "stock").Int64()
		if err != nil {
			return err
		}
		if left < 1 {
			return stock.ErrInsufficient
		}
		if err := rdb.Set(ctx, "stock", left-1, 0).Err(); err != nil {
			return err
		}
		_, err = mu.UnlockContext(ctx)
		return err
	})
	counter(b, rdb)
}

// tunedLock has the delay between tries that was found best, which is all that
// redsync's documentation offers for a contended lock: random, and longer where
// more callers try. Fixed delays of 1 to 200 ms are slower than the defaults.
func tunedLock(b *testing.B, goroutines int) {
	delay := time.Duration(goroutines) * 300 * time.Microsecond
	lockAndSet(b, goroutines, redsync.WithTries(10_000),
		redsync.WithRetryDelayFunc(func(int) time.Duration { return rand.N(delay) }))
}

// minimalLua is the least that does not oversell.
func minimalLua(b *testing.B, goroutines int) {
	rdb, ctx := newClient(b), b.Context()
	if err := rdb.Set(ctx, "stock", units, 0).Err(); err != nil {
		b.Fatal(err)
	}
	script := redis.NewScript(`
		local left = tonumber(redis.call('GET', KEYS[1]))
		local qty = tonumber(ARGV[1])
		if left < qty then return -1 end
		return redis.call('DECRBY', KEYS[1], qty)`)
	if err := script.Load(ctx, rdb).Err(); err != nil {
		b.Fatal(err)
	}
	keys := []string{"stock"}
	run(b, rdb, load{goroutines: goroutines, commands: []string{"evalsha"}}, func(int) error {
		left, err := script.EvalSha(ctx, rdb, keys, 1).Int64()
		if err == nil && left < 0 {
			err = stock.ErrInsufficient
		}
		return err
	})
	counter(b, rdb)
}

// decrby does not even look whether there is enough.
func decrby(b *testing.B, goroutines int) {
	rdb, ctx := newClient(b), b.Context()
	if err := rdb.Set(ctx, "stock", units, 0).Err(); err != nil {
		b.Fatal(err)
	}
	run(b, rdb, load{goroutines: goroutines, commands: []string{"decrby"}}, func(int) error {
		return rdb.DecrBy(ctx, "stock", 1).Err()
	})
	counter(b, rdb)
}

// BenchmarkStockSoldOut orders what is sold out, from 64 goroutines: answered from
// memory with one question to Redis every SoldOutFor, or by Redis each time.
func BenchmarkStockSoldOut(b *testing.B) {
	for _, row := range []struct {
		name string
		opts stock.Options
	}{
		{"spillway", stock.Options{}},
		{"round-trip", stock.Options{SoldOutFor: -1}},
		{"round-trip-unmerged", stock.Options{SoldOutFor: -1, Unmerged: true}},
	} {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			a, ctx := open(b, rdb, row.opts, 0), b.Context()
			orders := make([]stock.Order, 1<<14) // made here: they would take longer than the answer
			for i := range orders {
				orders[i] = order(i)
			}
			run(b, rdb, load{goroutines: 64, commands: []string{"evalsha"}}, func(i int) error {
				_, err := a.Deduct(ctx, orders[i%len(orders)])
				if !errors.Is(err, stock.ErrInsufficient) {
					return fmt.Errorf("sold out, and the answer is %w", err)
				}
				return nil
			})
		})
	}
}

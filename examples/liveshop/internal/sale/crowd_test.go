package sale

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/stock"
)

// holds judges the shop.
func holds(t testing.TB, env *infra.Env) {
	t.Helper()
	verdicts, err := check.All(t.Context(), env)
	require.NoError(t, err)
	for _, v := range verdicts {
		t.Logf("%-28s %v: %s", v.Name, v.OK, v.Detail)
		if !v.OK {
			t.Errorf("%s: %s", v.Name, v.Detail)
		}
	}
}

// answered reports whether a call got an answer that another try would not change.
func answered(err error) bool {
	e := api.Failure(err)
	return err == nil || e.Status < 500
}

// sure repeats a call until it is answered, as a page does: under the same order_id.
func sure[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if answered(err) || ctx.Err() != nil {
			return v, err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// A crowd is what the buyers of a test were told.
type crowd struct {
	shops  []*shop // the servers, which share everything
	room   int64
	sku    string
	mu     sync.Mutex
	paid   map[int64]bool // orders
	took   []time.Duration
	told   func(order int64) // that it is paid for; nil: nobody
	placed atomic.Int64
	lost   atomic.Int64 // orders that were acknowledged, and are not there any more
}

func newCrowd(room int64, sku string, shops ...*shop) *crowd {
	return &crowd{shops: shops, room: room, sku: sku, paid: map[int64]bool{}}
}

// buy is a buyer: orders, one in five by a double click, and pays, but for those who
// forget it.
func (c *crowd) buy(ctx context.Context, uid int64, forgets bool) error {
	sh := c.shops[rand.IntN(len(c.shops))]
	id, err := sure(ctx, func() (int64, error) { return sh.Token(ctx, uid) })
	if err != nil {
		return err
	}
	click := func(sh *shop) (Placed, error) {
		began := time.Now()
		p, err := sure(ctx, func() (Placed, error) { return sh.Place(ctx, uid, id, c.room, []Line{{c.sku, 1}}) })
		c.mu.Lock()
		c.took = append(c.took, time.Since(began))
		c.mu.Unlock()
		return p, err
	}
	var second error
	var twice sync.WaitGroup
	if rand.IntN(5) == 0 {
		twice.Go(func() { _, second = click(c.shops[rand.IntN(len(c.shops))]) })
	} else {
		second = errors.New("was not made")
	}
	_, err = click(sh)
	twice.Wait()
	if err != nil && second != nil {
		return err // both: a yes is a yes
	}
	c.placed.Add(1)
	if forgets {
		return nil
	}
	r, err := sure(ctx, func() (Receipt, error) { return sh.payEither(ctx, uid, id) })
	if err == nil && r.State == Paid {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.paid[id] {
			return fmt.Errorf("order %d was placed twice", id)
		}
		c.paid[id] = true
		if c.told != nil {
			c.told(id)
		}
		return nil
	}
	if e := new(api.Error); errors.As(err, &e) && e.Code == errNoOrder.Code {
		c.lost.Add(1)
	}
	return err // or it was too late
}

// at returns what p of a hundred orders took at most.
func (c *crowd) at(p int) time.Duration {
	slices.Sort(c.took)
	return c.took[len(c.took)*p/100]
}

// report logs how fast the orders were.
func (c *crowd) report(t testing.TB, what string, took time.Duration) {
	t.Logf("%s: %d orders in %v, %.0f/s; p50 %v, p99 %v", what, len(c.took), took.Round(time.Millisecond),
		float64(len(c.took))/took.Seconds(), c.at(50).Round(time.Microsecond), c.at(99).Round(time.Microsecond))
}

// refused fails the test unless err is a refusal by one of the codes.
func refused(t testing.TB, err error, codes ...string) {
	t.Helper()
	e := new(api.Error)
	require.ErrorAs(t, err, &e)
	require.Contains(t, codes, e.Code)
}

// 10,000 people want one of 100 units, through two servers. Some who got one do not
// pay, and their units are sold again: to those who are told that there are some.
func TestCrowd(t *testing.T) { sellsToACrowd(t, false, 10_000, 100) }

// Likewise some hundred, of a star whose units are in buckets: wherever one is, who comes
// for it gets it.
func TestCrowdOfAStar(t *testing.T) {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		sellsToACrowd(t, true, 10_000, 100)
		return
	}
	t.Parallel()
	sellsToACrowd(t, true, 400, 40)
}

func sellsToACrowd(t *testing.T, star bool, buyers, units int) {
	patient := 2 * units
	opts := Options{Hold: 2 * time.Second}
	if redistest.RaceEnabled { // the simulated Redis does a tenth then: holds would end before it is their turn to pay
		buyers, opts.Hold = min(buyers, 500), 10*time.Second
	}
	env := shoptest.Env(t)
	one := newShop(t, env, opts)
	cfg := env.Config
	cfg.Server = "s2"
	two := newShop(t, shoptest.Open(t, cfg, false), opts)
	one.opens(t, 1, star, Product{SKU: "tea", Total: int64(units), PerUser: 1})
	people := one.users(t, buyers, 1000)
	c := newCrowd(1, "tea", one, two)

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	start := time.Now()
	require.NoError(t, c.buy(ctx, people[0], true)) // so that there is one at least who forgets
	var wg sync.WaitGroup
	for i, uid := range people[1:] {
		wg.Go(func() {
			pause(ctx, time.Duration(rand.IntN(1000))*time.Millisecond)
			err := c.buy(ctx, uid, i%10 == 0)
			for err != nil && i < patient && ctx.Err() == nil && one.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'paid'") < int64(units) {
				pause(ctx, time.Duration(100+rand.IntN(400))*time.Millisecond)
				err = c.buy(ctx, uid, false)
			}
		})
	}
	wg.Wait()
	c.report(t, "embedded", time.Since(start))
	require.NoError(t, ctx.Err(), "it took too long")
	require.Len(t, c.paid, units, "exactly all units are sold")
	eventually(t, "all orders met their end in SQL", func() bool {
		return one.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'paid'") == int64(units) &&
			one.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'pending'") == 0
	})
	require.Positive(t, one.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'cancelled'"))
	l, err := one.of(t.Context(), 1)
	require.NoError(t, err)
	levels, err := l.stock.Stock(t.Context())
	require.NoError(t, err)
	require.Equal(t, stock.Level{Sold: int64(units), Version: levels["tea"].Version}, levels["tea"])
	holds(t, env)

	// Every sell-out and every return was announced; the last word is "sold out".
	eventually(t, "the last event", func() bool {
		last := StockFrame{}
		for _, f := range append(one.heard.frames("tea"), two.heard.frames("tea")...) {
			if f.Version > last.Version {
				last = f
			}
		}
		return last == StockFrame{SKU: "tea", Left: 0, Version: levels["tea"].Version}
	})
}

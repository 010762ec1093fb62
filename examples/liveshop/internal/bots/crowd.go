package bots

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
)

// inFlight is how many customers of a closed loop are at it at the same time.
const inFlight = 128

// shortHold is how long an order may be kept unpaid by customers who never pay: where
// it is longer, their units would not come back while one watches.
const shortHold = 10 * time.Second

// A Crowd is customers who all want the same thing.
type Crowd struct {
	base  string
	room  int64
	sku   string
	units int64
	web   *http.Client
	meter meter

	customers []*client.Client

	loggedIn, tried, granted, paid, left atomic.Int64
	done                                 chan struct{} // closed when all units are paid for
	once                                 sync.Once

	mu   sync.Mutex
	told map[int64]int64 // who was told that an order is paid for
	odd  []string        // answers that must not be
}

// NewCrowd returns a crowd for the units of a product in a room.
func NewCrowd(base string, room int64, sku string, units int64) *Crowd {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns, transport.MaxConnsPerHost = 512, 512, 512
	return &Crowd{
		base: base, room: room, sku: sku, units: units, told: map[int64]int64{}, done: make(chan struct{}),
		web: &http.Client{Transport: transport, Timeout: 15 * time.Second},
	}
}

// Close closes what the crowd's calls left open.
func (c *Crowd) Close() { c.web.CloseIdleConnections() }

// each calls f for the numbers below n, workers at a time, until ctx ends.
func each(ctx context.Context, n, workers int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// LogIn logs n customers in. They live at different addresses, which a server believes
// of programs on its own machine.
func (c *Crowd) LogIn(ctx context.Context, n int) error {
	c.customers = make([]*client.Client, n)
	errs := make([]error, n)
	each(ctx, n, 64, func(i int) {
		c.customers[i] = &client.Client{
			HTTP: c.web, Base: c.base, From: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), Saw: c.meter.saw,
		}
		errs[i] = c.customers[i].LogIn(ctx, fmt.Sprintf("137%08d", i))
		c.loggedIn.Add(1)
	})
	return cmp.Or(errors.Join(errs...), ctx.Err())
}

// Come lets all customers come: at rate a second, whatever the answers; or, if rate is
// 0, the next one when one has the answer. It returns when everybody is gone.
func (c *Crowd) Come(ctx context.Context, rate float64) {
	var patient sync.WaitGroup // they wait outside, and are in nobody's way
	defer patient.Wait()
	one := func(i int) {
		again := c.buy(ctx, i, true)
		if again && i%50 == 7 {
			patient.Go(func() { c.wait(ctx, i) })
		}
	}
	if rate <= 0 {
		each(ctx, len(c.customers), inFlight, one)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	began := time.Now()
	for i := range c.customers {
		due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if !sleep(ctx, time.Until(due)) {
			return
		}
		wg.Go(func() { one(i) })
	}
}

// wait comes back while units may.
func (c *Crowd) wait(ctx context.Context, i int) {
	for c.pause(ctx, 300*time.Millisecond+rand.N(700*time.Millisecond)) {
		if !c.buy(ctx, i, false) {
			return
		}
	}
}

// pause waits, unless all is sold.
func (c *Crowd) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.done:
	case <-ctx.Done():
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

type placed struct {
	OrderID int64  `json:"order_id"`
	State   string `json:"state"`
	Expires int64  `json:"expires_at"`
	Fen     int64  `json:"fen"`
}

// buy is one customer's visit. It reports whether it was in vain, and may not be the
// next time.
func (c *Crowd) buy(ctx context.Context, i int, first bool) (again bool) {
	defer func() {
		if first {
			c.tried.Add(1)
		}
	}()
	me := c.customers[i]
	var order placed
	if err := me.Sure(ctx, "POST /orders/token", nil, &order); err != nil {
		return c.fault(ctx, "token", err)
	}
	in := map[string]any{"order_id": order.OrderID, "room": c.room, "items": []map[string]any{{"sku": c.sku, "qty": 1}}}
	var second error
	var twice sync.WaitGroup
	double := first && i%4 == 0 // an impatient click
	if double {
		twice.Go(func() {
			var same placed
			second = me.Sure(ctx, "POST /orders", in, &same)
		})
	}
	err := me.Sure(ctx, "POST /orders", in, &order)
	twice.Wait()
	if double && (err == nil) != (second == nil) && ctx.Err() == nil {
		// A yes beside a no is right in one case: units came back in between.
		err = nil
		if again := me.Sure(ctx, "POST /orders", in, &order); again != nil {
			return c.fault(ctx, "an order that was granted once", again)
		}
	}
	if refused := new(api.Error); errors.As(err, &refused) && refused.Code == "sold_out" {
		return true
	} else if err != nil {
		return c.fault(ctx, "order", err)
	}
	c.granted.Add(1)
	hold := time.Until(time.UnixMilli(order.Expires))
	if first && i%10 == 3 && hold < shortHold {
		c.left.Add(1)
		return false // leaves without a word
	}
	return c.pay(ctx, me, order, i%3 == 0)
}

func (c *Crowd) pay(ctx context.Context, me *client.Client, order placed, saves bool) (again bool) {
	recharge := map[string]any{"fen": 1_000_000, "key": fmt.Sprint(order.OrderID)}
	if err := me.Sure(ctx, "POST /recharge", recharge, nil); err != nil {
		return c.fault(ctx, "recharge", err)
	}
	var receipt struct{ State string }
	if err := payOrder(ctx, me, order.OrderID, saves, &receipt); err != nil {
		return c.fault(ctx, "pay", err)
	}
	if receipt.State != "paid" {
		return true // too late: the money came back
	}
	c.mu.Lock()
	c.told[order.OrderID] = me.Me.UID
	c.mu.Unlock()
	if c.paid.Add(1) >= c.units {
		c.leave()
	}
	return false
}

// leave has those go who wait for units to come back.
func (c *Crowd) leave() { c.once.Do(func() { close(c.done) }) }

// LeaveWhenSold has them go also when others than this crowd have bought what it wants:
// nothing is left of it and nothing held, as the service says. It returns then, or when
// ctx ends.
func (c *Crowd) LeaveWhenSold(ctx context.Context) {
	operator := &client.Client{HTTP: c.web, Base: c.base}
	for sleep(ctx, time.Second) {
		var stats struct {
			Stock []struct {
				SKU            string
				Left, Reserved int64
			}
		}
		if operator.Call(ctx, "GET /admin/stats", nil, &stats) != nil {
			continue // the next time
		}
		for _, s := range stats.Stock {
			if s.SKU == c.sku && s.Left+s.Reserved == 0 {
				c.leave()
				return
			}
		}
	}
}

// fault remembers an answer that nobody should get. A payment that was too late is
// none.
func (c *Crowd) fault(ctx context.Context, what string, err error) (again bool) {
	refused := new(api.Error)
	if errors.As(err, &refused) && (refused.Code == "cancelled" || refused.Code == "limit") {
		return true
	}
	if ctx.Err() != nil {
		return false // the run was ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.odd = append(c.odd, fmt.Sprintf("%s: %v", what, err))
	return false
}

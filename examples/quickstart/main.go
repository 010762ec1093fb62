// Quickstart sells 100 units to 10,000 buyers, who click twice, cancel, or never pay.
// Then it reads the journal and judges whether all went well.
package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

const (
	sku   = "sneaker"
	limit = 1           // units a buyer may have
	hold  = time.Second // to pay in; then the unit is for somebody else
)

func main() {
	addr := flag.String("redis", "", "host:port of a Redis; without it one is simulated in this process")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // the second Ctrl-C does not wait for anything
	os.Exit(run(ctx, os.Stdout, *addr, 10_000, 100))
}

// sell holds one sale and returns the judgement on its journal.
func sell(ctx context.Context, rdb *redis.Client, buyers int, units int64, show screen) (_ []verdict, err error) {
	// An activity of its own: whatever the Redis holds already is left alone.
	activity, err := stock.New(rdb, "quickstart-"+crand.Text(), stock.Options{
		Hold: hold, UserLimit: limit,
		SoldOutFor: 500 * time.Millisecond, // "sold out" from memory; Run hears at once when it is over
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, drop(ctx, activity)) }()
	if err := activity.Load(ctx, map[string]int64{sku: units}); err != nil {
		return nil, err
	}

	s := newSale(ctx, activity, units)
	s.staff.Go(func() { s.watch(ctx, show) })
	s.staff.Go(func() { _ = activity.Run(s.open) }) // takes back what is not paid for in time
	for n := range buyers {
		s.crowd.Go(func() { s.buyer(ctx, n, "first") })
		if n%5 == 3 { // greedy: two orders at once
			s.crowd.Go(func() { s.buyer(ctx, n, "second") })
		}
	}
	if err := s.end(ctx); err != nil {
		return nil, err
	}

	var journal []stock.Entry
	for entry, err := range activity.Entries(ctx, "") {
		if err != nil {
			return nil, err
		}
		journal = append(journal, entry)
	}
	levels, err := activity.Stock(ctx, sku)
	return check(journal, s.told, levels[sku]), err
}

// buyer number n comes within a second, and tries until all units are paid for.
func (s *sale) buyer(ctx context.Context, n int, which string) {
	user := fmt.Sprintf("buyer-%d", n)
	order := stock.Order{ID: user + "-" + which, User: user, Items: []stock.Item{{SKU: sku, Qty: 1}}}
	ref := stock.Ref{ID: order.ID, User: user}
	twice := n%4 == 0 // impatient
	arrives := time.Duration(n*7919%1000) * time.Millisecond
	for pause := arrives; s.sleep(pause); pause = 100*time.Millisecond + rand.N(300*time.Millisecond) {
		err := s.click(ctx, order, twice)
		twice = false
		if errors.Is(err, stock.ErrInsufficient) {
			continue // sold out, but somebody may give a unit back
		}
		if err != nil {
			return // ErrLimit: this buyer's other order has a unit
		}
		s.sleep(rand.N(200 * time.Millisecond)) // where is that credit card?
		var res stock.Result
		switch n % 10 {
		case 0: // leaves without a word
			res.State = stock.Expired
		case 1, 2:
			res, _ = s.sure(ctx, func() (stock.Result, error) { return s.stock.Cancel(ctx, ref, "changed my mind") })
		default:
			res, _ = s.sure(ctx, func() (stock.Result, error) { return s.stock.Confirm(ctx, ref) })
		}
		s.tell(order, res.State)
		return
	}
}

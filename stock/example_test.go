package stock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

// connect stands for your own client of your own Redis.
func connect() (rdb redis.UniversalClient, done func()) {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: server.Addr()})
	return rdb, func() {
		_ = rdb.Close()
		server.Close()
	}
}

// newSale returns an activity that has tea and cups.
func newSale(rdb redis.UniversalClient, opts stock.Options) *stock.Activity {
	a, err := stock.New(rdb, "summer-sale", opts)
	if err != nil {
		log.Fatal(err)
	}
	if err := a.Load(context.Background(), map[string]int64{"tea": 10, "cup": 1}); err != nil {
		log.Fatal(err)
	}
	return a
}

// order is one user's order for one SKU.
func order(id, user, sku string, qty int64) stock.Order {
	return stock.Order{ID: id, User: user, Items: []stock.Item{{SKU: sku, Qty: qty}}}
}

// Stock is taken when the order is placed. What is not paid for is cancelled, and
// sells again.
func Example_atOrder() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a, err := stock.New(rdb, "summer-sale", stock.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close(ctx)
	// Every process may load, at any time: what was sold stays sold.
	if err := a.Load(ctx, map[string]int64{"tea": 10, "cup": 1}); err != nil {
		log.Fatal(err)
	}

	ann, err := a.Deduct(ctx, stock.Order{ID: "o1", User: "ann", Items: []stock.Item{{SKU: "tea", Qty: 3}, {SKU: "cup", Qty: 1}}})
	fmt.Println("ann:", ann.State, err)
	bob, err := a.Deduct(ctx, stock.Order{ID: "o2", User: "bob", Items: []stock.Item{{SKU: "tea", Qty: 2}}})
	fmt.Println("bob:", bob.State, err)

	// ann pays, and nobody can cancel her order any more. bob does not.
	ann, err = a.Confirm(ctx, stock.Ref{ID: "o1", User: "ann"})
	fmt.Println("ann:", ann.State, err)
	bob, err = a.Cancel(ctx, stock.Ref{ID: "o2", User: "bob"}, "not paid in time")
	fmt.Println("bob:", bob.State, err)

	levels, err := a.Stock(ctx, "tea")
	fmt.Println("tea:", levels["tea"].Left, "left,", levels["tea"].Sold, "sold", err)
	// Output:
	// ann: sold <nil>
	// bob: sold <nil>
	// ann: confirmed <nil>
	// bob: cancelled <nil>
	// tea: 7 left, 3 sold <nil>
}

// Stock is taken when the money has arrived: nobody can block units without paying,
// and who pays too late gets the money back.
func Example_atPayment() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)

	// The payment provider calls this at least once a payment.
	paid := func(orderID, user string) string {
		o := order(orderID, user, "cup", 1)
		o.Retry = true // may have been called before: do not answer from memory
		res, err := a.Deduct(ctx, o)
		switch {
		case err == nil && res.Replayed:
			return "known already"
		case err == nil:
			return "ship it"
		case errors.Is(err, stock.ErrInsufficient):
			return "refund"
		}
		return "call again" // and the provider will
	}
	fmt.Println(paid("o1", "ann"))
	fmt.Println(paid("o2", "bob"))
	fmt.Println(paid("o1", "ann"))
	// Output:
	// ship it
	// refund
	// known already
}

// Stock is held while the buyer pays: Confirm sells it, and a hold that is over gives
// it back by itself.
func Example_holdThenPay() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{Hold: time.Second})
	defer a.Close(ctx)

	res, err := a.Reserve(ctx, order("o1", "ann", "cup", 1))
	fmt.Println("ann:", res.State, err)
	_, err = a.Reserve(ctx, order("o2", "bob", "cup", 1))
	fmt.Println("bob:", errors.Is(err, stock.ErrInsufficient))

	<-time.After(time.Until(res.Expires)) // ann looks for her credit card

	res, err = a.Reserve(ctx, stock.Order{ID: "o2", User: "bob", Items: []stock.Item{{SKU: "cup", Qty: 1}}, Retry: true})
	fmt.Println("bob:", res.State, err)
	res, err = a.Confirm(ctx, stock.Ref{ID: "o2", User: "bob"})
	fmt.Println("bob:", res.State, err)
	res, err = a.Confirm(ctx, stock.Ref{ID: "o1", User: "ann"})
	fmt.Println("ann:", res.State, errors.Is(err, stock.ErrExpired))
	// Output:
	// ann: reserved <nil>
	// bob: true
	// bob: reserved <nil>
	// bob: confirmed <nil>
	// ann: expired true
}

// What each error asks for.
func Example_errors() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{UserLimit: 2})

	answer := func(_ stock.Result, err error) string {
		var short *stock.InsufficientError
		var limit *stock.LimitError
		switch {
		case err == nil:
			return "yours"
		case errors.As(err, &short): // is ErrInsufficient
			return fmt.Sprintf("only %d of %s left", short.Left, short.SKU)
		case errors.As(err, &limit): // is ErrLimit
			return fmt.Sprintf("you have %d of %d already", limit.Have, limit.Limit)
		case errors.Is(err, stock.ErrHalted), errors.Is(err, stock.ErrNotOpen):
			return "come back later"
		case errors.Is(err, stock.ErrEnded), errors.Is(err, stock.ErrNotEligible):
			return "not for you"
		case errors.Is(err, stock.ErrCancelled), errors.Is(err, stock.ErrExpired):
			return "gone: please order anew, under a new id"
		case errors.Is(err, stock.ErrConfirmed):
			return "paid for: too late to cancel"
		case errors.Is(err, stock.ErrNotFound):
			return "no such order"
		case errors.Is(err, stock.ErrUnknown):
			return "checking" // the same call again, or Lookup; never under a new id
		case errors.Is(err, stock.ErrUnavailable):
			return "try again" // nothing happened
		case errors.Is(err, stock.ErrClosed):
			return "this process is going down"
		case errors.Is(err, stock.ErrConflict), errors.Is(err, stock.ErrNoSKU), errors.Is(err, stock.ErrInvalid):
			return "a bug in the caller: log it"
		}
		return "log it"
	}
	fmt.Println(answer(a.Deduct(ctx, order("o1", "ann", "cup", 1))))
	fmt.Println(answer(a.Deduct(ctx, order("o2", "bob", "cup", 1))))
	fmt.Println(answer(a.Deduct(ctx, order("o3", "ann", "tea", 2))))
	fmt.Println(answer(a.Deduct(ctx, order("o1", "ann", "tea", 1))))
	fmt.Println(answer(a.Deduct(ctx, order("o4", "bob", "tea", -1))))
	fmt.Println(answer(a.Confirm(ctx, stock.Ref{ID: "o5", User: "bob"})))
	_ = a.Close(ctx)
	fmt.Println(answer(a.Deduct(ctx, order("o6", "bob", "tea", 1))))

	// Those that carry figures are found by their value too.
	fmt.Println(errors.Is(&stock.InsufficientError{}, stock.ErrInsufficient), errors.Is(&stock.LimitError{}, stock.ErrLimit))
	// Output:
	// yours
	// only 0 of cup left
	// you have 1 of 2 already
	// a bug in the caller: log it
	// a bug in the caller: log it
	// no such order
	// this process is going down
	// true true
}

// After ErrUnknown, or in a process that was restarted: what became of the order?
func ExampleActivity_Lookup() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)

	ask := func(id string) string {
		res, err := a.Lookup(ctx, stock.Ref{ID: id, User: "ann"})
		if err != nil && !errors.Is(err, stock.ErrNotFound) {
			return "ask again later"
		}
		switch res.State {
		case stock.Reserved, stock.Sold:
			return "wait for the payment"
		case stock.Confirmed:
			return "ship it"
		case stock.Cancelled, stock.Expired:
			return "nothing to do"
		case stock.None: // but it may be on its way: Cancel would forbid that
			return "order again, under the same id"
		}
		return res.State.String()
	}
	_, _ = a.Reserve(ctx, order("o1", "ann", "tea", 1))
	fmt.Println(ask("o1"))
	_, _ = a.Confirm(ctx, stock.Ref{ID: "o1", User: "ann"})
	fmt.Println(ask("o1"))
	fmt.Println(ask("o2"))
	// Output:
	// wait for the payment
	// ship it
	// order again, under the same id
}

// More units of a SKU come with a Restock, which has an id of its own so that it can
// be repeated; a new SKU comes with another Load.
func ExampleActivity_Restock() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)

	for range 2 {
		res, err := a.Restock(ctx, "delivery-17", stock.Item{SKU: "tea", Qty: 5})
		fmt.Println(res.Items, res.Replayed, err)
	}
	fmt.Println(a.Load(ctx, map[string]int64{"pot": 3}))
	fmt.Println(errors.Is(a.Load(ctx, map[string]int64{"pot": 4}), stock.ErrConflict))
	levels, err := a.Stock(ctx) // of all
	fmt.Println(levels["tea"].Left, levels["cup"].Left, levels["pot"].Left, err)
	// Output:
	// [{tea 5}] false <nil>
	// [{tea 5}] true <nil>
	// <nil>
	// true
	// 15 1 3 <nil>
}

// Run releases holds in time, and tells OnEvent when a SKU sells out or comes back.
func ExampleActivity_Run() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	events := make(chan stock.Event, 10)
	a := newSale(rdb, stock.Options{Hold: 500 * time.Millisecond, OnEvent: func(e stock.Event) { events <- e }})
	defer a.Close(ctx)

	_, _ = a.Reserve(ctx, order("o1", "ann", "cup", 1)) // the last one
	running := make(chan error)
	go func() { running <- a.Run(ctx) }()
	for e := range events {
		if e.Left > 0 { // the hold is over
			fmt.Println(e.SKU, "is back:", e.Left)
			break
		}
	}
	stop()
	fmt.Println(<-running)
	// Output:
	// cup is back: 1
	// <nil>
}

// The journal tells everything that happened, in order; here it is replayed.
func ExampleActivity_Entries() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)
	_, _ = a.Reserve(ctx, order("o1", "ann", "cup", 1))
	_, _ = a.Cancel(ctx, stock.Ref{ID: "o1", User: "ann"}, "too dear")
	_, _ = a.Deduct(ctx, order("o2", "bob", "tea", 4))

	left, last := map[string]int64{}, "0-0"
	for entry, err := range a.Entries(ctx, "") {
		if err != nil || entry.Prev != last {
			log.Fatal("the journal has a gap: ", err)
		}
		last = entry.ID
		for _, op := range entry.Ops {
			sign := int64(0)
			switch op.Kind {
			case stock.OpLoad, stock.OpRestock, stock.OpCancel, stock.OpExpire:
				sign = 1
			case stock.OpDeduct, stock.OpReserve:
				sign = -1
			case stock.OpConfirm, stock.OpCrossing, stock.OpGive, stock.OpTake: // moves nothing in all
			}
			for _, it := range op.Items {
				left[it.SKU] += sign * it.Qty
			}
			fmt.Printf("%v %v %q\n", op.Kind, op.Items, op.Reason)
		}
	}
	fmt.Println(left)
	// Output:
	// load [{cup 1} {tea 10}] ""
	// reserve [{cup 1}] ""
	// crossing [] ""
	// cancel [{cup 1}] "too dear"
	// crossing [] ""
	// deduct [{tea 4}] ""
	// map[cup:1 tea:6]
}

// A sale that is too hot for one hash slot is divided. Stock moves to the user's
// bucket when it runs out there, down to the last unit.
func ExampleOptions_buckets() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{Buckets: 3})
	defer a.Close(ctx)

	_, err := a.Deduct(ctx, order("o1", "ann", "tea", 10)) // all there is, in all buckets
	for errors.Is(err, stock.ErrContended) {
		_, err = a.Deduct(ctx, order("o1", "ann", "tea", 10)) // others fetched the last units all the while
	}
	fmt.Println("ann:", err)
	_, err = a.Deduct(ctx, order("o2", "bob", "tea", 1))
	fmt.Println("bob sold out:", errors.Is(err, stock.ErrInsufficient))

	var moved int64
	for entry, err := range a.Entries(ctx, "") { // of one bucket after the other: Entry.Bucket
		if err != nil {
			log.Fatal(err)
		}
		for _, op := range entry.Ops {
			switch op.Kind {
			case stock.OpGive:
				moved -= op.Items[0].Qty
			case stock.OpTake:
				moved += op.Items[0].Qty
			default: // as in any journal
			}
		}
	}
	fmt.Println("lost on the way:", moved)
	// Output:
	// ann: <nil>
	// bob sold out: true
	// lost on the way: 0
}

// A look at a sale, and a hand on it.
func Example_admin() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{EligibleOnly: true})
	defer a.Close(ctx)

	_ = a.Allow(ctx, "ann", "bob")
	_, _ = a.Reserve(ctx, order("o1", "ann", "tea", 2))
	_, err := a.Reserve(ctx, order("o2", "eve", "tea", 2))
	fmt.Println(errors.Is(err, stock.ErrNotEligible))

	_ = a.Halt(ctx, "wrong price")
	_, err = a.Reserve(ctx, order("o3", "bob", "tea", 2))
	fmt.Println(errors.Is(err, stock.ErrHalted))
	info, err := a.Inspect(ctx)
	fmt.Println(info.Halted, info.OpenHolds, info.Entries, err)
	_ = a.Resume(ctx)

	for hold, err := range a.Holds(ctx) {
		fmt.Println(hold.ID, hold.User, hold.Items, err)
	}
	stats := a.Stats() // of this process
	fmt.Println(stats.Calls, "calls,", stats.Batches, "round trips")

	fmt.Println(a.Drop(ctx)) // the stock, the orders, the journal
	// Output:
	// true
	// true
	// wrong price 1 2 <nil>
	// o1 ann [{tea 2}] <nil>
	// 4 calls, 4 round trips
	// <nil>
}

// A partial order takes what can be had.
func ExampleResult() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)

	res, err := a.Deduct(ctx, stock.Order{ID: "o1", User: "ann", Partial: true,
		Items: []stock.Item{{SKU: "tea", Qty: 2}, {SKU: "cup", Qty: 2}}})
	fmt.Println("got", res.Items, "but not", res.Missing, err)
	// Output: got [{tea 2}] but not [{cup 2}] <nil>
}

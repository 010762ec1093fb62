package delayqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/delayqueue"
)

// demo starts a Redis in this process.
func demo() (rdb *redis.Client, stop func()) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		log.Fatal(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: m.Addr()})
	return rdb, func() {
		_ = rdb.Close()
		m.Close()
	}
}

// runUntil runs h until done is closed.
func runUntil(q *delayqueue.Queue, h delayqueue.Handler, opts delayqueue.RunOptions, done <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-done
		cancel()
	}()
	if err := q.Run(ctx, h, opts); err != nil {
		log.Fatal(err)
	}
}

// An order is cancelled if it is not paid for in time. The payment cancels the
// timeout; if the timeout was faster, the payment is told.
func Example_orderTimeout() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "order-timeouts", delayqueue.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, order := range []string{"o-1", "o-2"} {
		// 30 minutes in a shop.
		if _, err := q.Add(ctx, delayqueue.Job{ID: order, Delay: 50 * time.Millisecond}); err != nil {
			log.Fatal(err)
		}
	}
	// o-1 is paid for.
	if err := q.Cancel(ctx, "o-1"); err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	runUntil(q, func(_ context.Context, d *delayqueue.Delivery) error {
		fmt.Println("not paid:", d.ID)
		close(done)
		return nil
	}, delayqueue.RunOptions{}, done)

	// A payment for o-2 comes too late.
	err = q.Cancel(ctx, "o-2")
	fmt.Println(errors.Is(err, delayqueue.ErrFinished))
	info, err := q.Get(ctx, "o-1")
	fmt.Println(info.State, err)
	fmt.Println(q.Close(ctx))
	// Output:
	// not paid: o-2
	// true
	// cancelled <nil>
	// <nil>
}

// Reminders at a time: before a coupon expires, and when an activity ends. An activity
// that is prolonged is rescheduled.
func Example_reminders() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "reminders", delayqueue.Options{Shards: 4})
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	results, err := q.AddMany(ctx, []delayqueue.Job{
		{ID: "coupon:7:expires", At: now.Add(time.Hour), Body: []byte("your coupon expires")},
		{ID: "activity:9:ends", At: now.Add(2 * time.Hour), Body: []byte("the activity ends")},
		{ID: "coupon:7:expires", At: now.Add(time.Hour)},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.ID, errors.Is(r.Err, delayqueue.ErrDuplicate))
	}
	if err := q.Reschedule(ctx, "activity:9:ends", now.Add(-time.Second)); err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	runUntil(q, func(_ context.Context, d *delayqueue.Delivery) error {
		fmt.Println(string(d.Body))
		close(done)
		return nil
	}, delayqueue.RunOptions{}, done)
	all, err := q.Inspect(ctx)
	fmt.Println(all.Waiting, err, q.Stats().Rescheduled)
	// Output:
	// coupon:7:expires false
	// activity:9:ends false
	// coupon:7:expires true
	// the activity ends
	// 1 <nil> 1
}

// A review is written for the buyer who does not write one in seven days. JSON decodes
// the body, and Once keeps a run after a crash from writing a second review.
func Example_defaultReview() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "reviews", delayqueue.Options{})
	if err != nil {
		log.Fatal(err)
	}
	type sale struct{ Order, Buyer string }
	_, err = q.Add(ctx, delayqueue.Job{
		ID: "review:o-1", Delay: 7 * 24 * time.Hour, Body: []byte(`{"Order":"o-1","Buyer":"ann"}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := q.Reschedule(ctx, "review:o-1", time.Now()); err != nil { // lest the example take a week
		log.Fatal(err)
	}
	done := make(chan struct{})
	write := delayqueue.JSON(func(ctx context.Context, s sale, d *delayqueue.Delivery) error {
		first, err := d.Once(ctx, "review")
		if err != nil {
			return err
		}
		if first {
			fmt.Println("five stars for", s.Order, "by", s.Buyer)
		}
		close(done)
		return nil
	})
	runUntil(q, write, delayqueue.RunOptions{}, done)
	// Output:
	// five stars for o-1 by ann
}

// A job whose handler fails is retried, later each time, until MaxAttempts; then it is a
// dead letter, to be looked at and redriven. Middleware is a function that wraps a
// Handler.
func Example_retry() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "mails", delayqueue.Options{MaxAttempts: 2})
	if err != nil {
		log.Fatal(err)
	}
	logged := func(h delayqueue.Handler) delayqueue.Handler {
		return func(ctx context.Context, d *delayqueue.Delivery) error {
			err := h(ctx, d)
			fmt.Printf("%s, attempt %d: %v\n", d.ID, d.Attempt, err)
			return err
		}
	}
	up := false
	send := func(context.Context, *delayqueue.Delivery) error {
		if !up {
			return errors.New("smtp: no route")
		}
		return nil
	}
	opts := delayqueue.RunOptions{Backoff: func(int) time.Duration { return time.Millisecond }}
	if _, err := q.Add(ctx, delayqueue.Job{ID: "mail-1"}); err != nil {
		log.Fatal(err)
	}

	work, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- q.Run(work, logged(send), opts) }()
	var dead []delayqueue.Info
	for len(dead) == 0 {
		if dead, _, err = q.Dead(ctx, "", 100); err != nil {
			log.Fatal(err)
		}
	}
	cancel()
	fmt.Println("run:", <-ended)
	fmt.Println(dead[0].State, dead[0].ID, dead[0].Attempts, dead[0].Error)

	up = true
	n, err := q.Redrive(ctx, dead[0].ID)
	fmt.Println("redriven:", n, err)
	done := make(chan struct{})
	runUntil(q, func(ctx context.Context, d *delayqueue.Delivery) error {
		defer close(done)
		return logged(send)(ctx, d)
	}, opts, done)
	// Output:
	// mail-1, attempt 1: smtp: no route
	// mail-1, attempt 2: smtp: no route
	// run: <nil>
	// dead mail-1 2 smtp: no route
	// redriven: 1 <nil>
	// mail-1, attempt 1: <nil>
}

// Of many changes in a short time, one refresh: each change extends the waiting job.
func ExampleUnique() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "refresh", delayqueue.Options{})
	if err != nil {
		log.Fatal(err)
	}
	add := func(p delayqueue.Policy, body string) {
		_, err := q.Add(ctx, delayqueue.Job{
			Body: []byte(body), Delay: time.Hour,
			Unique: &delayqueue.Unique{Key: "page-7", Policy: p},
		})
		fmt.Println(errors.Is(err, delayqueue.ErrNotUnique))
	}
	add(delayqueue.Reject, "first")
	add(delayqueue.Reject, "second")
	add(delayqueue.Extend, "third")
	add(delayqueue.Replace, "fourth")
	st := q.Stats()
	fmt.Println(st.Added, st.Extended, st.Replaced)
	// Output:
	// false
	// true
	// false
	// false
	// 1 1 1
}

// A job a minute, from all processes together, while the queue is paused for a moment.
// A handler may ask to run later, or never again.
func ExampleQueue_RunPeriodic() {
	rdb, stop := demo()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	q, err := delayqueue.New(rdb, "reports", delayqueue.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := q.Pause(ctx); err != nil {
		log.Fatal(err)
	}
	ticking := make(chan error)
	go func() {
		ticking <- q.RunPeriodic(ctx, delayqueue.Periodic{Name: "report", Every: 100 * time.Millisecond})
	}()
	if err := q.Resume(ctx); err != nil {
		log.Fatal(err)
	}
	runs := 0
	err = q.Run(ctx, func(_ context.Context, d *delayqueue.Delivery) error {
		if runs++; runs == 2 {
			cancel()
		}
		fmt.Println("report", runs)
		switch {
		case d.Attempt > 3:
			return delayqueue.Discard(errors.New("no data"))
		case d.Due.Before(time.Now().Add(-time.Hour)):
			return delayqueue.Snooze(time.Minute)
		}
		return nil
	}, delayqueue.RunOptions{Concurrency: 1})
	fmt.Println(err, <-ticking)
	// Output:
	// report 1
	// report 2
	// <nil> <nil>
}

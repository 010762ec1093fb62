package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/ratelimit"
)

// connect returns a Redis to run the examples on.
func connect() (rdb *redis.Client, stop func()) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		panic(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: m.Addr()})
	return rdb, func() { _ = rdb.Close(); m.Close() }
}

// Ten requests a second and a thousand an hour for each user, whichever ends first.
func Example() {
	rdb, stop := connect()
	defer stop()
	ctx := context.Background()

	limiter, err := ratelimit.New(rdb, []ratelimit.Limit{
		ratelimit.PerSecond(10).WithBurst(3),
		ratelimit.PerHour(1000),
	}, ratelimit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limiter.Close(ctx)

	for _, limit := range limiter.Limits() {
		fmt.Println(limit.Name, limit.Burst)
	}
	for range 4 {
		res, err := limiter.Allow(ctx, "user-42")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(res.OK(), res.Remaining, res.Limiting)
	}
	// Output:
	// 10/1s 3
	// 1000/1h0m0s 1000
	// true 2 10/1s
	// true 1 10/1s
	// true 0 10/1s
	// false 0 10/1s
}

// A denial says when to come back, and is remembered until then: a flood of denied
// calls does not reach Redis.
func ExampleLimiter_AllowN() {
	rdb, stop := connect()
	defer stop()
	ctx := context.Background()
	limiter, _ := ratelimit.New(rdb, []ratelimit.Limit{ratelimit.PerMinute(6)}, ratelimit.Options{})
	defer limiter.Close(ctx)

	res, _ := limiter.AllowN(ctx, "upload", 5)
	fmt.Println("granted", res.Granted, "left", res.Remaining)
	for range 3 {
		res, _ = limiter.AllowN(ctx, "upload", 5)
		fmt.Println("granted", res.Granted, "after", res.RetryAfter.Round(time.Second), "from", res.Source)
	}
	res, _ = limiter.AllowUpTo(ctx, "upload", 5)
	fmt.Println("up to five:", res.Granted)

	_, err := limiter.AllowN(ctx, "upload", 7)
	fmt.Println(errors.Is(err, ratelimit.ErrExceedsBurst))

	_ = limiter.Reset(ctx, "upload")
	res, _ = limiter.Peek(ctx, "upload")
	fmt.Println("left", res.Remaining, "remembered", limiter.Stats().FromMemory)
	// Output:
	// granted 5 left 1
	// granted 0 after 40s from redis
	// granted 0 after 40s from memory
	// granted 0 after 40s from memory
	// up to five: 1
	// true
	// left 6 remembered 2
}

// Work that can wait, in this process alone.
func ExampleLimiter_Wait() {
	limiter, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(1000).WithBurst(1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 3 {
		if err := limiter.Wait(ctx, "mail"); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("sent", i)
	}
	err = limiter.WaitN(ctx, "mail", 2)
	fmt.Println(errors.Is(err, ratelimit.ErrExceedsBurst))
	// Output:
	// sent 0
	// sent 1
	// sent 2
	// true
}

// A turn that is too far away is given back.
func ExampleLimiter_Reserve() {
	rdb, stop := connect()
	defer stop()
	ctx := context.Background()
	limiter, _ := ratelimit.New(rdb, []ratelimit.Limit{ratelimit.PerMinute(1)}, ratelimit.Options{})
	defer limiter.Close(ctx)

	for range 2 {
		turn, err := limiter.Reserve(ctx, "report", 1)
		if err != nil || !turn.OK() {
			fmt.Println(err)
			return
		}
		if d := turn.Delay(); d > 10*time.Second {
			fmt.Println("not for", d.Round(time.Second))
			fmt.Println(turn.Cancel(ctx))
			return
		}
		fmt.Println("now")
	}
	// Output:
	// now
	// not for 1m0s
	// <nil>
}

// A limit on logins that counts exactly, in a fleet that would rather have no logins
// than unlimited ones.
func ExampleNew_algorithms() {
	rdb, stop := connect()
	defer stop()
	for _, algorithm := range []ratelimit.Algorithm{
		ratelimit.GCRA, ratelimit.FixedWindow, ratelimit.SlidingWindow, ratelimit.SlidingLog,
	} {
		limit := ratelimit.PerHour(5)
		limit.Algorithm = algorithm
		limiter, err := ratelimit.New(rdb, []ratelimit.Limit{limit}, ratelimit.Options{
			Name:     "logins",
			WhenDown: ratelimit.FailClosed,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		res, err := limiter.AllowN(context.Background(), "alice", 5)
		fmt.Println(res.OK(), res.Remaining, err)
		_ = limiter.Close(context.Background())
	}
	// Output:
	// true 0 <nil>
	// true 0 <nil>
	// true 0 <nil>
	// true 0 <nil>
}

// Redis is down: each of four processes grants a quarter of the limit.
func ExamplePolicy() {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1})
	defer rdb.Close()
	ctx := context.Background()
	for _, policy := range []ratelimit.Policy{ratelimit.LocalShare, ratelimit.FailOpen, ratelimit.FailClosed} {
		limiter, err := ratelimit.New(rdb, []ratelimit.Limit{ratelimit.PerMinute(4)}, ratelimit.Options{
			WhenDown:  policy,
			Instances: 4,
			Timeout:   5 * time.Millisecond,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		for range 2 {
			res, err := limiter.Allow(ctx, "user-42")
			fmt.Println(res.OK(), res.Source, err)
		}
		_ = limiter.Close(ctx)
	}
	// Output:
	// true local share <nil>
	// false local share <nil>
	// true fail open <nil>
	// true fail open <nil>
	// false fail closed <nil>
	// false fail closed <nil>
}

// A lease: units are taken in advance and granted without asking Redis.
func ExampleOptions_lease() {
	rdb, stop := connect()
	defer stop()
	ctx := context.Background()
	limiter, _ := ratelimit.New(rdb, []ratelimit.Limit{ratelimit.PerSecond(1_000_000)}, ratelimit.Options{Lease: 10 * time.Second})
	for range 1000 {
		if _, err := limiter.Allow(ctx, "checkout"); err != nil {
			fmt.Println(err)
			return
		}
	}
	_ = limiter.Close(ctx) // gives back what is left
	stats := limiter.Stats()
	fmt.Println(stats.FromLease > 900, stats.Calls+stats.FromLease)
	// Output: true 1000
}

// The shape of an interceptor, for gRPC say: the result becomes a status, and what
// decided is counted.
func ExampleResult() {
	type handler func(ctx context.Context, request any) (any, error)
	decided := map[string]int{}
	limiter, _ := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerMinute(1)})

	intercept := func(ctx context.Context, tenant string, request any, next handler) (any, error) {
		res, err := limiter.Allow(ctx, tenant)
		switch {
		case errors.Is(err, ratelimit.ErrInvalid), errors.Is(err, ratelimit.ErrClosed):
			return nil, fmt.Errorf("Internal: %w", err)
		case errors.Is(err, ratelimit.ErrUnavailable), errors.Is(err, ratelimit.ErrUnknown):
			return nil, ctx.Err() // the caller left
		case err != nil:
			return nil, err
		}
		switch res.Source {
		case ratelimit.FromRedis, ratelimit.FromMemory, ratelimit.FromLease, ratelimit.FromLocal:
			decided["limit"]++
		case ratelimit.FromLocalShare, ratelimit.FromFailOpen, ratelimit.FromFailClosed:
			decided["outage"]++
		}
		if !res.OK() {
			return nil, fmt.Errorf("ResourceExhausted: %s, retry in %v", res.Limiting, res.RetryAfter.Round(time.Minute))
		}
		return next(ctx, request)
	}

	for range 2 {
		reply, err := intercept(context.Background(), "acme", "ping", func(context.Context, any) (any, error) { return "pong", nil })
		fmt.Println(reply, err)
	}
	fmt.Println(decided)
	// Output:
	// pong <nil>
	// <nil> ResourceExhausted: 1/1m0s, retry in 1m0s
	// map[limit:2]
}

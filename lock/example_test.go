package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/lock"
)

// server starts a Redis for an example.
func server() (redis.UniversalClient, func()) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		panic(err)
	}
	m.ClockTTL(true)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	return rdb, func() {
		_ = rdb.Close()
		m.Close()
	}
}

// A cron job that runs in every instance, and should do its work in one of them.
func Example_cron() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()

	instance := func(name string) {
		locker, err := lock.New(rdb, lock.Options{TTL: 10 * time.Second, MaxHold: time.Hour})
		if err != nil {
			panic(err)
		}
		defer locker.Close(ctx)
		jobCtx, lease, err := locker.TryLock(ctx, "nightly-report")
		if errors.Is(err, lock.ErrNotAcquired) {
			fmt.Println(name, "leaves it to the other")
			return
		}
		if err != nil {
			panic(err) // ErrUnavailable: Redis is down, and nobody runs the job
		}
		defer lease.Unlock(ctx)
		if name == "first" {
			fmt.Println(name, "works, interrupted:", jobCtx.Err() != nil)
		}
		if name == "first" && lease.Valid(5*time.Second) {
			nested, _ := lock.New(rdb, lock.Options{})
			defer nested.Close(ctx)
			_, _, err = nested.TryLock(ctx, "nightly-report")
			fmt.Println("second gets the lock:", err == nil)
		}
	}
	instance("first")
	// Output:
	// first works, interrupted: false
	// second gets the lock: false
}

func ExampleLocker_Do() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()
	locker, err := lock.New(rdb, lock.Options{})
	if err != nil {
		panic(err)
	}
	defer locker.Close(ctx)

	err = locker.Do(ctx, "account 17", func(ctx context.Context, lease *lock.Lease) error {
		// ctx ends if the lease is lost: pass it to all work that needs the lock.
		fmt.Println("has a fence:", lease.Fence() > 0, "and time:", time.Until(lease.Deadline()) > 5*time.Second)
		return nil
	})
	switch {
	case errors.Is(err, lock.ErrLost), errors.Is(err, lock.ErrMaxHold):
		fmt.Println("another may have worked at the same time")
	case errors.Is(err, lock.ErrUnknown), errors.Is(err, lock.ErrUnavailable):
		fmt.Println("done; the lease ends by itself within its TTL")
	case errors.Is(err, lock.ErrInvalid), errors.Is(err, lock.ErrClosed), errors.Is(err, lock.ErrNotHeld):
		fmt.Println("a bug")
	case err == nil:
		fmt.Println("done;", locker.Stats().Acquired, "lease")
	}
	// Output:
	// has a fence: true and time: true
	// done; 1 lease
}

// An operator looks who holds a lock, and takes it away.
func ExampleLocker_Holder() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()
	locker, err := lock.New(rdb, lock.Options{TTL: time.Second})
	if err != nil {
		panic(err)
	}
	defer locker.Close(ctx)
	leaseCtx, _, err := locker.Lock(ctx, "import")
	if err != nil {
		panic(err)
	}
	holder, err := locker.Holder(ctx, "import")
	if err != nil {
		panic(err)
	}
	fmt.Println("held:", holder.Held, "by this process:", holder.Mine)
	if err := locker.ForceUnlock(ctx, "import"); err != nil {
		panic(err)
	}
	<-leaseCtx.Done()
	fmt.Println(context.Cause(leaseCtx))
	// Output:
	// held: true by this process: true
	// lock: lease lost
}

package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// A cron job that is started in every instance and should do its work in one.
func Example_cron() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()

	instance := func(name string, job func(context.Context)) {
		locker, err := lock.New(rdb, lock.Options{MaxHold: time.Hour})
		if err != nil {
			panic(err)
		}
		defer locker.Close(ctx)
		leaseCtx, lease, err := locker.TryLock(ctx, "nightly-report")
		if errors.Is(err, lock.ErrNotAcquired) {
			fmt.Println(name, "leaves it to the other")
			return
		}
		if err != nil {
			panic(err)
		}
		defer func() { _ = lease.Unlock(ctx) }()
		fmt.Println(name, "works")
		job(leaseCtx) // it ends early if the lease does
		fmt.Println(name, "was alone to the end:", lease.Valid(0))
	}
	instance("first", func(context.Context) {
		instance("second", func(context.Context) {})
	})
	// Output:
	// first works
	// second leaves it to the other
	// first was alone to the end: true
}

// A row that takes no write of a holder who has lost the lock without knowing it.
func Example_fencing() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()
	locker, err := lock.New(rdb, lock.Options{})
	if err != nil {
		panic(err)
	}
	defer locker.Close(ctx)

	set, where := lock.FenceSQL("fence", "?")
	fmt.Printf("UPDATE account SET balance = ?, %s WHERE id = ? AND %s\n", set, where)

	// The same check for a resource in this process's memory. In a Redis script:
	fmt.Println(strings.Contains(lock.FenceLua(), "function admit(key, fence)"))
	var account lock.FenceGuard
	balance := 0
	add := func(lease *lock.Lease, n int) error {
		return account.Do(lease.Fence(), func() error {
			balance += n
			return nil
		})
	}
	_, old, err := locker.Lock(ctx, "account 17")
	if err != nil {
		panic(err)
	}
	fmt.Println(add(old, 100))
	if err := locker.ForceUnlock(ctx, "account 17"); err != nil { // or its TTL passed while it slept
		panic(err)
	}
	other, err := lock.New(rdb, lock.Options{})
	if err != nil {
		panic(err)
	}
	defer other.Close(ctx)
	_, lease, err := other.Lock(ctx, "account 17")
	if err != nil {
		panic(err)
	}
	fmt.Println(add(lease, 10), errors.Is(add(old, 1000), lock.ErrStale), balance)
	_ = old.Unlock(ctx) // ErrLost
	if err := lease.Unlock(ctx); err != nil {
		panic(err)
	}
	// Output:
	// UPDATE account SET balance = ?, fence = ? WHERE id = ? AND fence <= ?
	// true
	// <nil>
	// <nil> true 110
}

// At most ten exports at a time, over the whole fleet.
func ExampleLocker_Semaphore() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()
	locker, err := lock.New(rdb, lock.Options{})
	if err != nil {
		panic(err)
	}
	defer locker.Close(ctx)
	exports := locker.Semaphore("exports", 10)
	var running []*lock.Lease
	for range 10 {
		_, permit, err := exports.Lock(ctx)
		if err != nil {
			panic(err)
		}
		running = append(running, permit)
	}
	_, _, err = exports.TryLock(ctx)
	fmt.Println("an eleventh has to wait:", errors.Is(err, lock.ErrNotAcquired))
	_, _, err = locker.Semaphore("exports", 20).TryLock(ctx)
	fmt.Println("another size is an error:", errors.Is(err, lock.ErrSize))
	for _, permit := range running {
		if err := permit.Unlock(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// an eleventh has to wait: true
	// another size is an error: true
}

// Prices that many read and one updates.
func ExampleLocker_RW() {
	rdb, stop := server()
	defer stop()
	ctx := context.Background()
	locker, err := lock.New(rdb, lock.Options{})
	if err != nil {
		panic(err)
	}
	defer locker.Close(ctx)
	prices := locker.RW("prices")
	_, one, err := prices.RLock(ctx)
	if err != nil {
		panic(err)
	}
	_, two, err := prices.TryRLock(ctx)
	if err != nil {
		panic(err)
	}
	_, _, err = prices.TryLock(ctx)
	fmt.Println("two read, nobody writes:", errors.Is(err, lock.ErrNotAcquired))
	_ = one.Unlock(ctx)
	_ = two.Unlock(ctx)
	_, write, err := prices.Lock(ctx)
	fmt.Println("nobody reads, one writes:", err == nil && write.Valid(time.Second))
	_ = write.Unlock(ctx)
	// Output:
	// two read, nobody writes: true
	// nobody reads, one writes: true
}

// A lock that survives the loss of one of three servers.
func ExampleNewQuorum() {
	var nodes []redis.UniversalClient
	for range 3 {
		rdb, stop := server()
		defer stop()
		nodes = append(nodes, rdb)
	}
	ctx := context.Background()
	quorum, err := lock.NewQuorum(nodes, lock.Options{TTL: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	defer quorum.Close(ctx)
	leaseCtx, lease, err := quorum.Lock(ctx, "leader")
	if err != nil {
		panic(err)
	}
	fmt.Println("leads:", leaseCtx.Err() == nil, lease.Valid(time.Second), time.Until(lease.Deadline()) > 2*time.Second)
	_, _, err = quorum.TryLock(ctx, "leader")
	fmt.Println("nobody else does:", errors.Is(err, lock.ErrNotAcquired))
	if err := lease.Unlock(ctx); err != nil {
		panic(err)
	}
	// Output:
	// leads: true true true
	// nobody else does: true
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

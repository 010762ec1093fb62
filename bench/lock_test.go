//go:build unix

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"github.com/spillway-go/spillway/lock"
)

// locking is a lock as one process has it: it waits for the lock called name and
// returns what gives it back.
type locking func(ctx context.Context, name string) (unlock func() error, err error)

// A locker is a row: how a process makes its locking, and the commands that its
// client sends.
type locker struct {
	name     string
	process  func(b *testing.B, rdb *redis.Client) locking
	commands []string
}

func spillwayLock(opts lock.Options) func(*testing.B, *redis.Client) locking {
	return func(b *testing.B, rdb *redis.Client) locking {
		l, err := lock.New(rdb, opts)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := l.Close(context.WithoutCancel(b.Context())); err != nil {
				b.Error(err)
			}
			if s := l.Stats(); s.Rescued > 0 || s.Lost > 0 {
				b.Errorf("%+v: want no rescues and no losses", s)
			}
		})
		return func(ctx context.Context, name string) (func() error, error) {
			_, lease, err := l.Lock(ctx, name)
			if err != nil {
				return nil, err
			}
			return func() error { return lease.Unlock(ctx) }, nil
		}
	}
}

// redislockLock tries every millisecond, the best delay on this network: its
// default is not to wait, and its documentation's example waits 100 ms.
func redislockLock(_ *testing.B, rdb *redis.Client) locking {
	c := redislock.New(rdb)
	return func(ctx context.Context, name string) (func() error, error) {
		l, err := c.Obtain(ctx, name, 10*time.Second, &redislock.Options{RetryStrategy: redislock.LinearBackoff(time.Millisecond)})
		if err != nil {
			return nil, err
		}
		return func() error { return l.Release(ctx) }, nil
	}
}

func redsyncLock(_ *testing.B, rdb *redis.Client) locking {
	rs := redsync.New(redsyncredis.NewPool(rdb))
	return func(ctx context.Context, name string) (func() error, error) {
		mu := rs.NewMutex(name, redsync.WithTries(10_000))
		if err := mu.LockContext(ctx); err != nil {
			return nil, err
		}
		return func() error { _, err := mu.UnlockContext(ctx); return err }, nil
	}
}

func rueidisLock(b *testing.B, rdb *redis.Client) locking {
	l, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption:   rueidis.ClientOption{InitAddress: []string{rdb.Options().Addr}},
		KeyMajority:    1, // one server
		NoLoopTracking: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	return func(ctx context.Context, name string) (func() error, error) {
		_, cancel, err := l.WithContext(ctx, name)
		if err != nil {
			return nil, err
		}
		return func() error { cancel(); return nil }, nil
	}
}

var (
	ours = []string{"evalsha", "eval", "subscribe", "unsubscribe", "ping"}

	spillwayRow = locker{"spillway", spillwayLock(lock.Options{}), ours}
	fairRow     = locker{"spillway-fair", spillwayLock(lock.Options{Fair: true}), ours}
	lingerRow   = locker{"spillway-linger", spillwayLock(lock.Options{Linger: 10 * time.Millisecond}), ours}
	peerRows    = []locker{
		{"redislock", redislockLock, []string{"evalsha", "eval"}},
		{"redsync", redsyncLock, []string{"evalsha", "eval", "set", "setnx"}},
		{"rueidislock", rueidisLock, []string{"evalsha", "eval", "set", "get", "mget", "client|caching", "multi", "exec", "pttl"}},
	}
)

// hangs is how long a row may take before it counts as hanging.
const hangs = 30 * time.Second

// hung skips a row whose peer hangs, and says so.
func hung(b *testing.B, ctx context.Context, err error) {
	b.Helper()
	if ctx.Err() != nil {
		b.Skipf("hangs: no end after %v: %v", hangs, err)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLockUncontended takes and gives back a lock that nobody else wants.
func BenchmarkLockUncontended(b *testing.B) {
	for _, row := range append([]locker{spillwayRow, lingerRow}, peerRows...) {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			take := row.process(b, rdb)
			ctx, cancel := context.WithTimeout(b.Context(), hangs)
			defer cancel()
			run(b, rdb, load{goroutines: 1, commands: row.commands}, func(int) error { return once(ctx, take) })
		})
	}
}

func once(ctx context.Context, take locking) error {
	unlock, err := take(ctx, "lock")
	if err != nil {
		return err
	}
	return unlock()
}

// BenchmarkLockContended has 32 goroutines of one process take one lock and give it
// back at once. max/min is how unevenly they got it in half a second of their own.
func BenchmarkLockContended(b *testing.B) {
	for _, row := range append([]locker{spillwayRow, fairRow}, peerRows...) {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			take := row.process(b, rdb)
			ctx, cancel := context.WithTimeout(b.Context(), hangs)
			defer cancel()
			run(b, rdb, load{goroutines: 32, commands: row.commands}, func(int) error {
				if err := once(ctx, take); ctx.Err() == nil {
					return err
				}
				return nil // the row is skipped below
			})
			hung(b, ctx, nil)
			b.ReportMetric(unevenness(b, ctx, 500*time.Millisecond, func(int) locking { return take }, 0), "max/min")
		})
	}
}

// unevenness lets 32 goroutines compete for that long, and returns the most that
// one of them got, divided by the least.
func unevenness(b *testing.B, ctx context.Context, d time.Duration, process func(i int) locking, hold time.Duration) float64 {
	b.Helper()
	counts := make([]int, 32)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range counts {
		take := process(i)
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				unlock, err := take(ctx, "lock")
				if err != nil {
					return
				}
				time.Sleep(hold)
				counts[i]++
				_ = unlock()
			}
		})
	}
	wg.Wait()
	return float64(slices.Max(counts)) / float64(max(1, slices.Min(counts)))
}

// BenchmarkLockProcesses has four processes' worth of clients with eight goroutines
// each take one lock for 10 ms. requests/op is what all clients sent.
func BenchmarkLockProcesses(b *testing.B) {
	for _, row := range append([]locker{spillwayRow, fairRow}, peerRows...) {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			var takes []locking
			for range 4 {
				c := redis.NewClient(rdb.Options())
				b.Cleanup(func() { _ = c.Close() })
				takes = append(takes, row.process(b, c))
			}
			ctx, cancel := context.WithTimeout(b.Context(), hangs)
			defer cancel()
			before, err := ask(b.Context(), rdb)
			if err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			var failed atomic.Pointer[error]
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range 32 {
				take := takes[i%4]
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) && failed.Load() == nil {
						unlock, err := take(ctx, "lock")
						if err == nil {
							time.Sleep(10 * time.Millisecond)
							err = unlock()
						}
						if err != nil {
							failed.CompareAndSwap(nil, &err)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			if e := failed.Load(); e != nil {
				hung(b, ctx, *e)
			}
			after, err := ask(b.Context(), rdb)
			if err != nil {
				b.Fatal(err)
			}
			requests := 0.0
			for _, c := range row.commands {
				requests += after.calls[c] - before.calls[c]
			}
			b.ReportMetric(requests/float64(b.N), "requests/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			if b.N > 1 {
				b.ReportMetric(unevenness(b, ctx, 4*time.Second, func(i int) locking { return takes[i%4] }, 10*time.Millisecond), "max/min")
			}
		})
	}
}

// BenchmarkLockHandoff has a process wait for a lock that another gives back:
// p50-us is the time from the beginning of the release to the end of the wait.
func BenchmarkLockHandoff(b *testing.B) {
	for _, row := range append([]locker{spillwayRow, fairRow}, peerRows...) {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			second := redis.NewClient(rdb.Options())
			b.Cleanup(func() { _ = second.Close() })
			one, other := row.process(b, rdb), row.process(b, second)
			ctx, cancel := context.WithTimeout(b.Context(), hangs)
			defer cancel()
			var took []time.Duration
			for b.Loop() {
				d, err := handOff(ctx, one, other)
				if err != nil {
					hung(b, ctx, err)
				}
				took = append(took, d)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
		})
	}
}

func handOff(ctx context.Context, one, other locking) (time.Duration, error) {
	unlock, err := one(ctx, "lock")
	if err != nil {
		return 0, err
	}
	type end struct {
		at  time.Time
		err error
	}
	got := make(chan end, 1)
	go func() {
		unlock, err := other(ctx, "lock")
		at := time.Now()
		if err == nil {
			err = unlock()
		}
		got <- end{at, err}
	}()
	time.Sleep(5 * time.Millisecond) // the other one waits by now
	start := time.Now()
	if err := unlock(); err != nil {
		return 0, err
	}
	e := <-got
	if e.err != nil {
		return 0, errors.Join(fmt.Errorf("hand-off"), e.err)
	}
	return e.at.Sub(start), nil
}

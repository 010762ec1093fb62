package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Callers of four caches retry a failing key for a second, as fast as they can.
func TestFailingLoaderStorm(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d, prefix := newDB(), redistest.Prefix(t)
		boom := errors.New("boom")
		d.fail(boom)
		var wg sync.WaitGroup
		var calls atomic.Int64
		begun := time.Now()
		for range 4 {
			c := open(t, env.Client(), d, Options{Prefix: prefix})
			for range 10 {
				wg.Go(func() {
					for time.Since(begun) < time.Second {
						_, err := c.Get(t.Context(), "1")
						calls.Add(1)
						if !errors.Is(err, ErrLoad) {
							t.Error(err)
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
		}
		wg.Wait()
		require.Greater(t, calls.Load(), int64(30_000))
		// 100, 200, 400 and 800 ms, less a fifth each: the fifth would begin after 1.2 s.
		require.LessOrEqual(t, d.loads.Load(), int64(4))
		require.GreaterOrEqual(t, d.loads.Load(), int64(3))
	})
}

func TestFailuresWithoutRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDB()
		c := open(t, nil, d, Options{})
		d.fail(errors.New("boom"))
		for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(time.Millisecond) {
			_, err := c.Get(t.Context(), "1")
			require.ErrorIs(t, err, ErrLoad)
		}
		n := d.loads.Load()
		require.GreaterOrEqual(t, n, int64(6+10), "doubling up to 5 s")
		require.LessOrEqual(t, n, int64(6+14))
		d.fail(nil)
		d.set("1", "ann")
		time.Sleep(maxCool)
		v, err := c.Get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "ann", v)
	})
}

func TestLoadersThatDoNotReturn(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		many := false
		for name, end := range map[string]func(){"panics": func() { panic("oh no") }, "Goexit": runtime.Goexit} {
			src := Source[string, string]{
				Load: func(context.Context, string) (string, error) { end(); return "", nil },
			}
			if many {
				src.LoadMany = func(context.Context, []string) (map[string]string, error) { end(); return nil, nil }
			}
			c := openSource(t, rdb, src, Options{})
			_, err := c.Get(t.Context(), name)
			require.ErrorIs(t, err, ErrLoad)
			_, err = c.GetMany(t.Context(), []string{name + "2", name + "3"})
			var batch *BatchError[string]
			require.ErrorAs(t, err, &batch)
			require.Len(t, batch.Errors, 2)
			require.ErrorIs(t, err, ErrLoad)
			many = true
		}
	})
}

// All who wait get the error of the one load, and who comes next gets it at once.
func TestWaitersShareAFailure(t *testing.T) {
	for _, local := range []bool{true, false} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			var rdb redis.UniversalClient
			if !local {
				rdb = env.Client()
			}
			d := newDB()
			d.block = make(chan struct{})
			boom := errors.New("boom")
			d.fail(boom)
			c := open(t, rdb, d, Options{})
			var failed atomic.Int64
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if _, err := c.Get(t.Context(), "1"); errors.Is(err, boom) && errors.Is(err, ErrLoad) {
						failed.Add(1)
					}
				})
			}
			synctest.Wait()
			close(d.block)
			wg.Wait()
			require.EqualValues(t, 100, failed.Load())
			begun := time.Now()
			_, err := c.Get(t.Context(), "1")
			require.ErrorIs(t, err, boom)
			require.Zero(t, time.Since(begun))
			require.EqualValues(t, 1, d.loads.Load())
		})
	}
}

// A cancellation says nothing about the source: it is told to those who waited,
// and the next one loads at once, in whatever process.
func TestCancellationsAreNotRemembered(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d, prefix := newDB("1", "ann"), redistest.Prefix(t)
		a, b := open(t, env.Client(), d, Options{Prefix: prefix}), open(t, env.Client(), d, Options{Prefix: prefix})
		for range 5 {
			for _, c := range []*Cache[string, string]{a, b} {
				d.fail(fmt.Errorf("the driver: %w", context.Canceled))
				_, err := c.Get(t.Context(), "1")
				require.ErrorIs(t, err, ErrLoad)
				require.ErrorIs(t, err, context.Canceled)
			}
		}
		require.EqualValues(t, 10, d.loads.Load())
		d.fail(nil)
		require.Equal(t, "ann", get(t, b, "1"))
	})
}

// In a cool-down and under too many waiters callers get what is stale, with and
// without a local level, until it is deleted.
func TestStaleInsteadOfErrors(t *testing.T) {
	for _, size := range []int{0, -1} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			d, prefix := newDB("1", "old"), redistest.Prefix(t)
			opts := Options{Prefix: prefix, Local: size, TTL: time.Second, StaleFor: time.Hour, Jitter: -1, EarlyRefresh: -1, MaxWaiters: 1}
			writer, c := open(t, env.Client(), d, opts), open(t, env.Client(), d, opts)
			begin()
			require.Equal(t, "old", get(t, writer, "1"))
			time.Sleep(2 * time.Second)
			d.fail(errors.New("boom"))
			for range 50 {
				require.Equal(t, "old", get(t, c, "1"))
				many, err := c.GetMany(t.Context(), []string{"1"})
				require.NoError(t, err)
				require.Equal(t, map[string]string{"1": "old"}, many)
			}
			require.EqualValues(t, 2, d.loads.Load(), "one, and one that failed")
			require.EqualValues(t, 100, c.Stats().Stale)

			if size == 0 {
				// Its own level knows what is stale without asking anybody.
				require.Equal(t, "old", get(t, writer, "1"))
				d.fail(nil)
				d.block = make(chan struct{})
				time.Sleep(maxCool)
				waits := make(chan error)
				go func() { _, err := writer.Get(t.Context(), "1"); waits <- err }()
				synctest.Wait()
				require.Equal(t, "old", get(t, writer, "1"), "one waiter is enough")
				close(d.block)
				require.NoError(t, <-waits)
				time.Sleep(2 * time.Second)
				d.fail(errors.New("boom"))
				require.Equal(t, "old", get(t, c, "1"))
			}
			require.NoError(t, writer.Delete(t.Context(), "1"))
			synctest.Wait()
			_, err := c.Get(t.Context(), "1")
			require.ErrorIs(t, err, ErrLoad, "what was deleted is not stale, but gone")
		})
	}
}

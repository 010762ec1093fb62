package cache

import (
	"context"
	"errors"
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

// Ten thousand callers of eight caches find a key nowhere: one load.
func TestColdStampede(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, prefix := t.Context(), redistest.Prefix(t)
		d := newDB("1", "ann")
		d.block = make(chan struct{})
		callers := soak(1000, 10_000)
		var asking atomic.Int64
		var wg sync.WaitGroup
		before := runtime.NumGoroutine()
		var caches []*Cache[string, string]
		for range 8 {
			caches = append(caches, open(t, rdb, d, Options{Prefix: prefix}))
		}
		connected(t, caches...)
		idle := runtime.NumGoroutine() - before
		for _, c := range caches {
			for range callers {
				wg.Go(func() {
					asking.Add(1)
					v, err := c.Get(ctx, "1")
					if err != nil || v != "ann" {
						t.Error(v, err)
					}
				})
			}
		}
		require.Eventually(t, func() bool { return asking.Load() == int64(8*callers) && d.loads.Load() == 1 }, 20*time.Second, time.Millisecond)
		// Beside the callers, one goroutine a cache, and what shares round trips.
		require.LessOrEqual(t, runtime.NumGoroutine()-before-idle, 8*callers+8*4+20)
		close(d.block)
		wg.Wait()
		require.EqualValues(t, 1, d.loads.Load())
	})
}

// A caller looked into the local level, found nothing, and was held up until the
// flight it should have joined was over: it looks again.
func TestSecondLook(t *testing.T) {
	d := newDB("1", "ann")
	c := open(t, nil, d, Options{})
	require.Equal(t, "ann", get(t, c, "1"))
	it, err := c.find(t.Context(), "1", "1", c.local.hash("1"))
	require.NoError(t, err)
	require.Equal(t, "ann", it.value)
	require.EqualValues(t, 1, d.loads.Load())
}

func TestLeaderLeaves(t *testing.T) {
	for _, local := range []bool{true, false} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			var rdb redis.UniversalClient
			if !local {
				rdb = env.Client()
			}
			d := newDB("1", "ann")
			d.block = make(chan struct{})
			c := open(t, rdb, d, Options{})
			leader, leave := context.WithCancel(t.Context())
			left := make(chan error)
			go func() {
				_, err := c.Get(leader, "1")
				left <- err
			}()
			synctest.Wait()
			var wg sync.WaitGroup
			for range 999 {
				wg.Go(func() {
					v, err := c.Get(t.Context(), "1")
					if err != nil || v != "ann" {
						t.Error(v, err)
					}
				})
			}
			synctest.Wait()
			leave()
			require.ErrorIs(t, <-left, context.Canceled)
			close(d.block)
			wg.Wait()
			require.EqualValues(t, 1, d.loads.Load())
		})
	}
}

// Nobody waits any more: the load is cancelled if that is asked for, and its
// cancellation is nobody's error.
func TestAbandonedLoads(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			d := newDB("1", "ann")
			d.block = make(chan struct{})
			c := open(t, env.Client(), d, Options{CancelAbandoned: cancelled})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Get(ctx, "1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			synctest.Wait()
			close(d.block)
			v, err := c.Get(t.Context(), "1")
			require.NoError(t, err, "there is no cool-down")
			require.Equal(t, "ann", v)
			want := int64(1)
			if cancelled {
				want = 2
			}
			require.Equal(t, want, d.loads.Load())
		})
	}
}

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

func TestMaxWaiters(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "ann")
		d.block = make(chan struct{})
		c := open(t, env.Client(), d, Options{MaxWaiters: 3})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _, _ = c.Get(t.Context(), "1") })
		}
		synctest.Wait()
		_, err := c.Get(t.Context(), "1")
		require.ErrorIs(t, err, ErrOverloaded)
		close(d.block)
		wg.Wait()
		_, err = c.Get(t.Context(), "1")
		require.NoError(t, err)
	})
}

// A loader that outlives its lease, whose process another one takes for dead: what
// it brings is answered and not kept.
func TestLeaseOutlived(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, LoadTimeout: time.Second}
		deaf := openSource(t, env.Client(), Source[string, string]{Load: func(context.Context, string) (string, error) {
			time.Sleep(5 * time.Second) // it does not obey its ctx
			return "old", nil
		}}, opts)
		d := newDB("1", "new")
		other := open(t, env.Client(), d, opts)
		first := make(chan string)
		go func() {
			v, err := deaf.Get(t.Context(), "1")
			if err != nil {
				t.Error(err)
			}
			first <- v
		}()
		synctest.Wait()
		begun := time.Now()
		v, err := other.Get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
		require.InDelta(t, 2, time.Since(begun).Seconds(), 0.1, "when the lease ended")
		require.Equal(t, "old", <-first)
		require.EqualValues(t, 1, deaf.Stats().Refused)
		v, err = deaf.Get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// Close leaves no goroutine, which the bubble would notice, and waits for loads.
func TestCloseWaitsForLoads(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "ann")
		d.block = make(chan struct{})
		c := open(t, env.Client(), d, Options{})
		got := make(chan error)
		go func() {
			_, err := c.Get(t.Context(), "1")
			got <- err
		}()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- c.Close(t.Context()) }()
		synctest.Wait()
		_, err := c.Get(t.Context(), "2")
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, c.Set(t.Context(), "2", "x"), ErrClosed)
		require.ErrorIs(t, c.Delete(t.Context(), "2"), ErrClosed)
		close(d.block)
		require.NoError(t, <-got)
		require.NoError(t, <-closed)

		d.block = make(chan struct{}) // never closed: the loader ends by its ctx
		c = open(t, env.Client(), d, Options{LoadTimeout: time.Hour, Prefix: "another"})
		go func() {
			_, err := c.Get(t.Context(), "1")
			got <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.Close(ctx), context.DeadlineExceeded)
		require.Error(t, <-got)
	})
}

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

// A load runs on a ctx of its own: with the values of who asked first, without
// anybody's deadline, until its timeout.
func TestLoadsHaveTheirOwnContext(t *testing.T) {
	type key struct{}
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		c := openSource(t, env.Client(), Source[string, string]{Load: func(ctx context.Context, _ string) (string, error) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) != 3*time.Second {
				t.Error("deadline", deadline, ok)
			}
			if v := ctx.Value(key{}); v != "trace" {
				t.Error("value", v)
			}
			<-ctx.Done()
			return "", ctx.Err()
		}}, Options{LoadTimeout: 3 * time.Second})
		first, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "trace"), time.Second)
		defer cancel()
		begun := time.Now()
		go func() { _, _ = c.Get(first, "1") }()
		synctest.Wait()
		second, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		go func() {
			_, err := c.Get(second, "1")
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrLoad) || time.Since(begun) != 2*time.Second {
				t.Error("a waiter obeys its own ctx:", time.Since(begun), err)
			}
		}()
		_, err := c.Get(t.Context(), "1")
		require.ErrorIs(t, err, ErrLoad)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(begun))
	})
}

// While keys are loaded there is one goroutine a key beside those who wait.
func TestGoroutines(t *testing.T) {
	const callers, keys = 200, 7
	for _, local := range []bool{true, false} {
		var rdb redis.UniversalClient
		if !local {
			rdb = redistest.Shared(t).Client()
		}
		d := newDB()
		for k := range keys {
			d.set(fmt.Sprint(k), "x")
		}
		d.block = make(chan struct{})
		c := open(t, rdb, d, Options{})
		connected(t, c)
		before := runtime.NumGoroutine()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), fmt.Sprint(i%keys)); err != nil {
					t.Error(err)
				}
			})
		}
		// Eventually has one too; those that carry round trips are there for a moment.
		most := before + callers + keys + 1
		require.Eventually(t, func() bool { return d.loads.Load() == keys && runtime.NumGoroutine() <= most }, 20*time.Second, time.Millisecond)
		require.GreaterOrEqual(t, runtime.NumGoroutine(), callers+keys)
		close(d.block)
		wg.Wait()
	}
}

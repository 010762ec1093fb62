package cache

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
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
		require.Eventually(t, func() bool { return asking.Load() == int64(8*callers) && d.loads.Load() == 1 }, time.Minute, time.Millisecond)
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

// Two processes find a key nowhere. One of them is slow, and asks for the lease
// when the other has loaded, stored, and given it back: it must not load again.
func TestLeaseIsForWhatWasSeen(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB("1", "ann"), redistest.Prefix(t)
		a, b := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		slow := &flight[string, string]{key: "1", name: "1", hash: b.local.hash("1"), done: make(chan struct{})}
		e, err := b.remote.read(ctx, "1")
		require.NoError(t, err)
		require.Nil(t, b.take(slow, e, b.local.mark(slow.hash)))
		require.Equal(t, "ann", get(t, a, "1"))
		it, err := b.fetch(ctx, slow, nil)
		require.NoError(t, err)
		require.Equal(t, "ann", it.value)
		require.EqualValues(t, 1, d.loads.Load())
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

// Whoever leaves takes no lease with him that nobody knows of: the next one need
// not wait for its end.
func TestAbandonedLeases(t *testing.T) {
	opts := Options{CancelAbandoned: true, LoadTimeout: time.Minute}
	soon := func(t *testing.T, c *Cache[string, string]) {
		t.Helper()
		begun := time.Now()
		require.Equal(t, "ann", get(t, c, "1"))
		require.Less(t, time.Since(begun), time.Second)
	}
	t.Run("as it is asked for", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			f := &redistest.Faults{}
			d := newDB("1", "ann")
			c := open(t, env.Client(f.Options), d, opts)
			_, _ = c.Get(t.Context(), "2") // the server learns the scripts
			sum := sha1.Sum([]byte(leaseLua))
			f.Add(redistest.Rule{Do: redistest.DelayReply, Match: hex.EncodeToString(sum[:]), Delay: 2 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Get(ctx, "1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(2 * time.Second)
			require.Equal(t, 1, f.Fired(redistest.DelayReply))
			require.EqualValues(t, 1, d.loads.Load(), "that of the other key")
			soon(t, c)
		})
	})
	t.Run("under a loader that does not obey", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			var loads atomic.Int64
			c := openSource(t, env.Client(), Source[string, string]{Load: func(context.Context, string) (string, error) {
				loads.Add(1)
				time.Sleep(2 * time.Second)
				return "ann", nil
			}}, opts)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Get(ctx, "1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(2 * time.Second)
			soon(t, c)
			require.EqualValues(t, 1, loads.Load(), "what it brought was kept")
		})
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
		require.Eventually(t, func() bool { return d.loads.Load() == keys && runtime.NumGoroutine() <= most }, time.Minute, time.Millisecond)
		require.GreaterOrEqual(t, runtime.NumGoroutine(), callers+keys)
		close(d.block)
		wg.Wait()
	}
}

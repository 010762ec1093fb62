package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestGetMany(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		var batches, loads atomic.Int64
		src := Source[int, string]{
			LoadMany: func(_ context.Context, keys []int) (map[int]string, error) {
				batches.Add(1)
				loads.Add(int64(len(keys)))
				found := map[int]string{}
				for _, k := range keys {
					if k%10 != 0 {
						found[k] = fmt.Sprint("v", k)
					}
				}
				return found, nil
			},
		}
		prefix := redistest.Prefix(t)
		a, b := openSource(t, rdb, src, Options{Prefix: prefix}), openSource(t, rdb, src, Options{Prefix: prefix})
		connected(t, a, b)
		var keys []int
		for k := range 100 {
			keys = append(keys, k, k)
		}
		for _, c := range []*Cache[int, string]{a, b, a} {
			got, err := c.GetMany(ctx, keys)
			require.NoError(t, err)
			require.Len(t, got, 90)
			require.Equal(t, "v11", got[11])
		}
		require.EqualValues(t, 1, batches.Load(), "one LoadMany")
		require.EqualValues(t, 100, loads.Load())
		v, err := b.Get(ctx, 1000001)
		require.NoError(t, err)
		require.Equal(t, "v1000001", v, "Get makes do with LoadMany")
	})
}

func TestGetManyFails(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		boom := errors.New("boom")
		c := openSource(t, rdb, Source[string, string]{Load: func(_ context.Context, k string) (string, error) {
			if k == "bad" {
				return "", boom
			}
			return k, nil
		}}, Options{})
		got, err := c.GetMany(ctx, []string{"a", "bad", "b"})
		var batch *BatchError[string]
		require.ErrorAs(t, err, &batch)
		require.ErrorIs(t, err, boom)
		require.Len(t, batch.Errors, 1)
		require.ErrorIs(t, batch.Errors["bad"], ErrLoad)
		require.Equal(t, map[string]string{"a": "a", "b": "b"}, got)
		require.ErrorContains(t, err, "1 keys failed")
	})
}

// Overlapping batches and single Gets of two processes: each key is loaded once.
func TestGetManyShares(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		var mu sync.Mutex
		loaded := map[int]int{}
		src := Source[int, int]{LoadMany: func(_ context.Context, keys []int) (map[int]int, error) {
			mu.Lock()
			defer mu.Unlock()
			found := map[int]int{}
			for _, k := range keys {
				loaded[k]++
				found[k] = -k
			}
			return found, nil
		}}
		prefix := redistest.Prefix(t)
		var wg sync.WaitGroup
		for i := range 2 {
			c := openSource(t, rdb, src, Options{Prefix: prefix, LoadTimeout: time.Minute}) // a slow machine outlives no lease
			for j := range 20 {
				wg.Go(func() {
					var keys []int
					for k := range 50 {
						keys = append(keys, 10*j+k)
					}
					got, err := c.GetMany(t.Context(), keys)
					if err != nil || len(got) != 50 {
						t.Error(len(got), err)
					}
					if v, err := c.Get(t.Context(), 13*i*j); err != nil || v != -13*i*j {
						t.Error(v, err)
					}
				})
			}
		}
		wg.Wait()
		for k, n := range loaded {
			require.Equal(t, 1, n, "key %d", k)
		}
	})
}

// Keys that are kept warm are never waited for, and never old for long.
func TestWarmKeysNeverMiss(t *testing.T) {
	for _, local := range []bool{false, true} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			ctx, stop := context.WithCancel(t.Context())
			var rdb redis.UniversalClient
			if !local {
				rdb = env.Client()
			}
			var version atomic.Int64
			c := openSource(t, rdb, Source[string, int64]{Load: func(ctx context.Context, _ string) (int64, error) {
				v := version.Add(1)
				sleep(ctx, 300*time.Millisecond)
				return v, nil
			}}, Options{TTL: 10 * time.Second, LocalTTL: 10 * time.Second, EarlyRefresh: -1})
			require.ErrorIs(t, c.RunWarm(ctx, 6*time.Second, nil), ErrInvalid)
			time.Sleep(heartbeat)
			ended := make(chan error)
			go func() {
				ended <- c.RunWarm(ctx, 5*time.Second, func(context.Context) ([]string, error) { return []string{"star"}, nil })
			}()
			time.Sleep(time.Second)
			for range 3000 {
				begun := time.Now()
				_, err := c.Get(ctx, "star")
				require.NoError(t, err)
				require.Zero(t, time.Since(begun))
				time.Sleep(100 * time.Millisecond)
			}
			require.InDelta(t, 60, version.Load(), 3)
			stop()
			require.NoError(t, <-ended)
		})
	}
}

// What is warmed never replaces what was written while it was loaded.
func TestWarmYieldsToWriters(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		d := newDB("1", "old")
		d.block = make(chan struct{})
		c := open(t, env.Client(), d, Options{})
		time.Sleep(heartbeat)
		ended := make(chan error)
		go func() {
			ended <- c.RunWarm(ctx, time.Minute, func(context.Context) ([]string, error) { return []string{"1"}, nil })
		}()
		synctest.Wait()
		require.EqualValues(t, 1, d.loads.Load())
		require.NoError(t, c.Set(ctx, "1", "new"))
		close(d.block)
		synctest.Wait()
		require.Equal(t, "new", get(t, c, "1"))
		require.NoError(t, c.Delete(ctx, "1"))
		d.set("1", "new")
		require.Equal(t, "new", get(t, c, "1"))
		stop()
		require.NoError(t, <-ended)
	})
}

// When all keys are warm the source is asked nothing.
func TestWarmAsksForSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var asked []int
		c := openSource(t, nil, Source[string, string]{LoadMany: func(_ context.Context, keys []string) (map[string]string, error) {
			asked = append(asked, len(keys))
			return map[string]string{"1": "x"}, nil
		}}, Options{})
		ended := make(chan error)
		go func() {
			ended <- c.RunWarm(ctx, time.Minute, func(context.Context) ([]string, error) { return []string{"1"}, nil })
		}()
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		require.Equal(t, []int{1}, asked)
		stop()
		require.NoError(t, <-ended)
	})
}

func TestDeleteTwice(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		d := newDB("1", "old")
		src := d.source()
		c := openSource(t, env.Client(), src, Options{Pending: 2})
		time.Sleep(heartbeat)
		require.ErrorIs(t, c.DeleteTwice(ctx, 0, "1"), ErrInvalid)
		require.NoError(t, c.DeleteTwice(ctx, time.Second, "1"))
		require.Equal(t, "old", get(t, c, "1"), "the replica lags")
		d.set("1", "new")
		time.Sleep(900 * time.Millisecond)
		require.Equal(t, "old", get(t, c, "1"))
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, "new", get(t, c, "1"))

		require.NoError(t, c.DeleteTwice(ctx, time.Hour, "1", "2"))
		require.ErrorIs(t, c.DeleteTwice(ctx, time.Hour, "3"), ErrOverloaded)

		var later []string
		src.Later = func(_ context.Context, after time.Duration, keys []string) error {
			later = append(later, fmt.Sprint(after, keys))
			return nil
		}
		q := openSource(t, env.Client(), src, Options{})
		require.NoError(t, q.DeleteTwice(ctx, time.Second, "1", "2"))
		require.Equal(t, []string{"1s [1 2]"}, later)
	})
}

// Callers of single keys who come while a round trip is under way share the next.
func TestGetsShareRoundTrips(t *testing.T) {
	srv := redistest.Server(t)
	f := &redistest.Faults{}
	d := newDB()
	c := open(t, srv.Client(f.Options), d, Options{Local: -1})
	trips := func() int {
		n, err := srv.Executions(t.Context(), "evalsha")
		require.NoError(t, err)
		return n
	}
	for i := range 51 {
		require.NoError(t, c.Set(t.Context(), fmt.Sprint(i), "x"))
	}
	require.Equal(t, "x", get(t, c, "0")) // the server learns the script
	begun := trips()
	// Less than what is slow: then another flight takes off beside it.
	f.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: 40 * time.Millisecond})
	var wg sync.WaitGroup
	for i := range 51 {
		wg.Go(func() {
			if v, err := c.Get(t.Context(), fmt.Sprint(i)); err != nil || v != "x" {
				t.Error(v, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, f.Fired(redistest.DelayReply))
	require.LessOrEqual(t, trips()-begun, 5, "two, if all came in time")
	require.EqualValues(t, 52, c.Stats().RedisHits)
	require.Zero(t, d.loads.Load())
}

// Second deletes that have not come up yet are done at once by Close.
func TestCloseDeletesTwice(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d, prefix := newDB("1", "old"), redistest.Prefix(t)
		c, other := open(t, env.Client(), d, Options{Prefix: prefix}), open(t, env.Client(), d, Options{Prefix: prefix})
		begin()
		require.NoError(t, c.DeleteTwice(t.Context(), time.Hour, "1"))
		require.Equal(t, "old", get(t, other, "1"), "the replica lags")
		d.set("1", "new")
		begun := time.Now()
		require.NoError(t, c.Close(t.Context()))
		require.Less(t, time.Since(begun), time.Second)
		synctest.Wait()
		require.Equal(t, "new", get(t, other, "1"))
	})
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// get returns the value, or why there is none.
func get(t *testing.T, c *Cache[string, string], key string) string {
	t.Helper()
	v, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	return v
}

// begin gives a cache time to connect, so that it keeps values for longer than a second.
func begin() { time.Sleep(heartbeat) }

func TestTTL(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "v0")
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, TTL: time.Minute, LocalTTL: 10 * time.Second, Jitter: -1, EarlyRefresh: -1}
		a, b := open(t, env.Client(), d, opts), open(t, env.Client(), d, opts)
		begin()
		require.Equal(t, "v0", get(t, a, "1"))
		time.Sleep(55 * time.Second)
		require.Equal(t, "v0", get(t, b, "1"), "from Redis")
		e, ok, err := b.Peek(t.Context(), "1")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, Local, e.Level)
		require.InDelta(t, 5, e.Left.Seconds(), 0.01, "what is left in Redis")
		d.set("1", "v1")
		time.Sleep(4900 * time.Millisecond)
		require.Equal(t, "v0", get(t, b, "1"))
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, "v1", get(t, b, "1"), "no level is fresh beyond the TTL")
		require.EqualValues(t, 2, d.loads.Load())
	})
}

func TestLocalTTL(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "ann")
		c := open(t, env.Client(), d, Options{TTL: time.Minute, LocalTTL: 10 * time.Second, Jitter: -1, EarlyRefresh: -1})
		begin()
		for range 59 {
			get(t, c, "1")
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 1, d.loads.Load())
		require.EqualValues(t, 5, c.Stats().RedisHits, "every ten seconds")
	})
}

func TestNotFoundTTL(t *testing.T) {
	for ttl, want := range map[time.Duration]int64{5 * time.Second: 3, -1: 12} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			d := newDB()
			c := open(t, env.Client(), d, Options{NotFoundTTL: ttl, Jitter: -1})
			begin()
			for range 12 {
				_, err := c.Get(t.Context(), "1")
				require.ErrorIs(t, err, ErrNotFound)
				time.Sleep(time.Second)
			}
			require.Equal(t, want, d.loads.Load())
			require.NoError(t, c.Set(t.Context(), "1", ""))
			require.Empty(t, get(t, c, "1"), "the empty value is a value")
		})
	}
}

// A row that is gone is gone also where "not found" is not remembered.
func TestNotFoundReplaces(t *testing.T) {
	test := func(t *testing.T, rdb redis.UniversalClient) {
		d := newDB("1", "old", "2", "old", "3", "old")
		c := open(t, rdb, d, Options{NotFoundTTL: -1, RefreshAfter: 10 * time.Second, TTL: time.Minute, StaleFor: time.Minute, Jitter: time.Second, EarlyRefresh: -1})
		begin()
		for key := range d.rows {
			get(t, c, key)
		}
		clear(d.rows)
		gone := func(key string) {
			t.Helper()
			_, err := c.Get(t.Context(), key)
			require.ErrorIs(t, err, ErrNotFound)
		}
		_, err := c.Refresh(t.Context(), "1")
		require.ErrorIs(t, err, ErrNotFound)
		gone("1")

		time.Sleep(11 * time.Second)
		require.Equal(t, "old", get(t, c, "2"), "and is loaded in the background")
		synctest.Wait()
		loads := d.loads.Load()
		for range 5 {
			gone("2")
		}
		require.Equal(t, loads+5, d.loads.Load())

		time.Sleep(time.Minute) // the TTL of the third is over
		gone("3")
		time.Sleep(5 * time.Second)
		d.fail(errors.New("boom"))
		_, err = c.Get(t.Context(), "3")
		require.Error(t, err, "the old value is not stale, it is gone")
	}
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) { test(t, env.Client()) })
	synctest.Test(t, func(t *testing.T) { test(t, nil) })
}

func TestRefreshAfter(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "v0")
		c := open(t, env.Client(), d, Options{TTL: time.Minute, LocalTTL: time.Minute, RefreshAfter: 20 * time.Second, Jitter: -1, EarlyRefresh: -1})
		begin()
		get(t, c, "1")
		d.set("1", "v1")
		d.block = make(chan struct{})
		time.Sleep(20 * time.Second)
		for range 10 {
			require.Equal(t, "v0", get(t, c, "1"), "at once")
		}
		synctest.Wait()
		require.EqualValues(t, 2, d.loads.Load(), "one load in the background")
		close(d.block)
		synctest.Wait()
		require.Equal(t, "v1", get(t, c, "1"))
		require.EqualValues(t, 2, d.loads.Load())
	})
}

func TestStaleFor(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		d := newDB("1", "old")
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, TTL: time.Minute, StaleFor: time.Minute, Jitter: -1, EarlyRefresh: -1}
		c, other := open(t, env.Client(), d, opts), open(t, env.Client(), d, opts)
		begin()
		get(t, c, "1")
		d.fail(fmt.Errorf("boom"))
		time.Sleep(61 * time.Second)
		require.Equal(t, "old", get(t, c, "1"), "from the local level")
		require.Equal(t, "old", get(t, other, "1"), "from Redis")
		require.EqualValues(t, 1, other.Stats().Stale)
		e, ok, err := other.Peek(t.Context(), "1")
		require.NoError(t, err)
		require.True(t, ok && e.Stale)
		time.Sleep(time.Minute)
		_, err = c.Get(t.Context(), "1")
		require.ErrorIs(t, err, ErrLoad, "the limit")

		d.fail(nil)
		time.Sleep(maxCool)
		get(t, c, "1")
		require.NoError(t, c.Delete(t.Context(), "1"))
		d.fail(fmt.Errorf("boom"))
		_, err = c.Get(t.Context(), "1")
		require.ErrorIs(t, err, ErrLoad, "what was deleted is not stale, but gone")
	})
}

// XFetch: the longer a load takes, the earlier it begins, and hardly anyone ever
// waits for one.
func TestEarlyRefresh(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		var loads, waited atomic.Int64
		c := openSource(t, env.Client(), Source[string, string]{Load: func(ctx context.Context, _ string) (string, error) {
			loads.Add(1)
			sleep(ctx, 200*time.Millisecond)
			return "x", nil
		}}, Options{TTL: 10 * time.Second, LocalTTL: 10 * time.Second, Jitter: -1})
		begin()
		for range 20_000 {
			begun := time.Now()
			get(t, c, "1")
			if time.Since(begun) > 0 {
				waited.Add(1)
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, waited.Load(), int64(2), "the first, and a rare one")
		require.InDelta(t, 22, loads.Load(), 4, "200 s, with a load some time before each 10 s are over")
	})
}

// Jitter makes entries end earlier, never later, and evenly.
func TestJitterSpreads(t *testing.T) {
	o, err := Options{TTL: time.Hour}.withDefaults()
	require.NoError(t, err)
	var slices [100]int
	const keys = 100_000
	for range keys {
		d := o.shorten(time.Hour)
		require.LessOrEqual(t, d, time.Hour)
		require.Greater(t, d, 54*time.Minute)
		slices[(time.Hour-d)*100/(6*time.Minute)]++
	}
	for _, n := range slices {
		require.LessOrEqual(t, n, keys/100*13/10)
	}
}

// What is stored together expires apart, in all levels, and never late.
func TestEntriesExpireApart(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, prefix := t.Context(), redistest.Prefix(t)
		d := newDB()
		opts := Options{Prefix: prefix, TTL: time.Hour, LocalTTL: time.Hour, NotFoundTTL: time.Hour}
		c := open(t, rdb, d, opts)
		connected(t, c)
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprint(i))
			if i%2 == 0 {
				d.set(keys[i], "x")
			}
		}
		_, err := c.GetMany(ctx, keys)
		require.NoError(t, err)
		require.NoError(t, c.Set(ctx, "0", "y"))
		soonest, latest := time.Hour, time.Duration(0)
		here := map[instant]bool{}
		for _, key := range keys {
			k, _ := c.remote.keys(key)
			ttl, err := rdb.PTTL(ctx, k).Result()
			require.NoError(t, err)
			require.LessOrEqual(t, ttl, time.Hour)
			require.Greater(t, ttl, 53*time.Minute)
			soonest, latest = min(soonest, ttl), max(latest, ttl)
			it := c.local.get(key, c.local.hash(key))
			require.NotNil(t, it)
			require.LessOrEqual(t, it.expires, it.hard)
			require.Less(t, it.hard, c.local.now()+instant(ttl)+instant(time.Minute))
			here[it.expires] = true
		}
		require.Greater(t, latest-soonest, 3*time.Minute, "of six")
		require.Greater(t, len(here), 90)
	})
}

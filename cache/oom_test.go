package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// full returns a server, and what makes it run out of memory and have some again.
func full(t *testing.T) (srv *redistest.Proc, outOfMemory, enough func()) {
	t.Helper()
	srv = redistest.Server(t, "--maxmemory-policy", "noeviction")
	rdb := srv.Client()
	limit := func(bytes string) func() {
		return func() {
			t.Helper()
			require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err())
		}
	}
	return srv, limit("1"), limit("0")
}

// Out of memory, what is there is read, what is missing is loaded by each process
// for itself, deletes are deletes, and writes say why they fail.
func TestOutOfMemory(t *testing.T) {
	srv, outOfMemory, enough := full(t)
	ctx, rdb, prefix := t.Context(), srv.Client(), redistest.Prefix(t)
	d := newDB()
	for _, k := range []string{"kept", "deleted", "written", "a", "b"} {
		d.set(k, "old")
	}
	c, other := open(t, srv.Client(), d, Options{Prefix: prefix}), open(t, srv.Client(), d, Options{Prefix: prefix})
	connected(t, c, other)
	entry := func(key string) bool {
		k, _ := c.remote.keys(key)
		return rdb.Exists(ctx, k).Val() == 1
	}
	for _, k := range []string{"kept", "deleted", "written", "a"} {
		require.Equal(t, "old", get(t, c, k))
	}
	require.Equal(t, "old", get(t, other, "deleted"))
	outOfMemory()

	loads := d.loads.Load()
	require.Equal(t, "old", get(t, other, "kept"), "what is in Redis is read")
	require.Equal(t, loads, d.loads.Load())
	got, err := other.GetMany(ctx, []string{"a", "b", "nowhere"})
	require.NoError(t, err, "and what is not is loaded")
	require.Equal(t, map[string]string{"a": "old", "b": "old"}, got)
	require.Equal(t, loads+2, d.loads.Load())
	require.Eventually(t, func() bool { // for a second it is known here
		before := d.loads.Load()
		v, err := other.Get(ctx, "b")
		return err == nil && v == "old" && d.loads.Load() == before
	}, 10*time.Second, time.Millisecond)
	require.False(t, entry("b"))

	d.set("deleted", "new")
	require.NoError(t, c.Delete(ctx, "deleted", "nowhere"))
	require.False(t, entry("deleted"))
	require.Equal(t, "new", get(t, c, "deleted"))
	require.Eventually(t, func() bool { return other.Stats().Heard >= 2 }, 10*time.Second, time.Millisecond)
	require.Equal(t, "new", get(t, other, "deleted"), "other processes hear it")

	d.set("written", "new")
	err = c.Set(ctx, "written", "new")
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, redis.IsOOMError(err), "%v", err)
	require.Eventually(t, func() bool { return c.Stats().DeletesWaiting == 0 }, 10*time.Second, time.Millisecond)
	require.False(t, entry("written"), "the old value, which was wrong")
	require.Equal(t, "new", get(t, other, "written"))
	added, err := c.Add(ctx, "added", "x")
	require.ErrorIs(t, err, ErrUnavailable)
	require.False(t, added)
	require.ErrorIs(t, c.WriteBehind(ctx, "written", "newer"), ErrUnavailable)
	require.Zero(t, c.Stats().WritesWaiting)

	boom := errors.New("boom")
	d.fail(boom)
	loads = d.loads.Load()
	for begun := time.Now(); time.Since(begun) < 200*time.Millisecond; {
		_, err = c.Get(ctx, "c")
		require.ErrorIs(t, err, boom)
	}
	require.LessOrEqual(t, d.loads.Load()-loads, int64(3), "a process cools down by itself")
	d.fail(nil)

	enough()
	require.NoError(t, c.Set(ctx, "written", "newest"))
	require.Equal(t, "newest", get(t, c, "written"))
	// What was loaded meanwhile is known for a second, and then stored.
	require.Eventually(t, func() bool {
		v, err := other.Get(ctx, "b")
		return err == nil && v == "old" && entry("b")
	}, 10*time.Second, 10*time.Millisecond)
}

// Memory runs out while a key is loaded: its lease is given back all the same.
func TestOutOfMemoryUnderALoad(t *testing.T) {
	srv, outOfMemory, enough := full(t)
	rdb := srv.Client()
	for _, cause := range []error{nil, errors.New("boom"), ErrNotFound, context.Canceled} {
		t.Run(fmt.Sprint(cause), func(t *testing.T) {
			defer enough()
			d := newDB("1", "ann")
			d.fail(cause)
			d.block = make(chan struct{})
			c := open(t, srv.Client(), d, Options{})
			connected(t, c)
			got := make(chan error)
			go func() {
				v, err := c.Get(t.Context(), "1")
				if err == nil && v != "ann" {
					err = fmt.Errorf("got %q", v)
				}
				got <- err
			}()
			_, lease := c.remote.keys("1")
			holder := func() string {
				s, err := rdb.Get(t.Context(), lease).Result()
				if !errors.Is(err, redis.Nil) {
					require.NoError(t, err)
				}
				return s[:min(1, len(s))]
			}
			require.Eventually(t, func() bool { return d.loads.Load() == 1 }, 10*time.Second, time.Millisecond)
			require.Equal(t, "L", holder())
			outOfMemory()
			close(d.block)
			require.ErrorIs(t, <-got, cause)
			want := ""
			if cause != nil && cause.Error() == "boom" {
				want = "E" // also the cool-down is kept
			}
			require.Equal(t, want, holder())
		})
	}
}

// The policies for a Redis that is down hold for one that takes nothing.
func TestOutOfMemoryPolicies(t *testing.T) {
	srv, outOfMemory, _ := full(t)
	ctx := t.Context()
	d := newDB("1", "ann", "2", "bob", "3", "cid")
	limited := open(t, srv.Client(), d, Options{OutageLoads: 1})
	failing := open(t, srv.Client(), d, Options{WhenDown: OutageFail, Prefix: redistest.Prefix(t)})
	refreshing := open(t, srv.Client(), d, Options{Prefix: redistest.Prefix(t), OutageLoads: 1, RefreshAfter: time.Millisecond, TTL: time.Hour, Jitter: -1})
	connected(t, limited, failing, refreshing)
	require.Equal(t, "ann", get(t, refreshing, "1"))
	require.Eventually(t, func() bool { return refreshing.Stats().Refreshing == 0 }, 10*time.Second, time.Millisecond)
	outOfMemory()
	require.Equal(t, "ann", get(t, limited, "1"))
	_, err := limited.Get(ctx, "2")
	require.ErrorIs(t, err, ErrOverloaded)
	require.True(t, redis.IsOOMError(err), "%v", err)
	_, err = failing.Get(ctx, "1")
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, redis.IsOOMError(err), "%v", err)

	// What nobody waits for takes nobody's turn.
	loads := d.loads.Load()
	for range 20 {
		require.Equal(t, "ann", get(t, refreshing, "1"))
	}
	require.Eventually(t, func() bool { s := refreshing.Stats(); return s.Refreshing == 0 && s.Outages > 0 }, 10*time.Second, time.Millisecond)
	require.Equal(t, loads, d.loads.Load())
	require.Equal(t, "cid", get(t, refreshing, "3"))
}

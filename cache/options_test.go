package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestInvalid(t *testing.T) {
	_, rdb := redistest.Mini(t)
	src := newDB().source()
	for field, opts := range map[string]Options{
		"Mode":         {Mode: 7},
		"TTL":          {TTL: time.Millisecond},
		"LocalTTL":     {TTL: time.Second, LocalTTL: 2 * time.Second},
		"NotFoundTTL":  {TTL: time.Second, NotFoundTTL: 2 * time.Second},
		"Jitter":       {TTL: time.Second, Jitter: time.Second},
		"RefreshAfter": {TTL: time.Second, RefreshAfter: time.Second},
		"EarlyRefresh": {EarlyRefresh: -2},
		"StaleFor":     {StaleFor: -1},
		"Local":        {Local: -2},
		"MaxValue":     {MaxValue: -1},
		"LoadTimeout":  {LoadTimeout: -1},
		"MaxWaiters":   {MaxWaiters: -1},
		"Timeout":      {Timeout: -1},
		"WhenDown":     {WhenDown: 9},
		"OutageLoads":  {OutageLoads: -1},
		"Guard":        {Guard: -1},
		"Pending":      {Pending: -1},
	} {
		_, err := New(rdb, "users", src, opts)
		require.ErrorIs(t, err, ErrInvalid, field)
		require.ErrorContains(t, err, "Options."+field)
	}
	_, err := New(rdb, "users", src, Options{RefreshAfter: time.Second, Jitter: time.Second})
	require.ErrorContains(t, err, "Options.RefreshAfter 1s, want more than Jitter 1s", "it would be over before it began")
	_, err = New(rdb, "", src, Options{})
	require.ErrorContains(t, err, "name is empty")
	_, err = New(nil, "users", src, Options{Local: -1})
	require.ErrorContains(t, err, "rdb is nil")
	type id [2]int
	_, err = New(rdb, "users", Source[id, string]{}, Options{})
	require.ErrorContains(t, err, "Source.Key")
	small := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", PoolSize: 3})
	defer small.Close()
	_, err = New(small, "users", src, Options{})
	require.ErrorContains(t, err, "PoolSize 3")
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	_, err = New(ring, "users", src, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "Ring")

	c := open(t, rdb, newDB("1", "far too long"), Options{MaxValue: 5})
	connected(t, c)
	require.ErrorIs(t, c.Set(t.Context(), "1", "far too long"), ErrInvalid)
	v, err := c.Get(t.Context(), "1")
	require.NoError(t, err, "what was loaded is answered")
	require.Equal(t, "far too long", v)
	e, ok, err := c.Peek(t.Context(), "1")
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, e.Version, "and is not in Redis")
}

// A cache of no loader is one that is only written to.
func TestNoLoader(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := openSource(t, rdb, Source[int, string]{}, Options{NotFoundTTL: -1})
		_, err := c.Get(t.Context(), 1)
		require.ErrorIs(t, err, ErrNotFound)
		require.NoError(t, c.Set(t.Context(), 1, "x"))
		v, err := c.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "x", v)
	})
}

// Names of caches and keys cannot be put together to another's.
func TestNamesDoNotCollide(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		seen := map[string]bool{}
		for _, n := range [][2]string{{"a:b", "c"}, {"a", "b:c"}, {"a%3Ab", "c"}, {"a", "b}:c"}, {"a", "{b:c"}, {"a", ""}} {
			c, err := New(rdb, n[0], Source[string, string]{}, Options{Prefix: prefix})
			require.NoError(t, err)
			v, l := c.remote.keys(n[1])
			require.False(t, seen[v], v)
			seen[v] = true
			require.NotEqual(t, v, l)
			require.NoError(t, c.Set(t.Context(), n[1], "x"), "one slot")
			require.NoError(t, c.Close(t.Context()))
		}
	})
}

func TestClone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := openSource(t, rdb, Source[int, []int]{
			Load:  func(context.Context, int) ([]int, error) { return []int{1}, nil },
			Clone: func(v []int) []int { return append([]int(nil), v...) },
		}, Options{})
		mine := []int{7}
		require.NoError(t, c.Set(t.Context(), 2, mine))
		mine[0] = 0
		for key, want := range map[int]int{1: 1, 2: 7} {
			for range 3 {
				v, err := c.Get(t.Context(), key)
				require.NoError(t, err)
				require.Equal(t, []int{want}, v)
				v[0] = 99
			}
		}
	})
}

// What the modes say of a load that ends after a writer, and after a Delete.
func TestModes(t *testing.T) {
	for mode, want := range map[Mode][2]string{
		Lease:     {"written", ""},
		AddRefill: {"written", "loaded"},
		Plain:     {"loaded", "loaded"},
	} {
		redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
			prefix := redistest.Prefix(t)
			d := newDB("set", "loaded", "deleted", "loaded")
			d.block = make(chan struct{})
			c := open(t, env.Client(), d, Options{Prefix: prefix, Mode: mode, Local: -1})
			for _, key := range []string{"set", "deleted"} {
				go func() { _, _ = c.Get(t.Context(), key) }()
			}
			synctest.Wait()
			require.NoError(t, c.Set(t.Context(), "set", "written"))
			require.NoError(t, c.Delete(t.Context(), "deleted"))
			close(d.block)
			synctest.Wait()
			for i, key := range []string{"set", "deleted"} {
				e, _, err := c.Peek(t.Context(), key)
				require.NoError(t, err)
				require.Equal(t, want[i], e.Value, "mode %d, %s", mode, key)
			}
		})
	}
}

// Where a loader is needed it is asked for: what was written is not replaced by
// the "not found" of a source that is not there.
func TestLoaderIsAskedFor(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		_, err := New(env.Client(), "users", Source[string, string]{}, Options{RefreshAfter: time.Second})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Source.Load is nil")
		c := openSource(t, env.Client(), Source[string, string]{}, Options{TTL: 10 * time.Second, Jitter: -1})
		begin()
		require.NoError(t, c.Set(ctx, "1", "ann"))
		_, err = c.Refresh(ctx, "1")
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Source.Load is nil")
		err = c.RunWarm(ctx, time.Second, func(context.Context) ([]string, error) { return []string{"1"}, nil })
		require.ErrorIs(t, err, ErrInvalid)
		time.Sleep(9900 * time.Millisecond)
		require.Equal(t, "ann", get(t, c, "1"))
	})
}

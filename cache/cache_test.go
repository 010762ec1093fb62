package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A db is a source of truth that counts.
type db struct {
	mu    sync.Mutex
	rows  map[string]string
	loads atomic.Int64
	err   error
	block chan struct{} // if not nil, loads wait for it
}

func newDB(pairs ...string) *db {
	d := &db{rows: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		d.rows[pairs[i]] = pairs[i+1]
	}
	return d
}

func (d *db) set(key, value string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[key] = value
}

// hold makes loads that begin from now on wait for block.
func (d *db) hold(block chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.block = block
}

func (d *db) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *db) load(ctx context.Context, key string) (string, error) {
	d.loads.Add(1)
	d.mu.Lock()
	v, ok := d.rows[key]
	err, block := d.err, d.block
	d.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("row %q: %w", key, ErrNotFound)
	}
	return v, nil
}

func (d *db) source() Source[string, string] { return Source[string, string]{Load: d.load} }

// open returns a cache that the end of the test closes.
func open(t *testing.T, rdb redis.UniversalClient, d *db, opts Options) *Cache[string, string] {
	t.Helper()
	return openSource(t, rdb, d.source(), opts)
}

func openSource[K comparable, V any](t *testing.T, rdb redis.UniversalClient, src Source[K, V], opts Options) *Cache[K, V] {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	if opts.Timeout == 0 {
		opts.Timeout = 20 * time.Second // a slow machine is no outage
	}
	c, err := New(rdb, "users", src, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.WithoutCancel(t.Context()))) })
	return c
}

// connected waits until c hears itself: what it keeps before that lasts a second.
func connected[K comparable, V any](t *testing.T, caches ...*Cache[K, V]) {
	t.Helper()
	for _, c := range caches {
		require.Eventually(t, func() bool { return !c.Stats().CutOff }, time.Minute, time.Millisecond)
	}
}

func TestReadsThrough(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d := t.Context(), newDB("1", "ann")
		prefix := redistest.Prefix(t)
		a, b := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		connected(t, a, b)
		for range 3 {
			for _, c := range []*Cache[string, string]{a, b} {
				v, err := c.Get(ctx, "1")
				require.NoError(t, err)
				require.Equal(t, "ann", v)
				_, err = c.Get(ctx, "2")
				require.ErrorIs(t, err, ErrNotFound)
			}
		}
		require.EqualValues(t, 2, d.loads.Load(), "one load a key")
		require.EqualValues(t, 2, b.Stats().RedisHits)
		require.EqualValues(t, 4, b.Stats().LocalHits)

		d.set("1", "anna")
		require.NoError(t, a.Delete(ctx, "1"))
		v, err := a.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "anna", v)
	})
}

func TestSetThenGet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d := t.Context(), newDB()
		c := open(t, rdb, d, Options{Local: 10})
		connected(t, c)
		for i := range 200 {
			k, v := fmt.Sprint("k", i), fmt.Sprint("v", i)
			require.NoError(t, c.Set(ctx, k, v))
			got, err := c.Get(ctx, k)
			require.NoError(t, err)
			require.Equal(t, v, got)
		}
		require.EqualValues(t, 200, c.Stats().LocalHits, "also what ristretto refuses is there")
		added, err := c.Add(ctx, "k1", "x")
		require.NoError(t, err)
		require.False(t, added)
		added, err = c.Add(ctx, "new", "x")
		require.NoError(t, err)
		require.True(t, added)
		require.Zero(t, d.loads.Load())
	})
}

func TestOneLoadAMiss(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB("1", "ann"), redistest.Prefix(t)
		var wg sync.WaitGroup
		for range 4 {
			c := open(t, rdb, d, Options{Prefix: prefix})
			for range 250 {
				wg.Go(func() {
					v, err := c.Get(ctx, "1")
					if err != nil || v != "ann" {
						t.Error(v, err)
					}
				})
			}
		}
		wg.Wait()
		require.EqualValues(t, 1, d.loads.Load())
	})
}

func TestFailuresCoolDown(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB(), redistest.Prefix(t)
		boom := errors.New("boom")
		d.fail(boom)
		a, b := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		key, loads := "", int64(0)
		for n, slow := 0, true; slow; n++ { // a machine may need longer than it takes to cool down
			key, loads = fmt.Sprint(n), d.loads.Load()
			begun := time.Now()
			for range 10 {
				_, err := a.Get(ctx, key)
				require.ErrorIs(t, err, ErrLoad)
				require.ErrorIs(t, err, boom)
			}
			_, err := b.Get(ctx, key)
			require.ErrorIs(t, err, ErrLoad)
			require.ErrorContains(t, err, "boom")
			slow = time.Since(begun) > firstCool*8/10 // the least, by chance
		}
		require.Equal(t, loads+1, d.loads.Load())
		d.set(key, "ann")
		d.fail(nil)
		require.Eventually(t, func() bool { v, err := b.Get(ctx, key); return err == nil && v == "ann" }, time.Minute, 10*time.Millisecond)
		require.Equal(t, loads+2, d.loads.Load())
	})
}

// A key is deleted while it is loaded: who asked before gets what the load brings,
// and nobody afterwards.
func TestDeleteDuringALoad(t *testing.T) {
	test := func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d := t.Context(), newDB("1", "old")
		d.block = make(chan struct{})
		c := open(t, rdb, d, Options{})
		connected(t, c)
		before := make(chan string)
		go func() {
			v, err := c.Get(ctx, "1")
			if err != nil {
				t.Error(err)
			}
			before <- v
		}()
		require.Eventually(t, func() bool { return d.loads.Load() == 1 }, time.Minute, time.Millisecond)
		d.set("1", "new")
		require.NoError(t, c.Delete(ctx, "1"))
		after := make(chan string)
		go func() {
			v, err := c.Get(ctx, "1")
			if err != nil {
				t.Error(err)
			}
			after <- v
		}()
		require.Eventually(t, func() bool { return d.loads.Load() == 2 }, time.Minute, time.Millisecond)
		close(d.block)
		require.Equal(t, "old", <-before)
		require.Equal(t, "new", <-after)
		v, err := c.Get(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
		e, ok, err := c.Peek(ctx, "1")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "new", e.Value)
	}
	redistest.Each(t, test)
	t.Run("without Redis", func(t *testing.T) { test(t, nil) })
}

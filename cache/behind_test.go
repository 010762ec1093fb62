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

// A sink that remembers what it got, in order.
type ledger struct {
	mu    sync.Mutex
	got   map[string][]int
	fails int
}

func (l *ledger) Store(_ context.Context, batch []Write[string, int]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails > 0 {
		l.fails--
		return errors.New("the store is down")
	}
	for _, w := range batch {
		l.got[w.Key] = append(l.got[w.Key], w.Value)
	}
	return nil
}

func TestWriteBehind(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		l := &ledger{got: map[string][]int{}, fails: 3}
		var loads atomic.Int64
		c := openSource(t, env.Client(), Source[string, int]{Load: func(context.Context, string) (int, error) {
			loads.Add(1)
			return 0, ErrNotFound
		}}, Options{Pending: 5, TTL: time.Second})
		ended := make(chan error)
		go func() { ended <- c.RunWriteBehind(ctx, l) }()
		synctest.Wait()
		require.ErrorIs(t, c.RunWriteBehind(ctx, l), ErrInvalid)
		for i := range 200 {
			require.NoError(t, c.WriteBehind(ctx, fmt.Sprint("k", i%5), i))
			time.Sleep(7 * time.Millisecond)
		}
		v, err := c.Get(ctx, "k4")
		require.NoError(t, err)
		require.Equal(t, 199, v)
		stop()
		require.NoError(t, <-ended)
		for k, values := range l.got {
			require.IsIncreasing(t, values, k)
			require.GreaterOrEqual(t, values[len(values)-1], 195)
			require.Less(t, len(values), 30, "in batches")
		}
		require.Len(t, l.got, 5)

		// Nobody stores: bounded, and this process knows what waits although Redis
		// has forgotten it.
		ctx = t.Context()
		for i := range 5 {
			require.NoError(t, c.WriteBehind(ctx, fmt.Sprint("w", i), i))
		}
		require.ErrorIs(t, c.WriteBehind(ctx, "w5", 5), ErrOverloaded)
		time.Sleep(time.Minute)
		v, err = c.Get(ctx, "w3")
		require.NoError(t, err)
		require.Equal(t, 3, v)
		require.Zero(t, loads.Load())
		require.Equal(t, 5, c.Stats().WritesWaiting)
	})
}

// What a sink would not take is told of, by number, and still waits.
func TestWriteBehindIsNotLostSilently(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		l := &ledger{got: map[string][]int{}, fails: 1 << 30}
		c := openSource(t, env.Client(), Source[string, int]{}, Options{LoadTimeout: 2 * time.Second})
		for i := range 3 {
			require.NoError(t, c.WriteBehind(ctx, fmt.Sprint(i), i))
		}
		begun := time.Now()
		stop()
		err := c.RunWriteBehind(ctx, l)
		require.ErrorContains(t, err, "3 keys were not stored")
		require.ErrorContains(t, err, "the store is down")
		require.InDelta(t, 2, time.Since(begun).Seconds(), 0.2, "LoadTimeout")
		require.Equal(t, 3, c.Stats().WritesWaiting)

		l.fails = 0
		require.NoError(t, c.RunWriteBehind(ctx, l))
		require.Zero(t, c.Stats().WritesWaiting)
		require.Equal(t, map[string][]int{"0": {0}, "1": {1}, "2": {2}}, l.got)
	})
}

// However many write at once, no more keys wait than there is room for.
func TestWriteBehindIsBounded(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		c := openSource(t, env.Client(), Source[string, int]{}, Options{Pending: 10})
		var taken, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				switch err := c.WriteBehind(t.Context(), fmt.Sprint(i), i); {
				case err == nil:
					taken.Add(1)
				case errors.Is(err, ErrOverloaded):
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 10, taken.Load())
		require.EqualValues(t, 90, refused.Load())
	})
}

// What waits is newer than what a LoadMany says, for GetMany and for RunWarm.
func TestManyLoadWhatWaits(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		var asked []string
		c := openSource(t, env.Client(), Source[string, string]{LoadMany: func(_ context.Context, keys []string) (map[string]string, error) {
			asked = append(asked, keys...)
			found := map[string]string{}
			for _, k := range keys {
				found[k] = "old"
			}
			return found, nil
		}}, Options{TTL: time.Second})
		begin()
		require.NoError(t, c.WriteBehind(ctx, "k", "new"))
		time.Sleep(2 * time.Second) // nobody stores, and Redis has forgotten it
		got, err := c.GetMany(ctx, []string{"k", "other"})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"k": "new", "other": "old"}, got)
		require.Equal(t, []string{"other"}, asked)

		ended := make(chan error)
		go func() {
			ended <- c.RunWarm(ctx, 500*time.Millisecond, func(context.Context) ([]string, error) { return []string{"k"}, nil })
		}()
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, "new", get(t, c, "k"))
		}
		require.Equal(t, []string{"other"}, asked)
		stop()
		require.NoError(t, <-ended)
	})
}

// table is a db as a sink.
type table struct{ *db }

func (s table) Store(_ context.Context, batch []Write[string, string]) error {
	for _, w := range batch {
		s.set(w.Key, w.Value)
	}
	return nil
}

// What another process loaded while the newer value waited to be stored is gone once it is,
// from Redis and from every process, and what is loaded meanwhile is not kept.
func TestWriteBehindReplacesOldLoads(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB("1", "ann", "2", "ann"), redistest.Prefix(t)
		a, b, other := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		connected(t, a, b, other)
		require.NoError(t, a.WriteBehind(ctx, "1", "bob"))
		require.NoError(t, a.WriteBehind(ctx, "2", "bob"))
		v, err := b.Refresh(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, "ann", v, "the source does not know better yet")
		require.Equal(t, "ann", get(t, other, "1"))
		block := make(chan struct{})
		d.hold(block)
		loads := d.loads.Load()
		late := make(chan error)
		go func() { // it has read what the source had, and is slow to say so
			_, err := b.Refresh(ctx, "2")
			late <- err
		}()
		require.Eventually(t, func() bool { return d.loads.Load() > loads }, time.Minute, time.Millisecond)

		stop := runBehind(t, a, table{d})
		require.Eventually(t, func() bool { return a.Stats().WritesWaiting == 0 }, time.Minute, time.Millisecond)
		stop()
		d.hold(nil)
		close(block)
		require.NoError(t, <-late)
		for name, c := range map[string]*Cache[string, string]{"a": a, "b": b, "other": other} {
			for _, key := range []string{"1", "2"} {
				require.Eventually(t, func() bool { return get(t, c, key) == "bob" }, 30*time.Second, time.Millisecond, "%s %s", name, key)
			}
		}
	})
}

// What a writer put there stays: it is no miss for anybody, and a newer write that waits in
// another process outlives the older one's way to the store.
func TestWriteBehindKeepsWrites(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, d, prefix := t.Context(), newDB(), redistest.Prefix(t)
		a, b := open(t, rdb, d, Options{Prefix: prefix}), open(t, rdb, d, Options{Prefix: prefix})
		connected(t, a, b)
		require.NoError(t, a.WriteBehind(ctx, "1", "ann"))
		require.NoError(t, a.WriteBehind(ctx, "2", "ann"))
		require.NoError(t, b.WriteBehind(ctx, "2", "bob"))
		stop := runBehind(t, a, table{d})
		require.Eventually(t, func() bool { return a.Stats().WritesWaiting == 0 }, time.Minute, time.Millisecond)
		stop()
		late := open(t, rdb, d, Options{Prefix: prefix})
		require.Equal(t, "ann", get(t, late, "1"))
		require.Equal(t, "bob", get(t, late, "2"))
		require.Zero(t, d.loads.Load())
	})
}

// runBehind runs RunWriteBehind until what it returns is called.
func runBehind[K comparable, V any](t *testing.T, c *Cache[K, V], sink Sink[K, V]) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.RunWriteBehind(ctx, sink) }()
	return func() {
		cancel()
		require.NoError(t, <-ended)
	}
}

package cache

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestGuard(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		d := newDB()
		for i := range 1000 {
			d.set(fmt.Sprint(i), "x")
		}
		prefix := redistest.Prefix(t)
		opts := Options{Prefix: prefix, Guard: 1000, NotFoundTTL: -1}
		c, other := open(t, env.Client(), d, opts), open(t, env.Client(), d, opts)
		time.Sleep(2 * heartbeat)
		require.ErrorIs(t, c.RunGuard(ctx, 0, nil), ErrInvalid)
		scans := make(chan struct{}, 100)
		ended := make(chan error)
		go func() {
			ended <- c.RunGuard(ctx, time.Minute, func(context.Context) iter.Seq2[string, error] {
				scans <- struct{}{}
				return d.keys()
			})
		}()
		synctest.Wait()
		passed := 0
		for i := range 1000 {
			require.Equal(t, "x", get(t, c, fmt.Sprint(i)), "no key that exists is excluded")
			before := d.loads.Load()
			_, err := c.Get(ctx, fmt.Sprint("no", i))
			require.ErrorIs(t, err, ErrNotFound)
			passed += int(d.loads.Load() - before)
		}
		require.Less(t, passed, 40, "one in a hundred")

		// Made by another process, which says so in either way.
		d.set("new1", "x")
		require.NoError(t, other.Delete(ctx, "new1"))
		require.NoError(t, other.Set(ctx, "new2", "x"))
		synctest.Wait()
		require.Equal(t, "x", get(t, c, "new1"))
		require.Equal(t, "x", get(t, c, "new2"))

		// A gap: everything passes, until it is rebuilt.
		d.set("new3", "x")
		c.gap()
		require.Equal(t, "x", get(t, c, "new3"))
		time.Sleep(2 * time.Second)
		require.Len(t, scans, 2)
		guarded := c.Stats().Guarded
		_, err := c.Get(ctx, "no1")
		require.ErrorIs(t, err, ErrNotFound)
		require.Equal(t, guarded+1, c.Stats().Guarded)
		stop()
		require.NoError(t, <-ended)
	})
}

// A source may go through its keys before it hands out the first: what is made in
// between passes, and a gap in between counts.
func TestGuardWithKeysThatAreSlow(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		d, prefix := newDB("1", "x"), redistest.Prefix(t)
		c, other := open(t, env.Client(), d, Options{Prefix: prefix}), open(t, env.Client(), d, Options{Prefix: prefix})
		time.Sleep(2 * heartbeat)
		var scans atomic.Int64
		ended := make(chan error)
		go func() {
			ended <- c.RunGuard(ctx, time.Hour, func(ctx context.Context) iter.Seq2[string, error] {
				scans.Add(1)
				found := d.keys()
				sleep(ctx, 2*time.Second)
				return found
			})
		}()
		time.Sleep(time.Second)
		d.set("2", "new")
		require.NoError(t, other.Delete(ctx, "2"))
		d.set("3", "mine")
		require.NoError(t, c.Set(ctx, "3", "mine"))
		time.Sleep(30 * time.Minute)
		_, err := c.Get(ctx, "no")
		require.ErrorIs(t, err, ErrNotFound)
		require.EqualValues(t, 1, c.Stats().Guarded)
		require.Equal(t, "new", get(t, c, "2"))
		require.Equal(t, "mine", get(t, c, "3"))

		time.Sleep(30*time.Minute + 2*time.Second) // within the second scan
		c.gap()
		time.Sleep(10 * time.Second)
		require.EqualValues(t, 3, scans.Load())
		stop()
		require.NoError(t, <-ended)
	})
}

// A key is written behind, and the guard is built anew before it is stored.
func TestGuardKnowsWhatWaits(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx, stop := context.WithCancel(t.Context())
		d := newDB("1", "x")
		c := open(t, env.Client(), d, Options{})
		time.Sleep(2 * heartbeat)
		require.NoError(t, c.WriteBehind(ctx, "2", "new"))
		ended := make(chan error)
		go func() {
			ended <- c.RunGuard(ctx, time.Hour, func(context.Context) iter.Seq2[string, error] { return d.keys() })
		}()
		synctest.Wait()
		require.Equal(t, "new", get(t, c, "2"))
		_, err := c.Get(ctx, "no")
		require.ErrorIs(t, err, ErrNotFound)
		require.EqualValues(t, 1, c.Stats().Guarded)
		stop()
		require.NoError(t, <-ended)
	})
}

// keys returns those of the rows that there are now.
func (d *db) keys() iter.Seq2[string, error] {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.Collect(maps.Keys(d.rows))
	return func(yield func(string, error) bool) {
		for _, k := range list {
			if !yield(k, nil) {
				return
			}
		}
	}
}

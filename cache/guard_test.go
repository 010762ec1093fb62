package cache

import (
	"context"
	"fmt"
	"iter"
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
				return func(yield func(string, error) bool) {
					d.mu.Lock()
					defer d.mu.Unlock()
					for k := range d.rows {
						if !yield(k, nil) {
							return
						}
					}
				}
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

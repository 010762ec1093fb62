package cache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Refresh stores what it loads, whatever is there, in every mode.
func TestRefresh(t *testing.T) {
	for _, mode := range []Mode{Lease, AddRefill, Plain} {
		redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
			ctx, d, prefix := t.Context(), newDB("1", "old"), redistest.Prefix(t)
			opts := Options{Prefix: prefix, Mode: mode}
			c := open(t, rdb, d, opts)
			opts.Local = -1
			other := open(t, rdb, d, opts)
			require.Equal(t, "old", get(t, c, "1"))
			d.set("1", "new")
			v, err := c.Refresh(ctx, "1")
			require.NoError(t, err)
			require.Equal(t, "new", v)
			require.Equal(t, "new", get(t, c, "1"))
			require.Equal(t, "new", get(t, other, "1"))
			require.EqualValues(t, 2, d.loads.Load())
			require.Zero(t, c.Stats().Refused)

			d.fail(errors.New("boom"))
			_, err = c.Refresh(ctx, "1")
			require.ErrorIs(t, err, ErrLoad)
			require.Equal(t, "new", get(t, other, "1"), "an error leaves what is there")
		})
	}
}

// A load that began before Refresh, and ends after it, is answered and not kept.
func TestRefreshDuringALoad(t *testing.T) {
	test := func(t *testing.T, rdb redis.UniversalClient) {
		d := newDB("1", "old")
		block := make(chan struct{})
		d.block = block
		c := open(t, rdb, d, Options{})
		time.Sleep(heartbeat)
		first := make(chan string)
		go func() {
			v, err := c.Get(t.Context(), "1")
			if err != nil {
				t.Error(err)
			}
			first <- v
		}()
		synctest.Wait()
		d.mu.Lock()
		d.rows["1"], d.block = "new", nil
		d.mu.Unlock()
		v, err := c.Refresh(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "new", v)
		close(block)
		require.Equal(t, "old", <-first)
		synctest.Wait()
		require.Equal(t, "new", get(t, c, "1"))
	}
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) { test(t, env.Client()) })
	synctest.Test(t, func(t *testing.T) { test(t, nil) })
}

package stock

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What is plainly wrong is told before anything happens, and how to do it right.
func TestMisuse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		for _, opts := range []Options{{}, {Buckets: 2}} {
			a := open(t, rdb, opts)
			require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
			_, err := a.Reconcile(ctx, nil)
			require.ErrorIs(t, err, ErrInvalid)
			_, err = a.Rebuild(ctx, nil)
			require.ErrorIs(t, err, ErrInvalid)

			err = a.Load(ctx, map[string]int64{"tea": 11})
			require.ErrorIs(t, err, ErrConflict)
			assert.ErrorContains(t, err, `sku "tea" was loaded with 10 units; Restock adds to it`)
			assert.NotContains(t, err.Error(), `id "load"`, "nobody chose that id")
			require.NoError(t, a.Drop(ctx))
		}
		_, err := New(rdb, "sale", Options{Hold: -1})
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, "Options.Hold -1ns")
		var nobody *redis.Client
		_, err = New(nobody, "sale", Options{})
		require.ErrorIs(t, err, ErrInvalid)
	})
}

// A process that starts beside an empty Redis is told so, before a Load hides it.
func TestReconcileBeforeLoad(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		for _, buckets := range []int{1, 2} {
			diff, err := open(t, rdb, Options{Buckets: buckets}).Reconcile(ctx, newShelf())
			require.NoError(t, err, "a sale that has not begun, buckets: %d", buckets)
			require.True(t, diff.None())
		}
		a := open(t, rdb, Options{})
		sink := newShelf()
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		_, err := a.Deduct(ctx, tea("1", "u", 1))
		require.NoError(t, err)
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		_, err = a.Reconcile(ctx, sink)
		require.ErrorIs(t, err, ErrForked)
	})
}

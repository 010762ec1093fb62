package stock

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Close refuses later calls, however they would have been answered.
func TestClosedRefuses(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		t.Run("unmerged", func(t *testing.T) {
			a := open(t, rdb, Options{Unmerged: true})
			require.NoError(t, a.Load(ctx, map[string]int64{"tea": 1}))
			require.NoError(t, a.Close(ctx))
			_, err := a.Deduct(ctx, tea("o1", "u1", 1))
			require.ErrorIs(t, err, ErrClosed)
		})
		t.Run("from memory", func(t *testing.T) {
			a := open(t, rdb, Options{})
			require.NoError(t, a.Load(ctx, map[string]int64{"tea": 1}))
			_, err := a.Deduct(ctx, tea("o1", "u1", 1))
			require.NoError(t, err)
			require.NoError(t, a.Close(ctx))
			_, err = a.Deduct(ctx, tea("o2", "u2", 1))
			require.ErrorIs(t, err, ErrClosed)
		})
	})
}

// A place that is no stream id is the caller's mistake: trying again does not help.
func TestEntriesFromNowhere(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{})
		for _, err := range a.Entries(t.Context(), "junk") {
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
}

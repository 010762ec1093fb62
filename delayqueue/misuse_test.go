package delayqueue

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What is plainly wrong is told before anything happens.
func TestMisuse(t *testing.T) {
	var nobody *redis.Client
	_, err := New(nobody, "mails", Options{})
	require.ErrorIs(t, err, ErrInvalid)
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := open(t, rdb, Options{})
		said := make(chan []error, 1)
		work(t, q, func(ctx context.Context, d *Delivery) error {
			_, empty := d.Once(ctx, "")
			_, long := d.Once(ctx, strings.Repeat("x", 1000))
			_, sql := d.OnceSQL(ctx, nil, "INSERT")
			said <- []error{empty, long, sql}
			return nil
		}, RunOptions{})
		_, err := q.Add(t.Context(), Job{ID: "x"})
		require.NoError(t, err)
		errs := <-said
		for i, want := range []string{"effect of 0 bytes", "effect of 1000 bytes", "tx is nil"} {
			require.ErrorIs(t, errs[i], ErrInvalid)
			assert.ErrorContains(t, errs[i], want)
		}
		_, err = q.Get(t.Context(), strings.Repeat("x", 1<<20))
		require.ErrorIs(t, err, ErrInvalid)
		assert.Less(t, len(err.Error()), 1000)
	})
}

package lock

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What is plainly wrong is told before anything happens.
func TestMisuse(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		l, err := New(rdb, Options{})
		require.NoError(t, err)
		defer l.Close(ctx)

		require.ErrorIs(t, l.Do(ctx, "job", nil), ErrInvalid)
		h, err := l.Holder(ctx, "job")
		require.NoError(t, err)
		assert.Zero(t, h.Fence, "the lock was taken for nothing")

		_, err = NewQuorum([]redis.UniversalClient{rdb, rdb, rdb}, Options{})
		require.ErrorIs(t, err, ErrInvalid, "three grants of one server are no majority")
		var nobody *redis.Client
		_, err = New(nobody, Options{})
		require.ErrorIs(t, err, ErrInvalid)
	})
}

// A name may be long; the error that tells it is not.
func TestErrorsAreShort(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l, err := New(rdb, Options{})
		require.NoError(t, err)
		defer l.Close(t.Context())
		long := strings.Repeat("x", 1<<20)
		err = l.Do(t.Context(), long, func(ctx context.Context, _ *Lease) error {
			_, _, err := l.TryLock(ctx, long)
			return err
		})
		require.ErrorIs(t, err, ErrNotAcquired)
		assert.Less(t, len(err.Error()), 1000)
	})
}

// What Unlock says when it is called again, and what goes on after Close.
func TestUnlockAgain(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		l, err := New(rdb, Options{TTL: time.Minute})
		require.NoError(t, err)
		_, lease, err := l.Lock(ctx, "given back")
		require.NoError(t, err)
		require.NoError(t, lease.Unlock(ctx))
		require.ErrorIs(t, lease.Unlock(ctx), ErrNotHeld)

		_, lease, err = l.Lock(ctx, "forced")
		require.NoError(t, err)
		require.NoError(t, l.ForceUnlock(ctx, "forced"))
		require.ErrorIs(t, lease.Unlock(ctx), ErrLost)
		require.ErrorIs(t, lease.Unlock(ctx), ErrLost)

		require.NoError(t, l.Close(ctx))
		_, err = l.Holder(ctx, "forced")
		require.NoError(t, err)
		require.ErrorIs(t, l.ForceUnlock(ctx, "forced"), ErrNotHeld)
	})
}

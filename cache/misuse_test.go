package cache

import (
	"context"
	"iter"
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
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		ctx := t.Context()
		source := Source[string, string]{Load: func(context.Context, string) (string, error) { return "", nil }}
		var nobody *redis.Client
		_, err := New(nobody, "users", source, Options{})
		require.ErrorIs(t, err, ErrInvalid)
		for _, opts := range []Options{{Local: 1 << 40}, {Guard: 1 << 40}} {
			_, err = New(env.Client(), "users", source, opts)
			require.ErrorIs(t, err, ErrInvalid)
		}
		_, err = New(env.Client(), "users", source, Options{RefreshAfter: time.Hour})
		require.ErrorContains(t, err, "Jitter = 9m0s")
		assert.NotContains(t, err.Error(), "Jitter 0s", "a jitter that nobody set is a tenth")

		c := openSource(t, env.Client(), source, Options{})
		begin()
		require.ErrorIs(t, c.RunGuard(ctx, time.Hour, nil), ErrInvalid)
		require.ErrorIs(t, c.RunWarm(ctx, time.Second, nil), ErrInvalid)
		require.ErrorIs(t, c.RunWriteBehind(ctx, nil), ErrInvalid)
		assert.EqualValues(t, 1, c.Stats().Gaps, "it has begun to hear")

		_, err = c.GetMany(ctx, []string{"1"})
		require.NoError(t, err)
		require.NoError(t, c.Close(ctx))
		_, err = c.Get(ctx, strings.Repeat("x", 1<<20))
		require.ErrorIs(t, err, ErrClosed)
		assert.Less(t, len(err.Error()), 1000)
		require.ErrorIs(t, c.RunWriteBehind(ctx, nowhere{}), ErrClosed)
		require.ErrorIs(t, c.RunWarm(ctx, time.Second, func(context.Context) ([]string, error) { return nil, nil }), ErrClosed)
		require.ErrorIs(t, c.RunGuard(ctx, time.Hour, func(context.Context) iter.Seq2[string, error] { return nil }), ErrClosed)
	})
}

type nowhere struct{}

func (nowhere) Store(context.Context, []Write[string, string]) error { return nil }

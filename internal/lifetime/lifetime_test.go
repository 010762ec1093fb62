package lifetime

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDrainWaitsForWorkToEndByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		var finished bool
		require.True(t, g.Go(func(ctx context.Context) {
			time.Sleep(time.Second)
			finished = ctx.Err() == nil
		}))
		require.NoError(t, g.Drain(t.Context()))
		require.True(t, finished, "Drain cancelled work that would have ended by itself")
		require.False(t, g.Go(func(context.Context) { t.Error("ran after Drain") }))
		require.NoError(t, g.Drain(t.Context()), "a second Drain")
	})
}

func TestDrainCancelsWhenItsOwnContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		var ended bool
		g.Go(func(ctx context.Context) { <-ctx.Done(); ended = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Drain(ctx), context.DeadlineExceeded)
		require.True(t, ended, "a goroutine outlived Drain")
	})
}

func TestStopCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		var ended bool
		g.Go(func(ctx context.Context) { <-ctx.Done(); ended = true })
		g.Stop()
		g.Stop()
		require.True(t, ended)
	})
}

func TestWithinOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type k struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), k{}, 1))
		ctx, done := Within(parent, time.Second)
		defer done()
		cancel()
		require.NoError(t, ctx.Err())
		require.Equal(t, 1, ctx.Value(k{}))
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

package sale

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// Between a FLUSHALL and the rebuild the shelf has its products still, and says that they
// are not to be had: neither is it empty, nor are they sold out.
func TestPausedUntilRebuilt(t *testing.T) { both(t, pausedUntilRebuilt) }

func pausedUntilRebuilt(t *testing.T, star bool) {
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 9})
	_, err := sh.order(t.Context(), sh.users(t, 1, 1000)[0], 1, Line{"tea", 2})
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	sh.stop()

	idle := anotherServer(t, sh)
	offer := func(s *Sale) Offer {
		t.Helper()
		require.NoError(t, s.levels.Delete(t.Context(), 1)) // the next quarter of a second
		offers, err := s.Offers(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, offers, 1)
		frame, err := s.Left(t.Context(), 1)
		require.NoError(t, err)
		o := offers[0]
		require.Equal(t, LeftFrame{Items: []LeftItem{{SKU: "tea", Left: o.Left, Version: o.Version, Total: 9, Edited: 1, Paused: o.Paused}}}, frame)
		return o
	}
	require.Equal(t, []any{false, int64(7)}, []any{offer(idle).Paused, offer(idle).Left})
	require.NoError(t, env.Redis.FlushAll(t.Context()).Err())
	require.True(t, offer(idle).Paused)

	last := newShop(t, beside(t, env, "last"), Options{})
	eventually(t, "it is rebuilt", func() bool { // a star's stock is loaded for a moment before that
		o := offer(last.Sale)
		return !o.Paused && o.Left == 7
	})
	require.NoError(t, last.CloseRoom(t.Context(), 1))
	require.False(t, offer(last.Sale).Paused, "over is not for the moment")
}

// beside returns what another server stands on that shares Redis and SQL with env's.
func beside(t *testing.T, env *infra.Env, name string) *infra.Env {
	t.Helper()
	cfg := env.Config
	cfg.Server = name
	return shoptest.Open(t, cfg, false)
}

// anotherServer returns a sale on a server beside that of sh, which does not run.
func anotherServer(t *testing.T, sh *shop) *Sale {
	t.Helper()
	s, err := New(t.Context(), beside(t, sh.env, "idle"), sh.accounts.Wallet, sh.heard, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.WithoutCancel(t.Context()))) })
	return s
}

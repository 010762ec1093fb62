package script

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A script whose slot moves, at every stage of the move: it runs once a call.
func TestASlotThatMoves(t *testing.T) {
	c := redistest.Cluster(t, 2, 0)
	clean, s := c.Client(), newShop(t)
	w := &watch{}
	rdb := c.Client()
	rdb.AddHook(w)
	keys := s.call("").Keys
	sellNext := func(token string, want int) {
		t.Helper()
		w.errs = nil
		got, err := sellBounded.Run(t.Context(), rdb, s.call(token))
		require.NoError(t, err)
		require.Equal(t, int64(want), got)
		s.require(t, clean, want, want, 0)
	}
	require.NoError(t, clean.Set(t.Context(), keys[3], 0, 0).Err()) // sell would not write it
	sellNext("a", 1)

	// Some keys have moved: TRYAGAIN, until the others have.
	m := c.Migrate(keys[0])
	m.Move(keys[0])
	w.after = func(n int) {
		if n == 2 {
			m.Move(keys[1:]...)
		}
	}
	sellNext("b", 2)
	require.GreaterOrEqual(t, len(w.errs), 3)
	for _, msg := range w.errs[:2] {
		require.Contains(t, msg, "TRYAGAIN")
	}
	// All have moved, but not the slot: go-redis follows ASK, NoRetry or not. The
	// target did not know the script.
	require.Contains(t, w.errs[2], "NOSCRIPT")
	w.after = nil
	a := sellBounded.attempt(t.Context(), s.call("c"), new(flight))
	require.NoError(t, rdb.Process(t.Context(), a))
	require.Equal(t, 2, a.payload.writes, "ASK, then the answer")
	require.Equal(t, int64(3), a.Val())
	s.require(t, clean, 3, 3, 0)
	_, errs := sellBounded.RunMany(t.Context(), rdb, []Call{s.call("d"), s.call("e")})
	require.Equal(t, []error{nil, nil}, errs)
	s.require(t, clean, 5, 5, 0)

	// The slot has moved: MOVED.
	m.Finish()
	a = sellBounded.attempt(t.Context(), s.call("f"), new(flight))
	require.NoError(t, rdb.Process(t.Context(), a))
	require.Equal(t, 2, a.payload.writes, "MOVED, then the answer")
	s.require(t, clean, 6, 6, 0)
	sellNext("g", 7)
}

// In a pipeline of a cluster client, a command keeps the error of its first
// sending although it was sent again and the reply to that was lost: neither a
// redirect nor a refused dial is then proof that nothing ran.
func TestAStaleErrorInAPipelineIsUnknown(t *testing.T) {
	t.Run("redirect", func(t *testing.T) {
		c := redistest.Cluster(t, 2, 0)
		clean, s := c.Client(), newShop(t)
		require.NoError(t, clean.ForEachMaster(t.Context(), loadSell))
		var faults redistest.Faults
		rdb := c.Client(faults.ClusterOptions)
		_, err := sellBounded.Run(t.Context(), rdb, s.call("a"))
		require.NoError(t, err)
		c.Migrate(s.call("").Keys[0]).Finish()

		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Skip: 3}) // the first after three MOVED
		_, errs := sellBounded.RunMany(t.Context(), rdb, []Call{s.call("b"), s.call("c"), s.call("d")})
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
		stale := 0
		for _, err := range errs {
			require.ErrorIs(t, err, ErrUnknown)
			require.NotErrorIs(t, err, ErrUnavailable)
			if _, ok := redis.IsMovedError(err); ok {
				stale++
			}
		}
		require.Equal(t, 2, stale, "go-redis no longer leaves stale errors: %v", errs)
		require.GreaterOrEqual(t, clean.Get(t.Context(), s.call("").Keys[0]).Val(), "2", "they did run")
	})
	t.Run("refused dial", func(t *testing.T) {
		c := redistest.Cluster(t, 1, 0)
		clean, s := c.Client(), newShop(t)
		require.NoError(t, clean.ForEachMaster(t.Context(), loadSell))
		var faults redistest.Faults
		rdb := c.Client(faults.ClusterOptions)
		key := s.call("").Keys[0]
		require.ErrorIs(t, rdb.Get(t.Context(), key).Err(), redis.Nil)
		// With its only connection gone the pipeline must dial.
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha"})
		_, err := sellBounded.Run(t.Context(), rdb, s.call("a"))
		require.ErrorIs(t, err, ErrUnknown)
		faults.Add(redistest.Rule{Do: redistest.RefuseDial})
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		_, errs := sellBounded.RunMany(t.Context(), rdb, []Call{s.call("b"), s.call("c"), s.call("d")})
		require.Equal(t, 1, faults.Fired(redistest.RefuseDial))
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
		for _, err := range errs {
			require.ErrorIs(t, err, ErrUnknown)
			require.NotErrorIs(t, err, ErrUnavailable)
		}
		require.NotEmpty(t, clean.Get(t.Context(), key).Val(), "they did run")
	})
}

func loadSell(ctx context.Context, node *redis.Client) error {
	return node.ScriptLoad(ctx, sell).Err()
}

func TestCrossSlotIsUnavailableAtOnce(t *testing.T) {
	rdb := redistest.Cluster(t, 1, 0).Client()
	w := &watch{}
	rdb.AddHook(w)
	p := redistest.Prefix(t)
	_, err := sellToken.Run(t.Context(), rdb, Call{Keys: []string{p + "a", p + "b", p + "c", p + "d"}, Args: []any{"t", nil}, Resend: 2})
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, errors.Is(err, redis.ErrCrossSlot) || redis.HasErrorPrefix(err, "CROSSSLOT"), "%v", err)
	require.Len(t, w.errs, 1)
}

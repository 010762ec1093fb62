package lock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestRenewsForAsLongAsItIsHeld(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p"})
		var leases []*Lease
		var contexts []context.Context
		for _, name := range []string{"a", "b", "c"} {
			ctx, s, err := l.Lock(t.Context(), name)
			require.NoError(t, err)
			leases, contexts = append(leases, s), append(contexts, ctx)
			time.Sleep(100 * time.Millisecond)
		}
		before := b.Mini.CommandCount()
		time.Sleep(time.Minute)
		require.Less(t, b.Mini.CommandCount()-before, 3*20*6, "a renewal each 3.3 s")
		for i, s := range leases {
			require.NoError(t, contexts[i].Err())
			require.True(t, s.Valid(6*time.Second))
			require.NoError(t, s.Unlock(t.Context()))
		}
		before = b.Mini.CommandCount()
		time.Sleep(time.Minute)
		require.Equal(t, before, b.Mini.CommandCount(), "nothing is renewed that nobody holds")
	})
}

func TestTakenOverAfterTheTTL(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		dead, l := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		_, theirs, err := dead.Lock(t.Context(), "a")
		require.NoError(t, err)
		theirs.term.stop() // as if its process had ended
		start := time.Now()
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.WithinRange(t, time.Now(), start.Add(10*time.Second), start.Add(11*time.Second))
		require.Greater(t, s.Fence(), theirs.Fence())
		require.ErrorIs(t, theirs.Unlock(t.Context()), ErrLost)
		h, err := l.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.True(t, h.Mine, "a release after expiry touches nobody")
		require.NoError(t, s.Unlock(t.Context()))
		require.Zero(t, l.Stats().Rescued, "an expiry sends no message")
	})
}

func TestMaxHold(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p", MaxHold: time.Minute})
		start := time.Now()
		ctx, stuck, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrMaxHold)
		require.Equal(t, time.Minute, time.Since(start))
		require.False(t, stuck.Valid(0))
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.Less(t, time.Since(start), 71*time.Second)
		require.NoError(t, s.Unlock(t.Context()))
		require.ErrorIs(t, stuck.Unlock(t.Context()), ErrLost)
		require.EqualValues(t, 1, l.Stats().MaxHeld)

		err = l.Do(t.Context(), "b", func(ctx context.Context, _ *Lease) error {
			<-ctx.Done()
			return nil
		})
		require.ErrorIs(t, err, ErrMaxHold)
		require.NotErrorIs(t, err, ErrLost, "it was given back in time")
	})
}

func TestDoTellsOfALostLease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p"})
		err := l.Do(t.Context(), "a", func(ctx context.Context, s *Lease) error {
			require.NoError(t, l.ForceUnlock(t.Context(), "a"))
			<-ctx.Done()
			return nil
		})
		require.ErrorIs(t, err, ErrLost)
		// Also if nobody noticed before the end.
		err = l.Do(t.Context(), "a", func(context.Context, *Lease) error {
			return l.ForceUnlock(t.Context(), "a")
		})
		require.ErrorIs(t, err, ErrLost)
		err = l.Do(t.Context(), "a", func(_ context.Context, s *Lease) error { return s.Unlock(t.Context()) })
		require.NoError(t, err)
		require.PanicsWithValue(t, "oh", func() {
			_ = l.Do(t.Context(), "a", func(context.Context, *Lease) error { panic("oh") })
		})
		require.NoError(t, l.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil }), "the panic gave it back")
	})
}

// A waiter is woken by the release, not by a timer.
func TestWokenByTheRelease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a, z := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		_, s, err := a.Lock(t.Context(), "a")
		require.NoError(t, err)
		got := make(chan time.Time)
		go func() {
			_, s, err := z.Lock(t.Context(), "a")
			require.NoError(t, err) //nolint:testifylint // the bubble ends with it
			got <- time.Now()
			require.NoError(t, s.Unlock(t.Context())) //nolint:testifylint // the bubble ends with it
		}()
		synctest.Wait()
		time.Sleep(time.Minute + 123*time.Millisecond)
		released := time.Now()
		require.NoError(t, s.Unlock(t.Context()))
		require.Equal(t, released, <-got)
		require.Zero(t, z.Stats().Rescued)
	})
}

// The control of Stats.Rescued: a message that is lost is counted.
func TestALostMessageIsCounted(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a, z := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		_, s, err := a.Lock(t.Context(), "a")
		require.NoError(t, err)
		got := make(chan *Lease)
		go func() {
			_, s, _ := z.Lock(t.Context(), "a")
			got <- s
		}()
		synctest.Wait()
		time.Sleep(time.Minute + 123*time.Millisecond)
		s.home.(*gate).keys.channel = "nowhere"
		require.NoError(t, s.Unlock(t.Context()))
		next := <-got
		require.EqualValues(t, 1, z.Stats().Rescued)
		require.NoError(t, next.Unlock(t.Context()))
	})
}

func TestACancelledWaiterPassesOn(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p"})
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		var order []string
		done := make(chan error)
		for _, who := range []string{"first", "second", "third"} {
			c := ctx
			if who != "second" {
				c = t.Context()
			}
			go func() {
				done <- l.Do(c, "a", func(context.Context, *Lease) error {
					order = append(order, who)
					return nil
				})
			}()
			synctest.Wait()
		}
		cancel()
		require.ErrorIs(t, <-done, context.Canceled, "at once")
		require.NoError(t, s.Unlock(t.Context()))
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Equal(t, []string{"first", "third"}, order)
	})
}

// A waiter that is served in the moment in which its ctx ends.
func TestACancelledGrantPassesOn(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p"})
		for range 200 {
			_, s, err := l.Lock(t.Context(), "a")
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
			ctx, cancel := context.WithCancel(t.Context())
			gone, next := make(chan error), make(chan error)
			nothing := func(context.Context, *Lease) error { return nil }
			go func() { gone <- l.Do(ctx, "a", nothing) }()
			synctest.Wait()
			go func() { next <- l.Do(t.Context(), "a", nothing) }()
			synctest.Wait()
			go cancel()
			require.NoError(t, s.Unlock(t.Context()))
			if err := <-gone; err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			require.NoError(t, <-next)
		}
		require.Zero(t, l.Stats().Rescued)
	})
}

package lock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/bus"
	"github.com/spillway-go/spillway/internal/redistest"
)

// cycle takes the lock and gives it back a millisecond later.
func cycle(t *testing.T, l *Locker) int64 {
	t.Helper()
	_, s, err := l.Lock(t.Context(), "a")
	require.NoError(t, err)
	time.Sleep(time.Millisecond)
	require.NoError(t, s.Unlock(t.Context()))
	return s.Fence()
}

func TestLinger(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		const linger = time.Second
		l, f := faulty(t, b, Options{Prefix: "p", Linger: linger})
		other := open(t, b.Client(), Options{Prefix: "p"})
		holds := func() bool {
			h, err := other.Holder(t.Context(), "a")
			require.NoError(t, err)
			return h.Held
		}
		f.Add(redistest.Rule{Do: redistest.CutBefore, Match: "subscribe", Times: -1}) // or it might listen before it asks
		first := cycle(t, l)
		require.False(t, holds(), "it did not listen before it asked")
		f.Clear()
		time.Sleep(10 * time.Second) // it connects again
		synctest.Wait()
		second := cycle(t, l)
		require.True(t, holds())
		third := cycle(t, l)
		require.Greater(t, second, first)
		require.Greater(t, third, second)
		require.EqualValues(t, 2, l.Stats().Acquired, "the third cost no round trip")
		time.Sleep(linger + time.Millisecond)
		synctest.Wait()
		require.False(t, holds())

		// Another process that waits ends it at once.
		cycle(t, l)
		require.True(t, holds())
		now := time.Now()
		require.Greater(t, cycle(t, other), third)
		require.Less(t, time.Since(now), 2*time.Millisecond)
		require.Zero(t, other.Stats().Rescued)

		// One that only tries gets nothing, and ends it all the same.
		cycle(t, l)
		require.True(t, holds())
		_, _, err := other.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired)
		synctest.Wait()
		require.False(t, holds())

		// One that asks while the lock is in use is not made to wait for the lingering.
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		got := make(chan time.Time)
		go func() {
			_, s, _ := other.Lock(t.Context(), "a")
			got <- time.Now()
			_ = s.Unlock(t.Context())
		}()
		time.Sleep(5 * time.Millisecond)
		now = time.Now()
		require.NoError(t, s.Unlock(t.Context()))
		require.Equal(t, now, <-got)

		// Close ends it.
		cycle(t, l)
		synctest.Wait()
		cycle(t, l)
		require.True(t, holds())
		require.NoError(t, l.Close(t.Context()))
		require.False(t, holds())
	})
}

// A request that comes between the grant and its answer is not forgotten.
func TestLingerIsWantedBeforeItIsGranted(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p", Linger: 3 * time.Second})
		other := open(t, b.Client(), Options{Prefix: "p"})
		cycle(t, l)
		cycle(t, other)
		synctest.Wait()
		f.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: 5 * time.Millisecond})
		done := make(chan error, 1)
		go func() {
			_, s, err := l.Lock(t.Context(), "a")
			if err == nil {
				time.Sleep(time.Millisecond)
				err = s.Unlock(t.Context())
			}
			done <- err
		}()
		time.Sleep(time.Millisecond)
		start := time.Now()
		cycle(t, other)
		require.Less(t, time.Since(start), 100*time.Millisecond)
		require.Equal(t, 1, f.Fired(redistest.DelayReply))
		require.NoError(t, <-done)
		require.Zero(t, other.Stats().Rescued)
	})
}

// A subscription that has a gap may have missed a request: no lingering over it.
func TestLingerEndsWithAGap(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Prefix: "p", Linger: 3 * time.Second})
		cycle(t, l)
		synctest.Wait()
		cycle(t, l)
		l.mu.Lock()
		g := l.gates["a"]
		l.mu.Unlock()
		require.NotNil(t, g)
		require.Equal(t, lingering, g.phase)
		g.hear(bus.Event{Gap: true})
		synctest.Wait()
		h, err := l.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.False(t, h.Held)
	})
}

// The price that the option's comment names.
func TestALingererThatDiesCostsATTL(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		f := &redistest.Faults{}
		l, other := open(t, b.Client(f.Options), Options{Prefix: "p", Linger: time.Second}), open(t, b.Client(), Options{Prefix: "p"})
		cycle(t, l)
		synctest.Wait()
		cycle(t, l)
		f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, s, err := other.Lock(ctx, "a")
		require.NoError(t, err)
		require.Greater(t, time.Since(start), 9*time.Second)
		require.Less(t, time.Since(start), 11*time.Second)
		require.NoError(t, s.Unlock(t.Context()))
		f.Clear()
		time.Sleep(10 * time.Second)
	})
}

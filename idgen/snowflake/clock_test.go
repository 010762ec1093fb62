package snowflake

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// setClock sets the process's clock wrong, by so many µs, and lets it be seen as a
// renewal would.
func (w *Worker) setClock(us int64) {
	w.skew.Store(us)
	w.readClock()
}

// virtual is Classic for bubbles, in which it is the year 2000.
var virtual = func() Layout {
	l := Classic
	l.Epoch = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	return l
}()

// The future is borrowed from within bounds; then the clock is waited for.
func TestBorrow(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		s := flakeOf(t, virtual, leaseOf(t, b.Client(), Options{}))
		time.Sleep(time.Minute) // above the floor
		began, n := time.Now(), 0
		for ; ; n++ {
			if _, ok := s.TryNext(); !ok {
				break
			}
		}
		require.Equal(t, 101*4096, n, "this millisecond and 100 to come")
		next(t, s)
		require.Equal(t, time.Millisecond, time.Since(began))
		require.EqualValues(t, 1, s.Stats().Waits)
	})
}

// A clock that was set back is waited out, or refused if ctx has no time for it; a
// little is borrowed.
func TestClockSetBack(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		w := leaseOf(t, b.Client(), Options{})
		s := flakeOf(t, virtual, w)
		time.Sleep(time.Minute)
		last := next(t, s)
		w.setClock(-50_000)
		id, ok := s.TryNext()
		require.True(t, ok, "50 ms are borrowed")
		require.Greater(t, id, last)

		w.setClock(-5_000_000)
		_, ok = s.TryNext()
		require.False(t, ok)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := s.Next(ctx)
		require.ErrorIs(t, err, ErrClock)
		require.Zero(t, time.Since(began), "refused at once")

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = s.Next(ctx)
		require.ErrorIs(t, err, ErrClock)
		require.ErrorIs(t, err, context.Canceled)

		require.Greater(t, next(t, s), id)
		require.InDelta(t, 4.9, time.Since(began).Seconds(), 0.01)

		// Ahead by less than the reserve: as if time had passed. By more: a renewal.
		w.setClock(5_000_000)
		_, ok = s.TryNext()
		require.True(t, ok)
		w.setClock(50_000_000)
		renewals := s.Stats().Renewals
		began = time.Now()
		id = next(t, s)
		require.Equal(t, renewals+1, s.Stats().Renewals)
		require.LessOrEqual(t, time.Since(began), pause)
		// And by more than a minute: not until it is set right.
		w.setClock(120_000_000)
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = s.Next(ctx)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, ErrClock)
		require.Less(t, s.Stats().Failures, uint64(150), "renewals do not spin")
		w.setClock(0)
		require.Greater(t, next(t, s), id)
	})
}

func TestWrongClockGetsNoLease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		b.Mini.SetTime(time.Now().Add(-2 * time.Minute))
		_, err := LeaseWorker(t.Context(), b.Client(), Options{})
		require.ErrorIs(t, err, ErrClock)
		require.ErrorContains(t, err, "2m0s")
	})
}

// An epoch that ends is reported a year before, and its last id is followed by none.
func TestEndOfEpoch(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var out strings.Builder
		w := leaseOf(t, b.Client(), Options{TTL: time.Hour, Logger: slog.New(slog.NewTextHandler(&out, nil))}) // is renewed seldom
		layout := Layout{Epoch: time.Now(), Unit: time.Second, TimeBits: 16, WorkerBits: 6, SequenceBits: 2}
		s := flakeOf(t, layout, w)
		require.Contains(t, out.String(), "ends within a year")
		require.True(t, s.Stats().EndsSoon)
		require.Equal(t, time.Now().Add(65536*time.Second).UTC(), s.Stats().End)
		time.Sleep(65534 * time.Second)
		var err error
		last := int64(0)
		for n := 0; err == nil; n++ {
			require.Less(t, n, 10)
			var id int64
			if id, err = s.Next(t.Context()); err == nil {
				require.Greater(t, id, last)
				last = id
			}
		}
		require.ErrorIs(t, err, ErrExhausted)
		require.Less(t, last, int64(1<<24))
	})
}

package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Calls that arrive while a round trip is under way are decided in the order in which
// they came: neither are large ones put last, nor small ones.
func TestFirstComeFirstServed(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		l := open(t, b.Client(faults.Options), Options{}, PerHour(20))
		_, err := l.Peek(t.Context(), "k") // the script is known from here on
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second})

		// In order: the flight; then 1, 15, 1, 1, 15, 1, 1, 1: the second 15 does not fit.
		calls := []struct {
			n  int64
			ok bool
		}{{0, false}, {1, true}, {15, true}, {1, true}, {1, true}, {15, false}, {1, true}, {1, true}, {1, false}}
		var wg sync.WaitGroup
		var granted [9]bool
		for i, c := range calls {
			wg.Go(func() {
				r, err := l.AllowN(context.WithoutCancel(t.Context()), "k", c.n)
				granted[i] = err == nil && r.OK()
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, c := range calls {
			require.Equal(t, c.ok, granted[i], "call %d for %d units", i, c.n)
		}
		require.Equal(t, uint64(3), l.Stats().Batches)
	})
}

// Calls for different keys share a round trip, also those of one key among them.
func TestKeysShareRoundTrips(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options)
		l := open(t, rdb, Options{}, PerHour(2))
		_, err := l.Peek(t.Context(), "k")
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second, Times: serverLanes})
		var trips redistest.Trips
		rdb.AddHook(&trips)
		var wg sync.WaitGroup
		var granted [100]atomic.Int64
		for i := range 400 { // the first of each lane flies alone
			wg.Go(func() {
				r, err := l.Allow(context.WithoutCancel(t.Context()), fmt.Sprint(i%100))
				if err == nil {
					granted[i%100].Add(r.Granted)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, int64(2*serverLanes), trips.N.Load())
		for i := range granted {
			require.Equal(t, int64(2), granted[i].Load(), "key %d", i)
		}
	})
}

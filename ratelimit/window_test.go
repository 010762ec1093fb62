package ratelimit

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// mostIn is the most that is granted in any window of a length.
func mostIn(grants []grant, us int64) (most int64) {
	first, sum := 0, int64(0)
	for _, g := range grants {
		sum += g.units
		for ; grants[first].at+us <= g.at; first++ {
			sum -= grants[first].units
		}
		most = max(most, sum)
	}
	return most
}

// What the algorithms promise for every window, under random load and under callers who
// take all there is; and the worst that they say of themselves really happens.
func TestBoundsOfAlgorithms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worst := map[Algorithm]int64{}
		for range 100 {
			for a := GCRA; a <= SlidingLog; a++ {
				limit := Limit{Rate: 1 + rand.Int64N(20), Period: time.Second, Algorithm: a}
				limit.Burst = limit.Rate
				l, err := NewLocal([]Limit{limit})
				require.NoError(t, err)
				time.Sleep(rand.N(time.Second))
				var grants []grant
				for end := l.local.now() + 20_000_000; l.local.now() < end; {
					r, err := l.AllowUpTo(t.Context(), "k", 1+rand.Int64N(limit.Rate))
					require.NoError(t, err)
					if r.OK() {
						grants = append(grants, grant{l.local.now(), r.Granted})
					}
					switch rand.IntN(3) {
					case 0:
						time.Sleep(r.RetryAfter)
					case 1:
						time.Sleep(rand.N(time.Second))
					}
				}
				most := mostIn(grants, 1_000_000)
				worst[a] = max(worst[a], 100*most/limit.Rate)
				switch a {
				case GCRA, SlidingWindow:
					requireBound(t, limit, grants, 0)
				case FixedWindow:
					require.LessOrEqual(t, most, 2*limit.Rate)
					requireBound(t, limit.WithBurst(2*limit.Rate), grants, 0)
				case SlidingLog:
					require.LessOrEqual(t, most, limit.Rate)
				}
			}
		}
		t.Logf("most in one period, in %% of the rate: %v", worst)
		require.Equal(t, int64(200), worst[FixedWindow])
		require.Greater(t, worst[SlidingWindow], int64(100))
		require.Equal(t, int64(100), worst[SlidingLog])
	})
}

// The edge of two windows: twice the rate at once from FixedWindow, once from the others.
func TestEdgeOfWindows(t *testing.T) {
	for a, want := range map[Algorithm]int64{FixedWindow: 10, SlidingWindow: 5, SlidingLog: 5} {
		synctest.Test(t, func(t *testing.T) {
			l, err := NewLocal([]Limit{{Rate: 5, Period: time.Second, Burst: 5, Algorithm: a}})
			require.NoError(t, err)
			time.Sleep(time.Second - time.Microsecond)
			before, err := l.AllowUpTo(t.Context(), "k", 100)
			require.NoError(t, err)
			time.Sleep(time.Microsecond)
			after, err := l.AllowUpTo(t.Context(), "k", 100)
			require.NoError(t, err)
			require.Equal(t, want, before.Granted+after.Granted, "algorithm %d", a)
		})
	}
}

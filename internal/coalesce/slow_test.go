package coalesce

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAStuckFlightIsPassedThoughNobodyArrivesAnyMore(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		stuck := launch(t.Context(), g, "l", "", "slow 10s", 1)
		a := launch(t.Context(), g, "l", "", "a", 1)
		b := launch(t.Context(), g, "l", "", "b", 1)
		other := launch(t.Context(), g, "m", "", "other", 1)
		ok(t, other, "other", ms)
		ok(t, a, "a", slowFloor+ms)
		ok(t, b, "b", slowFloor+ms)
		require.Equal(t, uint64(1), g.Stats().Beside)
		// Later callers find it slow already, and their own flight is not.
		for i := range 3 {
			ok(t, launch(t.Context(), g, "l", "", fmt.Sprint(i), 1), fmt.Sprint(i), ms)
		}
		first := launch(t.Context(), g, "l", "", "first", 1)
		second := launch(t.Context(), g, "l", "", "second", 1)
		ok(t, first, "first", ms)
		ok(t, second, "second", 2*ms)
		synctest.Wait()
		ok(t, launch(t.Context(), g, "l", "", "third", 1), "third", ms)
		ok(t, stuck, "slow 10s", 10*time.Second+ms)
		require.Equal(t, 2, s.most)
	})
}

func TestAtMostFourFlightsAndOnceTheyLandOneAgain(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		var chs []<-chan answer
		for range 4 {
			chs = append(chs, launch(t.Context(), g, "l", "", "slow 1s", 1))
		}
		for range 20 {
			chs = append(chs, launch(t.Context(), g, "l", "", "quick", 1))
		}
		for i, ch := range chs[:4] {
			ok(t, ch, "slow 1s", time.Second+ms+time.Duration(i)*slowFloor)
		}
		for i, ch := range chs[4:] {
			ok(t, ch, "quick", time.Second+time.Duration(i+2)*ms) // one at a time
		}
		require.Equal(t, 4, s.most)
		require.Equal(t, []time.Duration{0, 50 * ms, 100 * ms, 150 * ms}, s.at[:4])
	})
}

func TestWhoWaitsIsWatchedOverWhenASlowFlightLandsBesideAStuckOne(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		launch(t.Context(), g, "l", "", "slow 60ms", 1)
		stuck := launch(t.Context(), g, "l", "", "slow 10s", 1) // flies at 50 ms
		a := launch(t.Context(), g, "l", "", "a", 1)
		ok(t, a, "a", slowFloor+slowFactor*slowFloor+ms) // the one that landed taught the lane patience
		ok(t, stuck, "slow 10s", 10*time.Second+51*ms)
	})
}

func TestAFlightAbandonedBeforeItHasAContextGetsAnEndedOne(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		f := newFlight(g)
		f.abandon()
		f.renew(t.Context())
		require.Error(t, f.ctx.Err())
	})
}

func TestTheTimerFollowsTheFlightThatIsInTheAirWhenItFires(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		launch(t.Context(), g, "l", "", "slow 39ms", 1)
		stuck := launch(t.Context(), g, "l", "", "slow 10s", 1) // sets the timer to 50 ms, flies at 40
		a := launch(t.Context(), g, "l", "", "a", 1)
		limit := 4 * 40 * ms
		ok(t, a, "a", 40*ms+limit+ms)
		require.ErrorIs(t, g.Close(within(t, ms)), context.DeadlineExceeded)
		require.Equal(t, context.Canceled, (<-stuck).err)
		require.Equal(t, []time.Duration{0, 40 * ms, 40*ms + limit}, s.at)
	})
}

func TestWhatIsSlowIsMeasuredByTheLanesOwnFlights(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		l := g.enter("l")
		l.mu.Unlock()
		for range 40 {
			ok(t, launch(t.Context(), g, "l", "", "slow 99ms", 1), "slow 99ms", 100*ms)
		}
		require.InDelta(t, 400*ms, l.limit(), float64(10*ms))
		// Flights of the usual length do not overlap.
		a := launch(t.Context(), g, "l", "", "slow 99ms", 1)
		b := launch(t.Context(), g, "l", "", "slow 99ms", 1)
		ok(t, a, "slow 99ms", 100*ms)
		ok(t, b, "slow 99ms", 200*ms)
		require.Equal(t, 1, s.most)
		// One that was stuck does not postpone the help for the next.
		before := l.limit()
		ok(t, launch(t.Context(), g, "l", "", "slow 1h", 1), "slow 1h", time.Hour+ms)
		require.Less(t, l.limit(), before*3/2)
	})
}

func TestABusyLanesTimerFiresOncePerLimitAndAnIdleLaneHasNone(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		stop := within(t, time.Second)
		for range 8 {
			go func() {
				for stop.Err() == nil {
					_, _ = g.Do(t.Context(), "l", "", "x", 1)
				}
			}()
		}
		l := g.enter("l")
		l.mu.Unlock()
		var fires int
		go func() {
			for armed := false; stop.Err() == nil; time.Sleep(ms / 2) {
				l.mu.Lock()
				if l.armed && !armed {
					fires++
				}
				armed = l.armed
				l.mu.Unlock()
			}
		}()
		<-stop.Done()
		time.Sleep(2 * slowFloor)
		synctest.Wait()
		require.False(t, l.armed)
		require.LessOrEqual(t, fires, 20)
		require.Greater(t, s.at[len(s.at)-1], 900*ms)
		require.Equal(t, 1, s.most)
	})
}

func TestIdleLanesAreForgotten(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		stuck := launch(t.Context(), g, "stuck", "", "slow 1h", 1)
		for i := range 10 * minSweep {
			_, err := g.Do(t.Context(), fmt.Sprint(i), "id", "x", 1)
			require.NoError(t, err)
			require.LessOrEqual(t, len(g.lanes), minSweep)
		}
		require.Contains(t, g.lanes, "stuck")
		require.NoError(t, (<-stuck).err)
	})
}

func TestACallerWhoseLaneIsForgottenUnderItLooksAgain(t *testing.T) {
	g := New(func(_ context.Context, _ string, batch []int) ([]int, error) { return batch, nil }, Options{})
	swept := g.enter("l")
	var caller sync.WaitGroup
	caller.Go(func() {
		if _, err := g.Do(t.Context(), "l", "", 1, 1); err != nil {
			t.Error(err)
		}
	})
	// It looked the lane up and waits for the lock.
	for stacks := make([]byte, 1<<20); !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "[sync.Mutex.Lock"); {
		runtime.Gosched()
	}
	g.mu.Lock()
	delete(g.lanes, "l")
	g.mu.Unlock()
	swept.dead = true
	swept.mu.Unlock()
	caller.Wait()
	require.Contains(t, g.lanes, "l")
	require.NotSame(t, swept, g.lanes["l"])
	require.NoError(t, g.Close(t.Context()))
}

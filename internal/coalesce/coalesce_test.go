package coalesce

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server answers every item with itself and remembers the batches. An item
// says what becomes of its batch: "slow 70ms", "fail", "panic", "goexit",
// "short". Every flight takes 1 ms more than that.
type server struct {
	mu      sync.Mutex
	batches [][]string
	at      []time.Duration // start of each, from the first
	began   time.Time
	air     int
	most    int // flights in the air at once
}

var errRefused = errors.New("refused")

func (s *server) flush(ctx context.Context, lane string, batch []string) ([]string, error) {
	s.mu.Lock()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.batches = append(s.batches, append([]string(nil), batch...))
	s.at = append(s.at, time.Since(s.began))
	s.air++
	s.most = max(s.most, s.air)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.air--
	}()
	took := time.Millisecond
	for _, q := range batch {
		if d, ok := strings.CutPrefix(q, "slow "); ok {
			d, err := time.ParseDuration(d)
			if err != nil {
				return nil, err
			}
			took += d
		}
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, q := range batch {
		switch q {
		case "fail":
			return nil, errRefused
		case "panic":
			panic(errRefused)
		case "goexit":
			runtime.Goexit()
		case "short":
			return batch[1:], nil
		}
	}
	return batch, nil
}

// An answer is what one Do returned, and when, from its start.
type answer struct {
	r    string
	err  error
	took time.Duration
}

// launch calls Do in a goroutine of its own and returns when it waits, so that
// the order of arrival is the order of launches.
func launch(ctx context.Context, g *Group[string, string], lane, id, q string, size int) <-chan answer {
	ch := make(chan answer, 1)
	began := time.Now()
	go func() {
		r, err := g.Do(ctx, lane, id, q, size)
		ch <- answer{r, err, time.Since(began)}
	}()
	synctest.Wait()
	return ch
}

func bubble(t *testing.T, opts Options, f func(t *testing.T, s *server, g *Group[string, string])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		g := New(s.flush, opts)
		f(t, s, g)
		require.NoError(t, g.Close(t.Context()))
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, ch <-chan answer, r string, took time.Duration) {
	t.Helper()
	a := <-ch
	require.NoError(t, a.err)
	require.Equal(t, r, a.r)
	require.Equal(t, took, a.took, "time until the answer")
}

const ms = time.Millisecond

func TestLoneCallerWaitsForNothingAndSetsNoTimer(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		for range 100 {
			ok(t, launch(t.Context(), g, "l", "a", "a", 1), "a", ms)
		}
		require.Nil(t, g.lanes["l"].timer, "a timer was set")
		require.Equal(t, Stats{Flights: 100, Items: 100}, g.Stats())
	})
}

func TestCallersGatherBehindAFlightInOrderOfArrival(t *testing.T) {
	bubble(t, Options{MaxItems: 3}, func(t *testing.T, s *server, g *Group[string, string]) {
		var chs []<-chan answer
		for _, q := range []string{"a", "b", "c", "d", "e"} {
			chs = append(chs, launch(t.Context(), g, "l", "", q, 1))
		}
		ok(t, chs[0], "a", ms)
		for i, q := range []string{"b", "c", "d"} {
			ok(t, chs[i+1], q, 2*ms)
		}
		ok(t, chs[4], "e", 3*ms)
		require.Equal(t, [][]string{{"a"}, {"b", "c", "d"}, {"e"}}, s.batches)
		require.Equal(t, 1, s.most)
	})
}

func TestBytesLimitAFlightAndALargerItemGoesAlone(t *testing.T) {
	bubble(t, Options{MaxBytes: 10}, func(t *testing.T, s *server, g *Group[string, string]) {
		for _, item := range []struct {
			q    string
			size int
		}{{"first", 1}, {"a", 4}, {"b", 6}, {"c", 1}, {"huge", 11}, {"d", 10}} {
			launch(t.Context(), g, "l", "", item.q, item.size)
		}
		require.NoError(t, g.Close(t.Context()))
		require.Equal(t, [][]string{{"first"}, {"a", "b"}, {"c"}, {"huge"}, {"d"}}, s.batches)
	})
}

func TestFullQueueRefusesAtOnceButStillJoins(t *testing.T) {
	bubble(t, Options{MaxQueue: 2}, func(t *testing.T, s *server, g *Group[string, string]) {
		launch(t.Context(), g, "l", "a", "a", 1)
		launch(t.Context(), g, "l", "b", "b", 1)
		c := launch(t.Context(), g, "l", "c", "c", 1)
		a := <-launch(t.Context(), g, "l", "d", "d", 1)
		require.ErrorIs(t, a.err, ErrOverloaded)
		require.ErrorIs(t, a.err, ErrUnsent)
		require.Zero(t, a.took)
		ok(t, launch(t.Context(), g, "l", "b", "b", 1), "b", 2*ms)
		ok(t, launch(t.Context(), g, "other", "d", "d", 1), "d", ms)
		ok(t, c, "c", 2*ms)
		require.Equal(t, Stats{Flights: 3, Items: 4, Joined: 1, Overloaded: 1}, g.Stats())
	})
}

func TestAnIDThatWaitsIsJoinedAndOneThatFliesIsSentAnew(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		a1 := launch(t.Context(), g, "l", "a", "a1", 1)
		b1 := launch(t.Context(), g, "l", "b", "b1", 1)
		a2 := launch(t.Context(), g, "l", "a", "a2", 1)
		a3 := launch(t.Context(), g, "l", "a", "a3", 1)
		b2 := launch(t.Context(), g, "l", "b", "b2", 1)
		elsewhere := launch(t.Context(), g, "m", "a", "a4", 1)
		ok(t, a1, "a1", ms)
		ok(t, elsewhere, "a4", ms)
		synctest.Wait() // b and a fly
		a5 := launch(t.Context(), g, "l", "a", "a5", 1)
		ok(t, b1, "b1", 2*ms)
		ok(t, b2, "b1", 2*ms)
		ok(t, a2, "a2", 2*ms)
		ok(t, a3, "a2", 2*ms)
		ok(t, a5, "a5", 2*ms)
		require.Equal(t, [][]string{{"a1"}, {"a4"}, {"b1", "a2"}, {"a5"}}, s.batches)
		require.Empty(t, g.lanes["l"].ids)
	})
}

func TestACallerLeavesAtOnceAndKnowsWhetherItsItemWasSent(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := g.Do(ended, "l", "", "never", 1)
		require.ErrorIs(t, err, ErrUnsent)
		require.ErrorIs(t, err, context.Canceled)

		flying := launch(within(t, 3*ms), g, "l", "", "slow 9ms", 1)
		queued := launch(within(t, 2*ms), g, "l", "q", "dropped", 1)
		stays := launch(t.Context(), g, "l", "", "stays", 1)
		a := <-flying
		require.ErrorIs(t, a.err, ErrUnknown)
		require.ErrorIs(t, a.err, context.DeadlineExceeded)
		require.Equal(t, 3*ms, a.took)
		a = <-queued
		require.ErrorIs(t, a.err, ErrUnsent)
		require.NotErrorIs(t, a.err, ErrUnknown)
		require.Equal(t, 2*ms, a.took)
		ok(t, stays, "stays", 4*ms) // nobody waited for the flight any more
		require.Equal(t, [][]string{{"slow 9ms"}, {"stays"}}, s.batches)
		require.Equal(t, uint64(1), g.Stats().Dropped)
	})
}

func TestAnItemStaysForThoseWhoJoinedAndIsDroppedWithTheLast(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		launch(t.Context(), g, "l", "", "slow 9ms", 1)
		lead := launch(within(t, 2*ms), g, "l", "a", "a", 1)
		joined := launch(t.Context(), g, "l", "a", "", 1)
		lead2 := launch(within(t, 2*ms), g, "l", "b", "b", 1)
		joined2 := launch(within(t, 3*ms), g, "l", "b", "", 1)
		require.ErrorIs(t, (<-lead).err, ErrUnknown) // it will be sent for the other
		require.ErrorIs(t, (<-lead2).err, ErrUnknown)
		require.ErrorIs(t, (<-joined2).err, ErrUnsent)
		b := launch(t.Context(), g, "l", "b", "b anew", 1)
		ok(t, joined, "a", 11*ms)
		ok(t, b, "b anew", 8*ms)
		require.Equal(t, [][]string{{"slow 9ms"}, {"a", "b anew"}}, s.batches)
	})
}

func TestAFlightEndsWhenItsLastCallerLeft(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		launch(within(t, 2*ms), g, "l", "", "slow 1h", 1)
		next := launch(t.Context(), g, "l", "", "next", 1)
		ok(t, next, "next", 3*ms) // with a context that is not cancelled
		require.Equal(t, []time.Duration{0, 2 * ms}, s.at)
	})
}

func TestAFailureReachesExactlyItsBatch(t *testing.T) {
	for how, check := range map[string]func(t *testing.T, err error){
		"fail": func(t *testing.T, err error) { require.Equal(t, errRefused, err) },
		"panic": func(t *testing.T, err error) {
			var p *panicError
			require.ErrorAs(t, err, &p)
			require.Equal(t, errRefused, p.Value)
			require.Contains(t, string(p.Stack), "coalesce_test.go")
			require.ErrorIs(t, err, errRefused)
			require.ErrorIs(t, err, ErrUnknown)
		},
		"goexit": func(t *testing.T, err error) { require.ErrorIs(t, err, ErrUnknown) },
		"short":  func(t *testing.T, err error) { require.ErrorIs(t, err, ErrUnknown) },
	} {
		t.Run(how, func(t *testing.T) {
			bubble(t, Options{MaxItems: 2}, func(t *testing.T, s *server, g *Group[string, string]) {
				first := launch(t.Context(), g, "l", "", "first", 1)
				bad := launch(t.Context(), g, "l", "x", how, 1)
				beside := launch(t.Context(), g, "l", "", "beside", 1)
				joined := launch(t.Context(), g, "l", "x", how, 1)
				after := launch(t.Context(), g, "l", "", "after", 1)
				again := launch(t.Context(), g, "l", "", how, 1)
				last := launch(t.Context(), g, "l", "", "last", 1)
				ok(t, first, "first", ms)
				for _, ch := range []<-chan answer{bad, beside, joined} {
					a := <-ch
					require.Equal(t, 2*ms, a.took)
					check(t, a.err)
				}
				a := <-after
				require.Equal(t, 3*ms, a.took)
				check(t, a.err)
				check(t, (<-again).err)
				ok(t, last, "last", 4*ms)
			})
		})
	}
}

func TestCloseDrainsAndRefuses(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		var chs []<-chan answer
		for i := range 5 {
			chs = append(chs, launch(t.Context(), g, "l", "", fmt.Sprint(i), 1))
		}
		go func() {
			time.Sleep(ms + ms/2)
			_, err := g.Do(t.Context(), "l", "", "late", 1)
			assert.ErrorIs(t, err, ErrClosed)
			assert.ErrorIs(t, err, ErrUnsent)
		}()
		require.NoError(t, g.Close(t.Context()))
		for i, ch := range chs {
			ok(t, ch, fmt.Sprint(i), time.Duration(i+1)*ms)
		}
		_, err := g.Do(t.Context(), "other", "", "late", 1)
		require.ErrorIs(t, err, ErrClosed)
		require.Len(t, s.batches, 5)
	})
}

func TestCloseDrainsPastAFlushThatEndedItsGoroutine(t *testing.T) {
	bubble(t, Options{MaxItems: 1}, func(t *testing.T, s *server, g *Group[string, string]) {
		bad := launch(t.Context(), g, "l", "", "goexit", 1)
		worse := launch(t.Context(), g, "l", "", "goexit", 1)
		good := launch(t.Context(), g, "l", "", "good", 1)
		require.NoError(t, g.Close(t.Context()))
		require.ErrorIs(t, (<-bad).err, ErrUnknown)
		require.ErrorIs(t, (<-worse).err, ErrUnknown)
		ok(t, good, "good", 3*ms)
	})
}

func TestCloseOutOfTimeStopsFlightsAndAnswersTheQueue(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *server, g *Group[string, string]) {
		flying := launch(t.Context(), g, "l", "", "slow 1h", 1)
		waits := launch(t.Context(), g, "l", "a", "waits", 1)
		joined := launch(t.Context(), g, "l", "a", "waits", 1)
		began := time.Now()
		err := g.Close(within(t, 5*time.Second))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, context.Canceled, (<-flying).err, "flush's own error")
		require.ErrorIs(t, (<-waits).err, ErrClosed)
		require.ErrorIs(t, (<-joined).err, ErrClosed)
		require.Equal(t, [][]string{{"slow 1h"}}, s.batches)
	})
}

package idgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func segment(t *testing.T, store Store, opts Options) *Segment {
	t.Helper()
	s, err := NewSegment(store, "order", opts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close(context.Background())) })
	return s
}

// take calls Next n times.
func take(t *testing.T, s *Segment, n int) []int64 {
	t.Helper()
	ids := make([]int64, n)
	for i := range ids {
		id, err := s.Next(t.Context())
		require.NoError(t, err)
		ids[i] = id
	}
	return ids
}

func TestSegmentCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := segment(t, &memory{}, Options{MinStep: 10})
		_, ok := s.TryNext()
		require.False(t, ok)
		synctest.Wait()
		id, ok := s.TryNext()
		require.True(t, ok)
		require.Equal(t, int64(1), id)
		require.Equal(t, []int64{2, 3}, take(t, s, 2))
		ids, err := s.NextN(t.Context(), 100)
		require.NoError(t, err)
		for i, id := range ids {
			require.Equal(t, int64(4+i), id)
		}
		_, err = s.NextN(t.Context(), 0)
		require.ErrorIs(t, err, ErrInvalid)
		require.NoError(t, s.Close(t.Context()))
		require.NoError(t, s.Close(t.Context()))
		_, err = s.Next(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		_, err = s.NextN(t.Context(), 3)
		require.ErrorIs(t, err, ErrClosed)
		_, ok = s.TryNext()
		require.False(t, ok)
		require.Zero(t, s.Runway())
	})
}

// Within a process an id that is asked for after another was returned is larger.
// Many processes share one counter.
func TestSegmentIncreasesAndIsUnique(t *testing.T) {
	for _, naive := range []bool{false, true} {
		t.Run(fmt.Sprintf("naive=%v", naive), func(t *testing.T) {
			store := &memory{delay: 50 * time.Microsecond, naive: naive}
			var mu sync.Mutex
			all := map[int64]bool{}
			duplicates, disorder := 0, 0
			var wg sync.WaitGroup
			for range 4 {
				s := segment(t, store, Options{MinStep: 7, MaxStep: 50})
				for range 8 {
					wg.Go(func() {
						var mine []int64
						for range 300 {
							ids, err := s.NextN(t.Context(), 3)
							one, err2 := s.Next(t.Context())
							if err != nil || err2 != nil {
								t.Error(err, err2)
								return
							}
							mine = append(append(mine, ids...), one)
						}
						mu.Lock()
						defer mu.Unlock()
						for i, id := range mine {
							if all[id] {
								duplicates++
							}
							if i > 0 && id <= mine[i-1] {
								disorder++
							}
							all[id] = true
						}
					})
				}
			}
			wg.Wait()
			require.Zero(t, disorder)
			if naive {
				require.NotZero(t, duplicates, "reading and writing in two steps has to be caught")
			} else {
				require.Zero(t, duplicates)
				require.Len(t, all, 4*8*300*4)
			}
		})
	}
}

// While the store is down, ids go on for Runway without a wait, one claim is in
// flight, and claims come as a backoff lets them; afterwards ids come by themselves.
func TestSegmentOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{delay: time.Millisecond}
		s := segment(t, store, Options{TargetDuration: time.Minute})
		tick := func() error {
			time.Sleep(time.Millisecond) // 1,000 ids a second
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := s.Next(ctx)
			return err
		}
		for range 120_000 {
			require.NoError(t, tick())
		}
		runway := s.Runway()
		require.Greater(t, runway, 10*time.Second, "with segments of a minute, refilled at a quarter")
		require.Less(t, runway, 3*time.Minute)
		waits, claims := s.Stats().Waits, store.get().claims
		store.set(func(m *memory) { m.down = true })
		began := time.Now()
		for time.Since(began) < runway-10*time.Millisecond {
			require.NoError(t, tick())
		}
		require.Equal(t, waits, s.Stats().Waits)
		require.Equal(t, 1, store.get().most)
		require.Less(t, store.get().claims-claims, 20+int(runway/time.Second), "claims of one refill, with backoff")
		require.Less(t, s.Runway(), 50*time.Millisecond, "Runway is what was used up")

		var err error
		for err == nil {
			err = tick()
		}
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errDown)

		// Waiters do not spin: 1,000 of them for 10 s add no claims.
		claims = store.get().claims
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := s.Next(t.Context())
				assert.NoError(t, err)
			})
		}
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, store.get().claims-claims, 15)
		store.set(func(m *memory) { m.down = false })
		began = time.Now()
		wg.Wait()
		require.LessOrEqual(t, time.Since(began), maxBackoff+10*time.Millisecond)
		require.Equal(t, 1, store.get().most)
		require.NotZero(t, s.Stats().Failures)
	})
}

// A segment lasts about TargetDuration, whatever the rate, and a slow store is
// asked early enough.
func TestSegmentStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{delay: 2 * time.Second}
		s := segment(t, store, Options{MinStep: 100, MaxStep: 100_000, TargetDuration: 10 * time.Second})
		run := func(rate int, d time.Duration) (waits uint64) {
			before := s.Stats().Waits
			for began := time.Now(); time.Since(began) < d; {
				time.Sleep(time.Second / time.Duration(rate))
				_, err := s.Next(t.Context())
				require.NoError(t, err)
			}
			return s.Stats().Waits - before
		}
		run(100, time.Minute)
		require.Zero(t, run(100, 5*time.Minute), "rate x claim time x 2 is ahead")
		require.Contains(t, []int64{800, 1600, 3200}, s.Stats().Step)
		run(1000, 2*time.Minute)
		require.Zero(t, run(1000, 2*time.Minute))
		require.Contains(t, []int64{6400, 12_800, 25_600}, s.Stats().Step)
		run(20, time.Hour)
		require.LessOrEqual(t, s.Stats().Step, int64(400))
		require.Equal(t, 1, store.get().most)
	})
}

// K segments are held at most, so that no more are lost with the process.
func TestSegmentHoldsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, k := range []int{2, 5} {
			store := &memory{}
			s := segment(t, store, Options{Segments: k, MinStep: 50, MaxStep: 50})
			for i := range 1000 {
				id := take(t, s, 1)[0]
				synctest.Wait()
				require.LessOrEqual(t, store.get().next-id+1, int64(50*k), "id %d", i)
			}
			require.NoError(t, s.Close(t.Context()))
		}
	})
}

// A store that was reset hands out nothing twice to a process that remembers.
func TestSegmentStoreWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		s := segment(t, store, Options{MinStep: 10, MaxStep: 10})
		before := take(t, s, 25)
		store.set(func(m *memory) { m.next["order"] = 5 })
		after := take(t, s, 25)
		ids := slices.Concat(before, after)
		require.True(t, slices.IsSorted(ids))
		require.Len(t, slices.Compact(ids), 50)
		require.NotZero(t, s.Stats().Failures)
	})
}

type storeFunc func(ctx context.Context, biz string, step int64) (Range, error)

func (f storeFunc) Claim(ctx context.Context, biz string, step int64) (Range, error) {
	return f(ctx, biz, step)
}

// What cannot pass is told at once, and every waiter hears it.
func TestSegmentFinalErrors(t *testing.T) {
	for _, store := range []storeFunc{
		func(context.Context, string, int64) (Range, error) { return Range{}, fmt.Errorf("x: %w", ErrExhausted) },
		func(context.Context, string, int64) (Range, error) { return Range{First: 0, Count: 5}, nil },
		func(context.Context, string, int64) (Range, error) { return Range{First: 5}, nil },
		func(context.Context, string, int64) (Range, error) {
			return Range{First: math.MaxInt64 - 5, Count: 3, Stride: 3}, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := segment(t, store, Options{})
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					_, err := s.Next(t.Context())
					assert.True(t, errors.Is(err, ErrExhausted) || errors.Is(err, ErrInvalid), "%v", err)
				})
			}
			wg.Wait()
			_, ok := s.TryNext()
			require.False(t, ok)
		})
	}
}

// A claim with a lost reply may have left a hole; a caller without an id has not.
func TestSegmentHidesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := segment(t, storeFunc(func(context.Context, string, int64) (Range, error) { return Range{}, ErrUnknown }), Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Next(ctx)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown)
		require.ErrorContains(t, err, "outcome unknown")
	})
}

// A claim that hangs is ended, by its own patience or by Close.
func TestSegmentHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{delay: time.Hour}
		s := segment(t, store, Options{})
		waiting := make(chan error)
		go func() {
			_, err := s.Next(t.Context())
			waiting <- err
		}()
		time.Sleep(time.Minute)
		for store.get().inFlight == 0 { // between two tries
			time.Sleep(time.Second / 2)
		}
		require.Greater(t, store.get().claims, 3)
		require.Equal(t, 1, store.get().most)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/10)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, s.Close(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second/10, time.Since(began))
		require.ErrorIs(t, <-waiting, ErrClosed)
	})
}

// Random calls on a few segments of one counter, with outages, against the oracle
// that no id comes twice and those of a segment increase.
func TestSegmentHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &memory{}
			all := map[int64]bool{}
			step := rapid.Int64Range(1, 30).Draw(rt, "min")
			opts := Options{MinStep: step, MaxStep: step * rapid.Int64Range(1, 8).Draw(rt, "factor"),
				Segments: rapid.IntRange(2, 4).Draw(rt, "segments"), TargetDuration: time.Second}
			segments := []*Segment{segment(t, store, opts), segment(t, store, opts)}
			latest := make([]int64, len(segments))
			for range rapid.IntRange(1, 60).Draw(rt, "calls") {
				i := rapid.IntRange(0, len(segments)-1).Draw(rt, "segment")
				s := segments[i]
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				var ids []int64
				switch rapid.IntRange(0, 5).Draw(rt, "call") {
				case 0:
					ids, _ = s.NextN(ctx, rapid.IntRange(1, 100).Draw(rt, "n"))
				case 1:
					store.set(func(m *memory) { m.down = !m.down })
				case 2:
					if id, ok := s.TryNext(); ok {
						ids = []int64{id}
					}
				case 3:
					time.Sleep(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "ms")) * time.Millisecond)
				default:
					if id, err := s.Next(ctx); err == nil {
						ids = []int64{id}
					}
				}
				cancel()
				for _, id := range ids {
					if all[id] || id <= latest[i] {
						t.Fatalf("id %d after %d, seen %v", id, latest[i], all[id])
					}
					all[id], latest[i] = true, id
				}
			}
			require.Equal(t, 1, max(1, store.get().most/len(segments)))
		})
	})
}

func TestSegmentOptions(t *testing.T) {
	for _, o := range []Options{{Segments: 1}, {Segments: 17}, {TargetDuration: -1}, {MinStep: -1}, {MaxStep: -1}, {MinStep: 5, MaxStep: 4}, {MaxStep: 1 << 33}} {
		_, err := NewSegment(&memory{}, "order", o)
		require.ErrorIs(t, err, ErrInvalid, "%+v", o)
	}
	for _, biz := range []string{"", "a\x00b", "\xff", string(make([]byte, 129))} {
		_, err := NewSegment(&memory{}, biz, Options{})
		require.ErrorIs(t, err, ErrInvalid, "%q", biz)
	}
	_, err := NewSegment(nil, "order", Options{})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestSegmentAllocatesNothing(t *testing.T) {
	s := segment(t, &memory{}, Options{MinStep: 100_000})
	take(t, s, 1)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}))
}

func BenchmarkSegment(b *testing.B) {
	s, err := NewSegment(&memory{}, "order", Options{MinStep: 1_000_000})
	require.NoError(b, err)
	defer s.Close(b.Context())
	ctx := b.Context()
	for b.Loop() {
		if _, err := s.Next(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

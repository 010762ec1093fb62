package snowflake

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func leaseOf(t *testing.T, rdb redis.UniversalClient, opts Options) *Worker {
	t.Helper()
	w, err := LeaseWorker(t.Context(), rdb, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close(context.Background()) })
	return w
}

func flakeOf(t *testing.T, layout Layout, w *Worker) *Snowflake {
	t.Helper()
	s, err := New(layout, w)
	require.NoError(t, err)
	return s
}

// setClock sets the process's clock wrong, by so many µs, and lets it be seen as a
// renewal would.
func (w *Worker) setClock(us int64) {
	w.skew.Store(us)
	w.readClock()
}

func next(t *testing.T, s *Snowflake) int64 {
	t.Helper()
	id, err := s.Next(t.Context())
	require.NoError(t, err)
	return id
}

func TestSnowflake(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := Options{Prefix: redistest.Prefix(t), Workers: 2}
		for _, layout := range []Layout{Classic, Dense, JSON} {
			a, b := leaseOf(t, rdb, opts), leaseOf(t, rdb, opts)
			require.ElementsMatch(t, []int{0, 1}, []int{a.ID(), b.ID()})
			_, err := LeaseWorker(t.Context(), rdb, opts)
			require.ErrorIs(t, err, ErrNoWorker)
			s := flakeOf(t, layout, a)
			before, last := time.Now().Add(-layout.Unit), int64(0)
			for range 1000 {
				id := next(t, s)
				require.Greater(t, id, last)
				last = id
			}
			at, worker, _ := layout.Split(last)
			require.Equal(t, a.ID(), worker)
			require.WithinRange(t, at, before, time.Now().Add(100*time.Millisecond))
			if layout == JSON {
				require.Less(t, last, int64(1<<53))
			}
			_, err = New(layout, a)
			require.ErrorIs(t, err, ErrInvalid, "a second Snowflake on one worker")
			require.Equal(t, a.ID(), s.Stats().Worker)

			require.NoError(t, a.Close(t.Context()))
			require.NoError(t, a.Close(t.Context()))
			_, err = s.Next(t.Context())
			require.ErrorIs(t, err, ErrClosed)
			_, ok := s.TryNext()
			require.False(t, ok)
			// The next holder begins above the last id, and without a wait.
			c := leaseOf(t, rdb, opts)
			require.Equal(t, worker, c.ID())
			s = flakeOf(t, layout, c)
			id, err := s.Next(t.Context())
			require.NoError(t, err)
			require.Greater(t, id, last)
			require.NoError(t, b.Close(t.Context()))
			require.NoError(t, c.Close(t.Context()))
		}
	})
}

// Goroutines of several processes with one set of worker ids.
func TestSnowflakeConcurrent(t *testing.T) {
	_, rdb := redistest.Mini(t)
	opts := Options{Workers: 4}
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range 4 {
		s := flakeOf(t, Classic, leaseOf(t, rdb, opts))
		for range 4 {
			wg.Go(func() {
				ids := make([]int64, 0, 5000)
				for range cap(ids) {
					id, err := s.Next(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					ids = append(ids, id)
				}
				mu.Lock()
				defer mu.Unlock()
				for i, id := range ids {
					if seen[id] || i > 0 && id <= ids[i-1] {
						t.Errorf("%d: seen before, or not above the one before", id)
					}
					seen[id] = true
				}
			})
		}
	}
	wg.Wait()
	require.Len(t, seen, 4*4*5000)
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

// Without Redis, ids are made until the local end of the lease and not one later;
// when it is back they go on, under the same worker id if nobody took it.
func TestOutage(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		w := leaseOf(t, b.Client(faults.Options), Options{TTL: 10 * time.Second})
		s := flakeOf(t, virtual, w)
		time.Sleep(time.Minute)
		id := w.ID()
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		left := s.Stats().Left
		require.Greater(t, left, 6*time.Second)
		for end := time.Now().Add(left); time.Now().Before(end); time.Sleep(time.Millisecond) {
			_, ok := s.TryNext()
			require.True(t, ok)
		}
		for range 20 {
			_, ok := s.TryNext()
			require.False(t, ok)
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Next(ctx)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown)
		faults.Clear()
		next(t, s)
		require.Equal(t, id, w.ID())
		require.Zero(t, s.Stats().Lost)
	})
}

// A lease that somebody else took, or that Redis forgot, is replaced by another, and
// ids go on increasing.
func TestLostLease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		var out strings.Builder
		w := leaseOf(t, rdb, Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		s := flakeOf(t, virtual, w)
		last := int64(0)
		for i := range 5 {
			time.Sleep(7 * time.Second)
			id := next(t, s)
			at, _, _ := virtual.Split(id)
			before, _, _ := virtual.Split(last)
			require.Greater(t, at, before)
			last = id
			require.NoError(t, rdb.Del(t.Context(), w.key).Err())
			w.hurry()
			time.Sleep(time.Second)
			require.EqualValues(t, i+1, s.Stats().Lost)
		}
		require.Contains(t, out.String(), "lost")
	})
}

// Each script is sent, executed, and its reply lost: what it does it does once.
func TestLostReplies(t *testing.T) {
	for _, fault := range []redistest.Fault{redistest.LoseReply, redistest.CutAfter} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			rdb := b.Client(faults.Options)
			lose := func(match string) {
				faults.Add(redistest.Rule{Do: fault, Match: match})
			}
			warm := leaseOf(t, rdb, Options{Name: "warm"})
			require.NoError(t, warm.Close(t.Context()))

			lose("evalsha")
			w := leaseOf(t, rdb, Options{})
			require.Equal(t, 1, faults.Fired(fault))
			require.EqualValues(t, 1, rdb.HLen(t.Context(), w.key).Val(), "one worker id")

			s := flakeOf(t, virtual, w)
			time.Sleep(time.Second)
			next(t, s)
			w.hurry()
			time.Sleep(time.Second) // the script is loaded
			lose("evalsha")
			w.hurry()
			time.Sleep(10 * time.Second)
			require.Equal(t, 2, faults.Fired(fault))
			require.Zero(t, s.Stats().Failures)
			require.Zero(t, s.Stats().Lost)
			last := next(t, s)

			lose("evalsha")
			require.NoError(t, w.Close(t.Context()))
			require.Equal(t, 3, faults.Fired(fault))
			slot := rdb.HGet(t.Context(), w.key, fmt.Sprint(w.ID())).Val()
			require.Regexp(t, `^- 0 \d+ \d+$`, slot)
			at, _, _ := virtual.Split(last)
			require.Contains(t, slot, fmt.Sprint(at.UnixMicro()), "the rest of the reserve is given back")
		})
	}
}

func TestLayouts(t *testing.T) {
	for _, l := range []Layout{Classic, Dense, JSON} {
		require.NoError(t, l.check())
		require.Less(t, l.borrow()*int64(l.Unit), int64(lead))
	}
	require.Equal(t, 2094, Classic.End().Year())
	require.Equal(t, 2094, Dense.End().Year())
	require.Equal(t, 2046, JSON.End().Year())
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		w := &Worker{opts: Options{Workers: 64, Logger: slog.New(slog.DiscardHandler)}}
		w.lease.Store(&lease{})
		now := time.Now()
		bad := map[string]Layout{
			"Unit 0s":           {Epoch: now, TimeBits: 41, WorkerBits: 10, SequenceBits: 12},
			"Unit 1.5µs":        {Epoch: now, Unit: 1500, TimeBits: 41, WorkerBits: 10, SequenceBits: 12},
			"Unit 2s":           {Epoch: now, Unit: 2 * time.Second, TimeBits: 41, WorkerBits: 10, SequenceBits: 12},
			"sum up to 64":      {Epoch: now, Unit: time.Millisecond, TimeBits: 42, WorkerBits: 10, SequenceBits: 12},
			"TimeBits 0":        {Epoch: now, Unit: time.Millisecond, WorkerBits: 10, SequenceBits: 12},
			"WorkerBits 17":     {Epoch: now, Unit: time.Millisecond, TimeBits: 30, WorkerBits: 17, SequenceBits: 12},
			"SequenceBits 0":    {Epoch: now, Unit: time.Millisecond, TimeBits: 41, WorkerBits: 10},
			"WorkerBits 5":      {Epoch: now, Unit: time.Millisecond, TimeBits: 41, WorkerBits: 5, SequenceBits: 12},
			"in the future":     {Epoch: now.Add(time.Hour), Unit: time.Millisecond, TimeBits: 41, WorkerBits: 10, SequenceBits: 12},
			"has ended":         {Epoch: now.AddDate(-1, 0, 0), Unit: time.Millisecond, TimeBits: 30, WorkerBits: 10, SequenceBits: 12},
			"want 1970 to 2242": {Unit: time.Millisecond, TimeBits: 41, WorkerBits: 10, SequenceBits: 12},
		}
		for text, l := range bad {
			_, err := New(l, w)
			require.ErrorIs(t, err, ErrInvalid, text)
			require.ErrorContains(t, err, text)
		}
		_, err := New(Classic, nil)
		require.ErrorIs(t, err, ErrInvalid)
	})
}

// An epoch that ends is reported a year before, and its last id is followed by none.
func TestEndOfEpoch(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var out strings.Builder
		w := leaseOf(t, b.Client(), Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
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

func TestOptions(t *testing.T) {
	_, rdb := redistest.Mini(t)
	for _, o := range []Options{{Workers: -1}, {Workers: 1<<16 + 1}, {TTL: time.Millisecond}, {TTL: 2 * time.Hour}} {
		_, err := LeaseWorker(t.Context(), rdb, o)
		require.ErrorIs(t, err, ErrInvalid, "%+v", o)
	}
	_, err := LeaseWorker(t.Context(), nil, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	p := redistest.Server(t, "--maxmemory-policy", "volatile-lru")
	_, err = LeaseWorker(t.Context(), p.Client(), Options{})
	require.ErrorIs(t, err, ErrInvalid)
	w, err := LeaseWorker(t.Context(), p.Client(), Options{AllowEviction: true})
	require.NoError(t, err)
	require.NoError(t, w.Close(t.Context()))
}

// More worker ids than one run of the script looks at, all but one taken.
func TestManyWorkers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := Options{Prefix: redistest.Prefix(t), Workers: 1000}
		w := leaseOf(t, rdb, opts)
		far := time.Now().Add(time.Hour).UnixMilli()
		for i := range opts.Workers {
			if i != 777 {
				require.NoError(t, rdb.HSet(t.Context(), w.key, i, fmt.Sprintf("other %d %d 0", far, far*1000)).Err())
			}
		}
		require.NoError(t, rdb.HDel(t.Context(), w.key, "777").Err())
		require.Equal(t, 777, leaseOf(t, rdb, opts).ID())
		_, err := LeaseWorker(t.Context(), rdb, opts)
		require.ErrorIs(t, err, ErrNoWorker)
	})
}

func TestAllocatesNothing(t *testing.T) {
	_, rdb := redistest.Mini(t)
	s := flakeOf(t, Dense, leaseOf(t, rdb, Options{}))
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := s.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}))
}

func BenchmarkSnowflake(b *testing.B) {
	_, rdb := redistest.Mini(b)
	w, err := LeaseWorker(b.Context(), rdb, Options{})
	require.NoError(b, err)
	defer w.Close(b.Context())
	s, err := New(Dense, w)
	require.NoError(b, err)
	ctx := b.Context()
	for b.Loop() {
		if _, err := s.Next(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// A Close that runs out of time still ends the making of ids.
func TestCloseWithoutRedis(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		w := leaseOf(t, b.Client(faults.Options), Options{})
		s := flakeOf(t, virtual, w)
		time.Sleep(time.Second)
		next(t, s)
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Times: -1})
		w.hurry()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, w.Close(ctx), context.DeadlineExceeded)
		_, ok := s.TryNext()
		require.False(t, ok)
		_, err := s.Next(t.Context())
		require.ErrorIs(t, err, ErrClosed)
	})
}

package snowflake

import (
	"context"
	"log/slog"
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

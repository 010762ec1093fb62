package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A shelf is a ledger in memory.
type shelf struct {
	name string

	mu      sync.Mutex
	entries []Entry
	levels  map[string]Level
	err     error // of Apply
	applied int   // calls of Apply
}

func newShelf() *shelf { return &shelf{name: "shelf", levels: map[string]Level{}} }

func (s *shelf) Name() string { return s.name }

func (s *shelf) Checkpoint(context.Context, string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(), nil
}

func (s *shelf) at() string {
	if len(s.entries) == 0 {
		return ""
	}
	return s.entries[len(s.entries)-1].ID
}

func (s *shelf) Apply(_ context.Context, _, from string, batch []Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied++
	if s.err != nil {
		return s.err
	}
	if at := s.at(); at != from && (at != "" || from != "0-0") {
		return ErrMoved
	}
	s.entries = append(s.entries, batch...)
	for _, e := range batch {
		for _, o := range e.Ops {
			o.addTo(s.levels)
		}
	}
	return nil
}

func (s *shelf) Levels(context.Context, string) (string, map[string]Level, map[string]Level, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(), maps.Clone(s.levels), maps.Clone(s.levels), nil
}

func (s *shelf) Entries(context.Context, string) iter.Seq2[Entry, error] {
	s.mu.Lock()
	all := slices.Clone(s.entries)
	s.mu.Unlock()
	return func(yield func(Entry, error) bool) {
		for _, e := range all {
			e.Ops = slices.DeleteFunc(slices.Clone(e.Ops), func(o Op) bool { return o.Kind == OpCrossing })
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s *shelf) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// shelve runs the journal until sink has all of it.
func shelve(t testing.TB, a *Activity, sink *shelf) {
	t.Helper()
	stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
	eventually(t, func() bool {
		info, err := a.Inspect(t.Context())
		at, _ := sink.Checkpoint(t.Context(), "")
		return err == nil && info.LastEntry == at && info.LastEntries[a.opts.Journals("sale")[0]] == at && info.Sunk == at
	}, "the sink never has it all")
	stop()
}

// The sink has what the journal had, each entry once, however many readers there are.
func TestRunJournal(t *testing.T) {
	each(t, Options{Linger: 2 * time.Millisecond}, map[string]int64{"tea": 1000}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		sink, other := newShelf(), newShelf()
		other.name = "other"
		shelve(t, a, other) // has one entry, and keeps the rest from being trimmed
		stop1 := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		stop2 := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		for i := range 300 {
			_, err := a.Deduct(ctx, tea(fmt.Sprint("o", i), "u", 1))
			require.NoError(t, err)
		}
		eventually(t, func() bool { return sink.len() == 301 }, "the sink never has it all")
		stop1()
		stop2()
		require.Equal(t, journal(t, a), sink.entries)
		d, err := a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)

		// A ledger that is behind is compared at where Redis is; one that is wrong is not.
		_, err = a.Deduct(ctx, tea("late", "u", 5))
		require.NoError(t, err)
		d, err = a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
		sink.levels["tea"] = Level{Left: 701, Sold: 299}
		d, err = a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.Equal(t, map[string]Level{"tea": {Left: 695, Sold: 305}}, d.Redis)
		require.Equal(t, map[string]Level{"tea": {Left: 696, Sold: 304}}, d.Kept)

		require.ErrorIs(t, a.RunJournal(ctx, &shelf{name: "a b"}), ErrInvalid)
		require.ErrorIs(t, a.RunJournal(ctx, nil), ErrInvalid)
		require.ErrorIs(t, a.RemoveSink(ctx, ""), ErrInvalid)
	})
}

// What all sinks have is trimmed, but not what the schedule of holds needs.
func TestTrim(t *testing.T) {
	t.Parallel()
	t.Run("miniredis", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) { require.True(t, trims(t, b.Client(), 10*time.Second)) })
	})
	on := func(client func(t *testing.T) redis.UniversalClient) func(t *testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			rdb := client(t)
			for hold := time.Second; !trims(t, rdb, hold); hold *= 4 {
				t.Logf("a hold of %v ended too early on this machine: again", hold)
			}
		}
	}
	t.Run("server", on(func(t *testing.T) redis.UniversalClient { return redistest.Shared(t).Client() }))
	t.Run("cluster", on(func(t *testing.T) redis.UniversalClient { return redistest.Cluster(t, 1, 0).Client() }))
}

// trims reports false if the hold, which is to outlast some orders, did not.
func trims(t *testing.T, rdb redis.UniversalClient, hold time.Duration) bool {
	ctx := t.Context()
	a := open(t, rdb, Options{Hold: hold, Linger: time.Millisecond, SoldOutFor: -1})
	require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10_000}))
	fast, slow := newShelf(), newShelf()
	slow.name = "slow"
	shelve(t, a, slow)
	sell := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := a.Deduct(ctx, tea(fmt.Sprint("o", i), "u", 1))
			require.NoError(t, err)
		}
	}
	length := func() int64 {
		n, err := rdb.XLen(ctx, a.keys.stream).Result()
		require.NoError(t, err)
		return n
	}
	sell(0, 400)
	fill2 := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, fast) })
	eventually(t, func() bool { return fast.len() == 401 }, "fast")
	require.EqualValues(t, 401, length(), "slow needs it")
	info, err := a.Inspect(ctx)
	require.NoError(t, err)
	require.Equal(t, slow.at(), info.Sunk)
	require.NoError(t, a.RemoveSink(ctx, "slow"))
	_, err = a.Reserve(ctx, tea("held", "u", 7))
	require.NoError(t, err)
	eventually(t, func() bool { return length() <= 200 }, "it is not trimmed")
	sell(400, 800)
	eventually(t, func() bool { return fast.len() >= 802 }, "fast")
	n := length()
	if levels, err := a.Stock(ctx, "tea"); err == nil && levels["tea"].Reserved == 0 {
		fill2()
		return false
	}
	require.Greater(t, n, int64(400), "the hold is in there")
	requireTea(t, a, 10_000-800-7, 7, 800)
	run := start(t, a.Run)
	eventually(t, func() bool {
		l, err := a.Stock(ctx, "tea")
		return err == nil && l["tea"].Reserved == 0
	}, "the hold never ends")
	run()
	sell(800, 1000)
	eventually(t, func() bool { return fast.len() == 1003 }, "fast")
	eventually(t, func() bool { return length() <= 200 }, "it is not trimmed")
	fill2()

	// Who comes back needs what is gone.
	require.ErrorIs(t, a.RunJournal(ctx, slow), ErrTrimmed)
	_, err = a.Deduct(ctx, tea("on", "u", 1))
	require.NoError(t, err, "that is no reason to halt")
	d, err := a.Reconcile(ctx, fast)
	require.NoError(t, err)
	require.True(t, d.None(), "%+v", d)
	return true
}

// Orders are refused while a sink is too far behind, and only orders.
func TestMaxLag(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{MaxLag: 10 * time.Second, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		_, err := a.Deduct(ctx, tea("o1", "u", 1))
		require.NoError(t, err)
		_, err = a.Reserve(ctx, tea("o2", "u", 1))
		require.NoError(t, err)
		sink := newShelf()
		sink.err = errors.New("down")
		stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		time.Sleep(11 * time.Second)
		_, err = a.Deduct(ctx, tea("o3", "u", 1))
		require.ErrorIs(t, err, ErrJournalFull)
		res, err := a.Deduct(ctx, tea("o1", "u", 1))
		require.NoError(t, err, "it was settled before")
		require.True(t, res.Replayed)
		_, err = a.Cancel(ctx, Ref{"o1", "u"}, "")
		require.NoError(t, err)
		_, err = a.Confirm(ctx, Ref{"o2", "u"})
		require.NoError(t, err)
		_, err = a.Restock(ctx, "more", Item{"tea", 1})
		require.NoError(t, err)
		require.Greater(t, a.Stats().Failures, uint64(10))

		sink.mu.Lock()
		sink.err = nil
		sink.mu.Unlock()
		time.Sleep(2 * time.Second)
		_, err = a.Deduct(ctx, tea("o3", "u", 1))
		require.NoError(t, err)
		// Nothing happens for an hour: the sink is not behind, old as its checkpoint is.
		time.Sleep(time.Hour)
		_, err = a.Deduct(ctx, tea("o4", "u", 1))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.EqualValues(t, 8, a.Stats().Journaled)
		stop()
	})
}

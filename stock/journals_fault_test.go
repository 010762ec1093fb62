package stock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// forkedBuckets returns an activity of three buckets of which one lost something that
// the sink has, with units on their way: 30 of tea, of which 14 are sold.
func forkedBuckets(t testing.TB, a *Activity) *rack {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, a.Load(ctx, map[string]int64{"tea": 30}))
	sink := newRack(a)
	before := saveBucket(t, a.buckets[1])
	for bucket, q := range []int64{12, 2, 0} { // twelve are more than home has
		if q > 0 {
			_, err := a.Deduct(ctx, tea("o", userOf(a, bucket), q))
			require.NoError(t, err)
		}
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.RunJournal(run, sink) }()
	for n := 0; !sink.sunk(t, a); n++ {
		require.Less(t, n, 4000, "the sink never has it all")
		sleep(ctx, 5*time.Millisecond)
	}
	stop()
	require.NoError(t, <-ended)
	_, ok := a.give(ctx, 2, 1, link{}, []Item{{"tea", 1}})
	require.True(t, ok)
	before.restore(t)
	require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
	return sink
}

// rebuilt wants all units where they were or were going.
func rebuilt(t testing.TB, a *Activity, sink *rack) {
	t.Helper()
	ctx := t.Context()
	requireWhole(t, a, 16, 0, 14)
	for bucket, q := range []int64{12, 2} {
		res, err := a.Deduct(ctx, tea("o", userOf(a, bucket), q))
		require.NoError(t, err)
		require.True(t, res.Replayed)
	}
	_, err := a.Deduct(ctx, tea("rest", userOf(a, 2), 16))
	require.NoError(t, err)
	_, err = a.Reconcile(ctx, sink)
	require.NoError(t, err)
}

// Every reply of a Rebuild gets lost once: it happens once.
func TestRebuildOfBucketsWithLostReplies(t *testing.T) {
	p := redistest.Shared(t)
	const steps = 4 * 3 // look, halt, freeze and install of three buckets
	for _, do := range []redistest.Fault{redistest.CutBefore, redistest.CutAfter} {
		for step := range steps {
			t.Run(fmt.Sprintf("fault %d at call %d", do, step), func(t *testing.T) {
				t.Parallel()
				opts := Options{Buckets: 3, SoldOutFor: -1, Linger: time.Millisecond, Prefix: redistest.Prefix(t)}
				plain := open(t, p.Client(), opts)
				sink := forkedBuckets(t, plain)
				var faults redistest.Faults
				a := open(t, p.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 300 * time.Millisecond }), opts)
				faults.Add(redistest.Rule{Do: do, Match: "evalsha", Skip: step})
				_, err := a.Rebuild(t.Context(), sink)
				require.NoError(t, err)
				require.Equal(t, 1, faults.Fired(do))
				rebuilt(t, plain, sink)
			})
		}
	}
}

// A process that dies in the middle of a Rebuild, some buckets of which it may have put
// in place: another one takes it over, from wherever it is.
func TestRebuildOfBucketsByADeadProcess(t *testing.T) {
	for step := range 12 {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			opts := Options{Buckets: 3, SoldOutFor: -1, Linger: time.Millisecond}
			living := open(t, b.Client(), opts)
			opts.Prefix = living.opts.Prefix
			sink := forkedBuckets(t, living)
			var faults redistest.Faults
			dead := open(t, b.Client(faults.Options), opts)
			faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Skip: step, Times: -1})
			_, err := dead.Rebuild(t.Context(), sink)
			require.Error(t, err)
			_, err = living.Deduct(t.Context(), tea("x", userOf(living, 0), 1))
			require.True(t, err != nil || step > 9, "the first bucket is rebuilt last")
			began := time.Now()
			lost, err := living.Rebuild(t.Context(), sink)
			require.NoError(t, err)
			require.Empty(t, lost)
			require.Less(t, time.Since(began), rebuildDead+5*time.Second)
			rebuilt(t, living, sink)
		})
	}
}

// The buckets whose journal is behind take no orders; the others do, and nobody is told
// that it is sold out.
func TestMaxLagOfABucket(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{Buckets: 3, MaxLag: 10 * time.Second, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 30}))
		sink := newRack(a)
		sink.shelves[a.buckets[1].journal].err = errors.New("down")
		stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		time.Sleep(11 * time.Second)
		_, err := a.Deduct(ctx, tea("o", userOf(a, 1), 1))
		require.ErrorIs(t, err, ErrJournalFull)
		_, err = a.Deduct(ctx, tea("o", userOf(a, 0), 30)) // stock of bucket 1 moves
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.Len(t, sink.shelves[a.buckets[0].journal].entries, 1, "a take waits for its give")
		sink.mu.Lock()
		sink.shelves[a.buckets[1].journal].err = nil
		sink.mu.Unlock()
		time.Sleep(5 * time.Second)
		require.True(t, sink.sunk(t, a))
		require.Empty(t, sink.judge(t, a))
		_, err = a.Deduct(ctx, tea("o", userOf(a, 1), 1))
		require.ErrorIs(t, err, ErrInsufficient)
		stop()
	})
}

// A failover of a time without any sink left its trace. The sale went on; the first
// RunJournal says so, and Rebuild mends it from what Redis has.
func TestATraceFromBeforeTheSink(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1, Linger: time.Millisecond})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 8}))
		before := saveBucket(t, a.buckets[1])
		_, err := a.Deduct(ctx, tea("all", userOf(a, 0), 8))
		require.NoError(t, err)
		before.restore(t) // four units are there twice
		_, err = a.Deduct(ctx, tea("more", userOf(a, 0), 2))
		require.NoError(t, err)
		sink := newRack(a)
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Equal(t, []Op{{Kind: OpDeduct, ID: "all", User: userOf(a, 0), Items: []Item{{"tea", 8}}}}, lost)
		requireWhole(t, a, 6, 0, 2)
		run, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- a.RunJournal(run, sink) }()
		eventually(t, func() bool { return sink.sunk(t, a) }, "the sink never has it all")
		stop()
		require.NoError(t, <-ended)
		require.Empty(t, sink.judge(t, a))
	})
}

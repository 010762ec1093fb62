package stock

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/script"
)

// The replies of the install get lost for so long that Rebuild gives up, and the order
// that it undid is gone: that Rebuild tells of it.
func TestLostOfAFailedRebuild(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		opts := Options{SoldOutFor: -1, Linger: time.Millisecond}
		a := open(t, b.Client(), opts)
		opts.Prefix = a.opts.Prefix
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		sink := newShelf()
		middle := save(t, a.rdb, a)
		_, err := a.Deduct(ctx, tea("first", "u", 8))
		require.NoError(t, err)
		shelve(t, a, sink)
		middle.restore(t)
		_, err = a.Deduct(ctx, tea("acknowledged", "v", 9))
		require.NoError(t, err)
		forked(t, a, sink)

		var faults redistest.Faults
		flaky := open(t, b.Client(faults.Options), opts)
		require.NoError(t, a.rdb.ScriptLoad(ctx, rebuildLua).Err())
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Skip: 1, Times: -1})
		lost, err := flaky.Rebuild(ctx, sink)
		require.ErrorIs(t, err, ErrUnknown)
		require.Len(t, lost, 1)
		require.Equal(t, "acknowledged", lost[0].ID)
		lost, err = a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Empty(t, lost, "it had been put in place")
		_, err = a.Lookup(ctx, Ref{"acknowledged", "v"})
		require.ErrorIs(t, err, ErrNotFound)
	})
}

// A Rebuild ends between two buckets: the order whose journal it has already replaced
// is told of.
func TestLostOfAHalfRebuild(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		opts := Options{Buckets: 2, SoldOutFor: -1, Linger: time.Millisecond}
		living := open(t, b.Client(), opts)
		opts.Prefix = living.opts.Prefix
		require.NoError(t, living.Load(ctx, map[string]int64{"tea": 8}))
		before := saveBucket(t, living.buckets[0])
		_, err := living.Deduct(ctx, tea("all", userOf(living, 1), 8))
		require.NoError(t, err)
		before.restore(t)
		_, err = living.Deduct(ctx, tea("more", userOf(living, 0), 2))
		require.NoError(t, err)
		sink := newRack(living)
		require.ErrorIs(t, living.RunJournal(ctx, sink), ErrForked)

		var faults redistest.Faults
		flaky := open(t, b.Client(faults.Options), opts)
		// A look, a halt and a freeze of each bucket, one install.
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Skip: 7, Times: -1})
		first, err := flaky.Rebuild(ctx, sink)
		require.Error(t, err)
		time.Sleep(2 * rebuildDead)
		second, err := living.Rebuild(ctx, sink)
		require.NoError(t, err)
		told := map[string]bool{}
		for _, o := range append(first, second...) {
			told[o.ID] = true
		}
		for id, user := range map[string]string{"all": userOf(living, 1), "more": userOf(living, 0)} {
			_, err = living.Lookup(ctx, Ref{id, user})
			require.True(t, err == nil || told[id], "%s: %v, and nobody is told", id, err)
		}
		require.True(t, told["all"])
	})
}

// A slowShelf is a ledger that takes its time.
type slowShelf struct {
	*shelf
	takes time.Duration
}

func (s slowShelf) Entries(ctx context.Context, journal string) iter.Seq2[Entry, error] {
	sleep(ctx, s.takes)
	return s.shelf.Entries(ctx, journal)
}

// A Rebuild that takes long is waited for, not taken for dead by the next process.
func TestLongRebuild(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{SoldOutFor: -1, Linger: time.Millisecond})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		sink := newShelf()
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		began := time.Now()
		var wg sync.WaitGroup
		for process := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(process) * time.Second)
				if _, err := a.Rebuild(ctx, slowShelf{sink, 5 * rebuildDead}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.InDelta(t, 5*rebuildDead, time.Since(began), float64(time.Second))
	})
}

// One that was taken for dead all the same, since Redis did not hear of it, ends as soon
// as it hears of that.
func TestRebuildIsOvertaken(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		opts := Options{SoldOutFor: -1, Linger: time.Millisecond}
		a := open(t, b.Client(), opts)
		opts.Prefix = a.opts.Prefix
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		sink := newShelf()
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		var faults redistest.Faults
		cut := open(t, b.Client(faults.Options), opts)
		ended := make(chan error, 1)
		go func() {
			_, err := cut.Rebuild(ctx, slowShelf{sink, time.Hour})
			ended <- err
		}()
		time.Sleep(time.Second)
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		_, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		faults.Clear()
		began := time.Now()
		require.ErrorIs(t, <-ended, ErrMoved)
		require.Less(t, time.Since(began), rebuildDead)
	})
}

// A bucket in which nothing ever was, as a Load that did not reach it leaves it, is no
// obstacle.
func TestRebuildBesideAnEmptyBucket(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{Buckets: 3, SoldOutFor: -1, Linger: time.Millisecond})
		_, err := planScript.Run(ctx, rdb, script.Call{Keys: a.keys.all[:1], Args: []any{3, 0, "tea", 30}})
		require.NoError(t, err)
		for _, i := range []int{0, 2} {
			_, err := a.buckets[i].do(ctx, newOp('L', '+', "load", "", []Item{{"tea", 10}}))
			require.NoError(t, err)
		}
		sink := newRack(a)
		before := saveBucket(t, a.buckets[0])
		_, err = a.Deduct(ctx, tea("o1", userOf(a, 0), 1))
		require.NoError(t, err)
		stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		eventually(t, func() bool {
			return sink.shelves[a.buckets[0].journal].len() == 2 && sink.shelves[a.buckets[2].journal].len() == 1
		}, "sink")
		stop()
		before.restore(t)
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Empty(t, lost)
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 30}))
		for i := range 3 {
			_, err = a.Deduct(ctx, tea(fmt.Sprint("x", i), userOf(a, i), 1))
			require.NoError(t, err)
		}
		levels, err := a.Stock(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(26), levels["tea"].Left)
	})
}

// behind is a client that reads from a replica which lacks the newest entry.
type behind struct{}

func (behind) DialHook(next redis.DialHook) redis.DialHook { return next }
func (behind) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (behind) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if c, ok := cmd.(*redis.XMessageSliceCmd); ok && cmd.Name() == "xrange" && len(c.Val()) > 0 {
			c.SetVal(c.Val()[:len(c.Val())-1])
		}
		return err
	}
}

// What a replica lacks is not taken for lost.
func TestRebuildDoesNotTrustReplicas(t *testing.T) {
	_, rdb := redistest.Mini(t)
	ctx := t.Context()
	a := open(t, rdb, Options{SoldOutFor: -1, Linger: time.Millisecond})
	require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
	sink := newShelf()
	middle := save(t, rdb, a)
	_, err := a.Deduct(ctx, tea("first", "u", 1))
	require.NoError(t, err)
	shelve(t, a, sink)
	middle.restore(t)
	_, err = a.Deduct(ctx, tea("acknowledged", "v", 1))
	require.NoError(t, err)
	forked(t, a, sink)
	replicas := redis.NewClient(rdb.Options())
	t.Cleanup(func() { _ = replicas.Close() })
	replicas.AddHook(behind{})
	_, err = open(t, replicas, a.opts).Rebuild(ctx, sink)
	require.ErrorIs(t, err, ErrUnavailable)
	lost, err := a.Rebuild(ctx, sink)
	require.NoError(t, err)
	require.Empty(t, lost)
	_, err = a.Lookup(ctx, Ref{"acknowledged", "v"})
	require.NoError(t, err)
}

// What a Rebuild leaves behind that ends on the way goes by itself.
func TestKeysOfADeadRebuild(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		opts := Options{SoldOutFor: -1, Linger: time.Millisecond}
		a := open(t, b.Client(), opts)
		opts.Prefix = a.opts.Prefix
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10000}))
		for i := range 1500 {
			_, err := a.Deduct(ctx, tea(fmt.Sprint("o", i), "u", 1))
			require.NoError(t, err)
		}
		sink := newShelf()
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		var faults redistest.Faults
		dead := open(t, b.Client(faults.Options), opts)
		made := func() (keys []string) {
			for _, k := range b.Mini.Keys() {
				if strings.Contains(k, ":levels:") {
					keys = append(keys, k)
				}
			}
			return keys
		}
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "hset", Skip: 1200, Times: -1})
		_, err := dead.Rebuild(ctx, sink)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotEmpty(t, made())
		time.Sleep(buildKeep + time.Minute)
		require.Empty(t, made())
	})
}

// Only what is frozen by a token stays so: the last word of a Rebuild that is over freezes
// nothing.
func TestStayFreezesNothing(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{SoldOutFor: -1, Linger: time.Millisecond})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		sink := newShelf()
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		f, err := a.fork(ctx, "late", "stay")
		require.NoError(t, err)
		require.Equal(t, forkOther, f.state)
		f, err = a.fork(ctx, "new", "look")
		require.NoError(t, err)
		require.Equal(t, forkHalted, f.state)
	})
}

package stock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// saved is a copy of an activity's keys, for a failover that goes back to it.
type saved struct {
	rdb redis.UniversalClient
	a   *Activity
	ks  []string
}

func save(t testing.TB, rdb redis.UniversalClient, a *Activity) saved {
	t.Helper()
	s := saved{rdb, a, keysOf(t, rdb, a)}
	for _, k := range s.ks {
		copyKey(t, rdb, k, k+".saved")
	}
	return s
}

func copyKey(t testing.TB, rdb redis.UniversalClient, from, to string) {
	t.Helper()
	ctx := t.Context()
	if rdb.Type(ctx, from).Val() != "stream" {
		require.NoError(t, rdb.Copy(ctx, from, to, 0, true).Err())
		return
	}
	// miniredis's copy of a stream changes when the stream is trimmed.
	entries, err := rdb.Do(ctx, "xrange", from, "-", "+").Slice()
	require.NoError(t, err)
	for _, e := range entries {
		e := e.([]any)
		require.NoError(t, rdb.XAdd(ctx, &redis.XAddArgs{Stream: to, ID: e[0].(string), Values: e[1]}).Err())
	}
}

func (s saved) restore(t testing.TB) {
	t.Helper()
	for _, k := range keysOf(t, s.rdb, s.a) {
		if !strings.HasSuffix(k, ".saved") {
			require.NoError(t, s.rdb.Del(t.Context(), k).Err())
		}
	}
	for _, k := range s.ks {
		require.NoError(t, s.rdb.Rename(t.Context(), k+".saved", k).Err())
	}
}

// forked wants the fork to be noticed and nothing else to pass.
func forked(t testing.TB, a *Activity, sink *shelf) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // without a fork it goes on
	defer cancel()
	require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
	require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked, "and stays")
	info, err := a.Inspect(t.Context())
	require.NoError(t, err)
	require.Equal(t, sink.at(), info.Forked)
	require.NoError(t, a.Resume(t.Context()))
	_, err = a.Deduct(t.Context(), tea("halted?", "u", 1))
	require.ErrorIs(t, err, ErrHalted)
}

// A sale is rolled back to its middle. Rebuild makes it what it was: every order, hold,
// limit and level. Negative control: without Rebuild they are not.
func TestRebuildRestores(t *testing.T) {
	opts := Options{Hold: time.Hour, UserLimit: 40, UserSKULimit: 30, Linger: time.Millisecond}
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		rng := rand.New(rand.NewPCG(seed(t), 1))
		opts := opts
		opts.SoldOutFor = -1
		a := open(t, rdb, opts)
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 60, "cup": 30, "pot": 0}))
		sink := newShelf()
		refs := map[Ref]bool{}
		work := func(n int) {
			for range n {
				ref := Ref{fmt.Sprint("o", rng.IntN(200)), fmt.Sprint("u", rng.IntN(4))}
				o := Order{ID: ref.ID, User: ref.User, Partial: rng.IntN(5) == 0}
				for _, sku := range []string{"tea", "cup"}[rng.IntN(2):] {
					o.Items = append(o.Items, Item{sku, 1 + rng.Int64N(3)})
				}
				refs[ref] = true
				switch rng.IntN(8) {
				case 0:
					_, _ = a.Confirm(ctx, ref)
				case 1, 2:
					if _, err := a.Lookup(ctx, ref); err == nil { // a cancel before its order is not in the journal
						_, _ = a.Cancel(ctx, ref, "why not")
					}
				case 3:
					_, _ = a.Restock(ctx, fmt.Sprint("r", rng.IntN(20)), Item{"cup", 1})
				case 4, 5:
					_, _ = a.Deduct(ctx, o)
				default:
					_, _ = a.Reserve(ctx, o)
				}
			}
		}
		work(100)
		shelve(t, a, sink)
		middle := save(t, rdb, a)
		work(200)
		shelve(t, a, sink)
		want := state(t, rdb, a, refs)
		middle.restore(t)
		require.NotEqual(t, want, state(t, rdb, a, refs))
		forked(t, a, sink)
		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Empty(t, lost)
		require.Equal(t, want, state(t, rdb, a, refs))
		// The entry of the crossings comes to the sink as the chain goes on.
		shelve(t, a, sink)
		d, err := a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
		lost, err = a.Rebuild(ctx, newShelf())
		require.NoError(t, err, "there is nothing to rebuild")
		require.Empty(t, lost)
		// And works as it did: a retry of each order, and each end.
		work(100)
		shelve(t, a, sink)
		d, err = a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
		require.NoError(t, a.Drop(ctx))
		require.Empty(t, keysOf(t, rdb, a), "nothing of a Rebuild is left")
	})
}

// state is what callers can see of the activity.
func state(t testing.TB, rdb redis.UniversalClient, a *Activity, refs map[Ref]bool) map[string]any {
	t.Helper()
	all := map[string]any{}
	for ref := range refs {
		res, err := a.Lookup(t.Context(), ref)
		res.At, res.Missing = time.Time{}, nil
		all["order "+ref.ID+" "+ref.User] = fmt.Sprint(res, errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict))
	}
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for sku, l := range levels {
		l.Version = 0
		all["level "+sku] = l
	}
	limits, err := rdb.HGetAll(t.Context(), a.keys.limits).Result()
	require.NoError(t, err)
	for field, n := range limits {
		if n != "0" {
			all["limit "+field] = n
		}
	}
	info, err := a.Inspect(t.Context())
	require.NoError(t, err)
	all["holds"] = info.OpenHolds
	return all
}

// What Redis was told after it lost something is kept as far as the ledger's stock
// goes, and what is not is named.
func TestRebuildMerges(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		must := func(_ Result, err error) {
			t.Helper()
			require.NoError(t, err)
		}
		a := open(t, rdb, Options{Hold: time.Hour, Linger: time.Millisecond, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10, "cup": 5}))
		must(a.Reserve(ctx, tea("held", "u", 1)))
		must(a.Reserve(ctx, tea("unpaid", "u", 1)))
		sink := newShelf()
		middle := save(t, rdb, a)
		// What the ledger has, and Redis forgets.
		must(a.Deduct(ctx, tea("both", "u", 1)))
		must(a.Deduct(ctx, tea("ledger", "u", 3)))
		must(a.Cancel(ctx, Ref{"unpaid", "u"}, ""))
		must(a.Restock(ctx, "r1", Item{"tea", 1}))
		shelve(t, a, sink)
		middle.restore(t)
		// What Redis has instead: 4 and 4 of the 6 units of tea that the ledger has left, and one back.
		must(a.Deduct(ctx, tea("both", "u", 1)))
		must(a.Deduct(ctx, tea("kept", "v", 4)))
		must(a.Cancel(ctx, Ref{"held", "u"}, "no money"))
		must(a.Deduct(ctx, tea("too much", "v", 4)))
		must(a.Confirm(ctx, Ref{"unpaid", "u"}))
		must(a.Confirm(ctx, Ref{"too much", "v"}))
		must(a.Reserve(ctx, Order{ID: "cups", User: "v", Items: []Item{{"cup", 5}}}))
		must(a.Restock(ctx, "r1", Item{"tea", 1}))
		must(a.Restock(ctx, "r2", Item{"tea", 1}))
		require.NoError(t, a.Load(ctx, map[string]int64{"pot": 1}))
		forked(t, a, sink)

		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Equal(t, []Op{
			{Kind: OpDeduct, ID: "too much", User: "v", Items: []Item{{"tea", 4}}},
			{Kind: OpConfirm, ID: "unpaid", User: "u", Items: []Item{{"tea", 1}}, Held: true},
		}, lost)
		requireLevels(t, a, map[string]Level{"tea": {Left: 6 - 4 + 1 + 1, Sold: 1 + 3 + 4}, "cup": {Reserved: 5}, "pot": {Left: 1}})
		must(a.Deduct(ctx, tea("ledger", "u", 3)))
		_, err = a.Lookup(ctx, Ref{"too much", "v"})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = a.Confirm(ctx, Ref{"held", "u"})
		require.ErrorIs(t, err, ErrCancelled)
		shelve(t, a, sink)
		d, err := a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
		// The cups sold out, as Redis had it; the ledger learns it with the entries.
		require.Zero(t, sink.levels["cup"].Left)
		prev := sink.entries[0].ID
		for _, e := range sink.entries[1:] {
			require.Equal(t, prev, e.Prev, "the chain is whole in the ledger")
			prev = e.ID
		}
	})
}

// Holds end when they would have ended, those of the ledger and those of Redis.
func TestRebuildKeepsTheSchedule(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		rdb := b.Client()
		a := open(t, rdb, Options{Hold: 10 * time.Minute, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
		reserve := func(ids ...string) {
			for _, id := range ids {
				_, err := a.Reserve(ctx, tea(id, "u", 1))
				require.NoError(t, err)
				time.Sleep(time.Minute)
			}
		}
		reserve("o1", "o2")
		middle := save(t, rdb, a)
		reserve("o3")
		sink := newShelf()
		shelve(t, a, sink)
		middle.restore(t)
		reserve("o4")
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Empty(t, lost)
		began := time.Now()
		stop := start(t, a.Run)
		held := func(want int64) {
			t.Helper()
			info, err := a.Inspect(ctx)
			require.NoError(t, err)
			require.Equal(t, want, info.OpenHolds, "after %v", time.Since(began))
		}
		held(4) // o1 is due ten minutes after it began: in less than six
		for left := int64(3); left >= 0; left-- {
			info, err := a.Inspect(ctx)
			require.NoError(t, err)
			time.Sleep(time.Until(info.NextDue) - time.Millisecond)
			held(left + 1)
			time.Sleep(2 * time.Second)
			held(left)
		}
		requireTea(t, a, 100, 0, 0)
		stop()
	})
}

// A Redis that lost everything has forked as well, and is filled from the ledger.
func TestRebuildFromNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{Linger: time.Millisecond, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		_, err := a.Deduct(ctx, tea("o1", "u", 4))
		require.NoError(t, err)
		sink := newShelf()
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		require.NoError(t, a.Halt(ctx, "wait for me"))
		_, err = a.Rebuild(ctx, newShelf())
		require.ErrorIs(t, err, ErrInvalid, "an empty ledger")
		_, err = a.Deduct(ctx, tea("o1", "u", 4))
		require.ErrorIs(t, err, ErrHalted, "a Rebuild that failed leaves it as it was")
		_, err = a.Rebuild(ctx, sink)
		require.NoError(t, err)
		requireTea(t, a, 6, 0, 4)
		_, err = a.Deduct(ctx, tea("o2", "u", 1))
		require.ErrorIs(t, err, ErrHalted, "the operator's halt is another one")
		require.NoError(t, a.Resume(ctx))
		res, err := a.Deduct(ctx, tea("o1", "u", 4))
		require.NoError(t, err)
		require.True(t, res.Replayed)
	})
}

package stock

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A random sequence of calls, each compared with what the model answers at the
// server's time of that call: levels, answers and events are exact at every step.

var sequenceOptions = Options{Hold: 100 * time.Millisecond, SoldOutFor: -1, UserLimit: 12, UserSKULimit: 5}

func TestSequenceInVirtualTime(t *testing.T) {
	t.Parallel()
	s := seed(t)
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rng := rand.New(rand.NewPCG(s, 1))
		steps := 3000
		runSequence(t, open(t, b.Client(), sequenceOptions), rng, steps, func() {
			time.Sleep(time.Duration(rng.Int64N(int64(6 * time.Millisecond))))
		})
	})
}

func TestSequence(t *testing.T) {
	t.Parallel()
	s := seed(t)
	steps := 2000
	if soak() {
		steps = 60_000
	}
	run := func(rdb redis.UniversalClient, unmerged bool) func(t *testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			opts := sequenceOptions
			opts.Unmerged = unmerged
			// One call releases the holds of up to 128 journal entries, and so there must
			// not be more of them in the time of a hold.
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			runSequence(t, open(t, rdb, opts), rand.New(rand.NewPCG(s, 2)), steps, func() { <-pace.C })
		}
	}
	t.Run("server", run(redistest.Shared(t).Client(), false))
	t.Run("cluster", run(redistest.Cluster(t, 1, 0).Client(), true))
}

func runSequence(t *testing.T, a *Activity, rng *rand.Rand, steps int, between func()) {
	ctx := t.Context()
	m := newModel(a.opts)
	stock := map[string]int64{"tea": 10, "cup": 3, "pot": 0, "jar": 40}
	require.NoError(t, a.Load(ctx, stock))
	m.load(stock)
	skus := []string{"tea", "cup", "pot", "jar", "tea", "cup", "jar"}
	base := 0
	var past []string // ids that were granted
	seen := map[error]int{}
	var events []Event
	outcomes := []error{nil, ErrConflict, ErrNoSKU, ErrInsufficient, ErrLimit, ErrNotFound, ErrCancelled, ErrExpired, ErrConfirmed, ErrInvalid}
	unmet := func() bool {
		return slices.ContainsFunc(outcomes, func(e error) bool { return seen[e] == 0 })
	}
	for step := 0; step < steps || step < 10*steps && unmet(); step++ { // some outcomes are rare
		if step%20 == 0 {
			base += 10 // old ids come up less and less
		}
		id := fmt.Sprintf("id%d", base+rng.IntN(40))
		if len(past) > 0 && rng.IntN(8) == 0 {
			id = past[rng.IntN(len(past))]
		}
		user := fmt.Sprintf("user%d", (base+rng.IntN(40))/20)
		o := Order{ID: id, User: user, Partial: rng.IntN(4) == 0}
		if was := m.orders[id]; was != nil && rng.IntN(5) > 0 {
			o = was.asked // a retry
			user = o.User
		} else {
			first := rng.IntN(len(skus))
			for k := range 1 + rng.IntN(2) {
				sku := skus[(first+k)%len(skus)]
				if k == 0 && rng.IntN(60) == 0 {
					sku = "nothing"
				}
				o.Items = append(o.Items, Item{sku, 1 + rng.Int64N(4)})
			}
		}
		ref := Ref{id, user}
		var res Result
		var err error
		var want func(now int64) answer
		var what string
		switch p := rng.IntN(100); {
		case p < 25:
			what = fmt.Sprintf("Deduct %+v", o)
			res, err = a.Deduct(ctx, o)
			want = func(now int64) answer { return m.order('D', o, now) }
		case p < 60:
			what = fmt.Sprintf("Reserve %+v", o)
			res, err = a.Reserve(ctx, o)
			want = func(now int64) answer { return m.order('R', o, now) }
		case p < 72:
			what = fmt.Sprintf("Confirm %+v", ref)
			res, err = a.Confirm(ctx, ref)
			want = func(now int64) answer { return m.confirm(ref, now) }
		case p < 86:
			what = fmt.Sprintf("Cancel %+v", ref)
			res, err = a.Cancel(ctx, ref, "random")
			want = func(now int64) answer { return m.cancel(ref, now) }
		case p < 94:
			what = fmt.Sprintf("Lookup %+v", ref)
			res, err = a.Lookup(ctx, ref)
			want = func(now int64) answer { return m.lookup(ref, now) }
		default:
			items := []Item{{skus[rng.IntN(4)], 1 + rng.Int64N(6)}}
			if rng.IntN(8) == 0 {
				items[0].Qty = maxQty
			}
			what = fmt.Sprintf("Restock %s %+v", id, items)
			res, err = a.Restock(ctx, id, items...)
			want = func(int64) answer { return m.restock(id, items) }
		}
		require.False(t, res.At.IsZero(), "step %d: %s: no time: %v", step, what, err)
		now := res.At.UnixMilli()
		m.advance(now)
		expected := want(now)
		got := answerOf(res, err)
		require.Equal(t, expected.withoutSKU(), got.withoutSKU(), "step %d: %s: %v", step, what, err)
		seen[expected.err]++
		if expected.err == nil && !expected.replayed && (expected.state == Reserved || expected.state == Sold) {
			past = append(past, id)
		}
		events = append(events, m.events...)
		m.events = nil

		levels, err := a.Stock(ctx)
		require.NoError(t, err)
		for sku, l := range m.levels {
			g := levels[sku]
			g.Version = 0
			require.Equal(t, *l, g, "step %d: %s: level of %s", step, what, sku)
			require.Equal(t, m.added[sku], g.Left+g.Reserved+g.Sold, "step %d: %s: total of %s", step, what, sku)
			require.GreaterOrEqual(t, g.Left, int64(0))
		}
		between()
	}
	require.Equal(t, events, crossings(t, a))
	for _, e := range outcomes {
		require.Positive(t, seen[e], "the sequence never met %v", e)
	}
	expired := 0
	for _, o := range ops(t, a) {
		if o.Kind == OpExpire {
			expired++
		}
	}
	require.Positive(t, expired, "no hold ever expired")
}

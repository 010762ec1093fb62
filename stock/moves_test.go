package stock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// apart loads tea in one bucket alone, by a restock.
func apart(t testing.TB, a *Activity, bucket int, qty int64) {
	t.Helper()
	require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 0}))
	_, err := a.Restock(t.Context(), userOf(a, bucket), Item{"tea", qty})
	require.NoError(t, err)
}

// requireWhole: nothing is on its way, and the sums are right.
func requireWhole(t testing.TB, a *Activity, left, reserved, sold int64) {
	t.Helper()
	requireTea(t, a, left, reserved, sold)
	require.Empty(t, onTheirWay(a.look(t.Context(), nil)))
}

// transfers counts the gives and takes of the journals.
func transfers(t testing.TB, a *Activity) (gives, takes int) {
	t.Helper()
	for e, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		for _, o := range e.Ops {
			switch o.Kind {
			case OpGive:
				gives++
			case OpTake:
				takes++
			}
		}
	}
	return gives, takes
}

// An order that needs stock of another bucket, with every call on its way failing
// once, in every way: it is granted once, and nothing is lost.
func TestMovesWithAFaultAtEveryStep(t *testing.T) {
	rdbs := redistest.Cluster(t, 3, 0)
	for _, do := range []redistest.Fault{redistest.CutBefore, redistest.CutAfter, redistest.LoseReply} {
		for step := range 6 {
			t.Run(fmt.Sprintf("fault %d at call %d", do, step), func(t *testing.T) {
				t.Parallel()
				opts := Options{Buckets: 3, SoldOutFor: -1, Prefix: redistest.Prefix(t)}
				apart(t, open(t, rdbs.Client(), opts), 2, 2)
				var faults redistest.Faults
				a := open(t, rdbs.Client(faults.ClusterOptions, func(o *redis.ClusterOptions) { o.ReadTimeout = 200 * time.Millisecond }), opts)
				_, err := a.Lookup(t.Context(), Ref{"warm", userOf(a, 0)})
				require.ErrorIs(t, err, ErrNotFound)
				faults.Add(redistest.Rule{Do: do, Match: "evalsha", Skip: step})
				_, err = a.Deduct(t.Context(), tea("o", userOf(a, 0), 2))
				require.NoError(t, err)
				require.Equal(t, 1, faults.Fired(do))
				requireWhole(t, a, 0, 0, 2)
				gives, takes := transfers(t, a)
				require.Equal(t, 1, gives)
				require.Equal(t, 1, takes)
			})
		}
	}
}

// A process that dies, or a caller who leaves, at any step: another one sells the
// units, and Run brings back those that nobody asks for.
func TestMovesOfADeadProcess(t *testing.T) {
	rdbs := redistest.Cluster(t, 3, 0)
	stranded := 0
	var mu sync.Mutex
	t.Run("steps", func(t *testing.T) {
		for step := range 9 {
			t.Run(fmt.Sprint(step), func(t *testing.T) {
				t.Parallel()
				opts := Options{Buckets: 3, SoldOutFor: -1, Prefix: redistest.Prefix(t)}
				living := open(t, rdbs.Client(), opts)
				apart(t, living, 2, 2)
				var faults redistest.Faults
				dead := open(t, rdbs.Client(faults.ClusterOptions), opts)
				_, err := dead.Lookup(t.Context(), Ref{"warm", userOf(dead, 0)})
				require.ErrorIs(t, err, ErrNotFound)
				faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Skip: step, Times: -1})
				faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1, Skip: 100})
				ctx, cancel := context.WithCancel(t.Context())
				over := start(t, func(context.Context) error { // it dies with the first fault
					for ctx.Err() == nil && faults.Fired(redistest.CutBefore) == 0 {
						<-time.After(time.Millisecond)
					}
					cancel()
					return nil
				})
				_, err = dead.Deduct(ctx, tea("o", userOf(dead, 0), 2))
				cancel()
				over()
				sold := int64(0)
				if err == nil {
					sold = 2
				}
				requireTea(t, living, 2-sold, 0, sold)
				if on := onTheirWay(living.look(t.Context(), nil)); len(on) > 0 {
					mu.Lock()
					stranded++
					mu.Unlock()
					if step%2 == 0 {
						stop := start(t, living.Run)
						eventually(t, func() bool { return len(onTheirWay(living.look(t.Context(), nil))) == 0 }, "Run leaves units on their way")
						stop()
					}
				}
				// The order itself in another process, then any other.
				_, err = living.Deduct(t.Context(), Order{ID: "o", User: userOf(dead, 0), Items: []Item{{"tea", 2}}, Retry: true})
				require.NoError(t, err)
				requireWhole(t, living, 0, 0, 2)
				_, err = living.Deduct(t.Context(), tea("other", userOf(dead, 1), 1))
				require.ErrorIs(t, err, ErrInsufficient)
			})
		}
	})
	require.Positive(t, stranded, "no process died with units on their way")
}

// Whatever is repeated, in whatever order and however late, moves nothing twice.
func TestMovesAreNotRepeated(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a := open(t, b.Client(), Options{Buckets: 2, SoldOutFor: -1})
		apart(t, a, 1, 8)
		ctx, want := t.Context(), []Item{{"tea", 1}}
		first, ok := a.give(ctx, 1, 0, link{}, want)
		require.True(t, ok)
		require.Equal(t, transfer{1, 0, 1, []Item{{"tea", 4}}, first.after}, first) // half of it
		require.Regexp(t, entryID, first.after)
		again, ok := a.give(ctx, 1, 0, link{}, want)
		require.True(t, ok)
		require.Equal(t, first, again, "a second one while the first is on its way")
		requireTea(t, a, 8, 0, 0)
		require.NoError(t, a.finish(ctx, first))
		second, ok := a.give(ctx, 1, 0, link{took: 1, from: first.after}, want)
		require.True(t, ok)
		require.Equal(t, transfer{1, 0, 2, []Item{{"tea", 2}}, second.after}, second)
		require.NoError(t, a.finish(ctx, second))

		time.Sleep(100 * 24 * time.Hour) // far beyond Retention
		_, err := a.Deduct(ctx, tea("o", userOf(a, 0), 1))
		require.NoError(t, err)
		for _, late := range []transfer{first, second} {
			require.NoError(t, a.finish(ctx, late))
		}
		late, ok := a.give(ctx, 1, 0, link{}, want)
		require.True(t, ok)
		require.Equal(t, second, late)
		requireWhole(t, a, 7, 0, 1)
		gives, takes := transfers(t, a)
		require.Equal(t, []int{2, 2}, []int{gives, takes})
	})
}

// A halted activity gives nothing; what is on its way arrives.
func TestMovesOfAHaltedActivity(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1})
		apart(t, a, 1, 8)
		ctx, want := t.Context(), []Item{{"tea", 1}}
		given, ok := a.give(ctx, 1, 0, link{}, want)
		require.True(t, ok)
		require.NoError(t, a.Halt(ctx, "closed"))
		again, ok := a.give(ctx, 1, 0, link{}, want)
		require.True(t, ok)
		require.Equal(t, given, again)
		require.NoError(t, a.finish(ctx, given))
		has := link{took: 1, from: given.after}
		_, ok = a.give(ctx, 1, 0, has, want)
		require.False(t, ok)
		requireWhole(t, a, 8, 0, 0)
		require.NoError(t, a.Resume(ctx))
		_, ok = a.give(ctx, 1, 0, has, want)
		require.True(t, ok)
	})
}

// Who reads the buckets while the last unit moves and sells may see it still. Versions
// then put the sell-out after that.
func TestLevelsWhileTheLastUnitMoves(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1})
		apart(t, a, 1, 1)
		ctx := t.Context()
		levels := func() []map[string]Level {
			all := make([]map[string]Level, 2)
			for i, b := range a.buckets {
				var err error
				all[i], err = b.Stock(ctx, "tea")
				require.NoError(t, err)
			}
			return all
		}
		there := addLevels(levels(), nil)["tea"]
		_, ok := a.give(ctx, 1, 0, link{}, []Item{{"tea", 1}})
		require.True(t, ok)
		on := onTheirWay(a.look(ctx, nil))
		moving := addLevels(levels(), on)["tea"]
		early := addLevels(levels(), nil)["tea"]
		_, err := a.Deduct(ctx, tea("o", userOf(a, 0), 1))
		require.NoError(t, err)
		late := addLevels(levels(), on)["tea"]
		sold := addLevels(levels(), nil)["tea"]

		for _, l := range []Level{there, moving, late} {
			require.EqualValues(t, 1, l.Left)
		}
		require.Zero(t, early.Left)
		require.Zero(t, sold.Left)
		require.LessOrEqual(t, there.Version, moving.Version)
		require.Less(t, moving.Version, sold.Version)
		require.Less(t, early.Version, sold.Version, "it was not sold out yet")
		require.Less(t, late.Version, sold.Version)
	})
}

// A bucket that lost its last transfer in a failover, while the other has it, goes on.
func TestAGiverThatForgot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1})
		apart(t, a, 1, 8)
		require.NoError(t, rdb.HSet(t.Context(), a.buckets[0].keys.levels, "<1", "7 1-0").Err())
		_, err := a.Deduct(t.Context(), tea("o", userOf(a, 0), 8))
		require.NoError(t, err)
		requireWhole(t, a, 0, 0, 8)
	})
}

// A bucket that lost in a failover that it took something is given it again.
func TestATakerThatForgot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1})
		apart(t, a, 1, 8)
		ctx, taker := t.Context(), a.buckets[0].keys.levels
		before, err := rdb.HGetAll(ctx, taker).Result()
		require.NoError(t, err)
		given, ok := a.give(ctx, 1, 0, link{}, []Item{{"tea", 1}})
		require.True(t, ok)
		require.NoError(t, a.finish(ctx, given))
		requireWhole(t, a, 8, 0, 0)
		require.NoError(t, rdb.HDel(ctx, taker, "<1").Err())
		require.NoError(t, rdb.HSet(ctx, taker, ":tea", before[":tea"]).Err())
		requireTea(t, a, 8, 0, 0)
		_, err = a.Deduct(ctx, tea("o", userOf(a, 0), 8))
		require.NoError(t, err)
		requireWhole(t, a, 0, 0, 8)
	})
}

// What an order costs, as the package comment has it.
func TestCallsOfAnOrderInBuckets(t *testing.T) {
	_, rdb := redistest.Mini(t)
	a := open(t, rdb, Options{Buckets: 3, SoldOutFor: -1})
	apart(t, a, 2, 4)
	calls := func(want int, bucket int, expect string) {
		t.Helper()
		before := a.Stats().Calls
		_, err := a.Deduct(t.Context(), tea(fmt.Sprint(before), userOf(a, bucket), 1))
		require.Contains(t, fmt.Sprint(err), expect)
		require.Equal(t, want, int(a.Stats().Calls-before))
	}
	calls(1, 2, "<nil>")       // at home
	calls(1+3+1+1, 0, "<nil>") // a look at three, a give, taken with the order; half of the three is one
	calls(1+3+1+1, 1, "<nil>") // one of the two
	calls(1, 2, "<nil>")       // the last
	for range 2 {
		calls(1+3+1+3, 0, "only 0 left")
	}
	require.Equal(t, uint64(2), a.Stats().Transfers)
}

// Two orders that need what the other's home has: one gets it.
func TestHomesThatTakeFromEachOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for range 10 {
			a := open(t, rdb, Options{Buckets: 2, SoldOutFor: -1, Prefix: redistest.Prefix(t)})
			require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 4, "cup": 4}))
			both := []Item{{"tea", 4}, {"cup", 4}}
			for {
				var wg sync.WaitGroup
				errs := make([]error, 2)
				for i := range errs {
					wg.Go(func() {
						_, errs[i] = a.Deduct(t.Context(), Order{ID: "o", User: userOf(a, i), Items: both})
					})
				}
				wg.Wait()
				if errs[0] == nil || errs[1] == nil {
					loser := max(fmt.Sprint(errs[0]), fmt.Sprint(errs[1]))
					require.True(t, strings.Contains(loser, "left") || strings.Contains(loser, "contended"), loser)
					break
				}
				require.ErrorIs(t, errs[0], ErrContended)
				require.ErrorIs(t, errs[1], ErrContended)
			}
			requireWhole(t, a, 0, 0, 4)
		}
	})
}

// Units that are held elsewhere, and come due there, are there for everybody.
func TestHoldsOfOtherBucketsComeBack(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a := open(t, b.Client(), Options{Buckets: 3, Hold: time.Second, SoldOutFor: -1})
		apart(t, a, 0, 5)
		_, err := a.Reserve(t.Context(), tea("held", userOf(a, 1), 5))
		require.NoError(t, err)
		_, err = a.Deduct(t.Context(), tea("o", userOf(a, 2), 5))
		require.ErrorIs(t, err, ErrInsufficient)
		time.Sleep(time.Second)
		_, err = a.Deduct(t.Context(), tea("o", userOf(a, 2), 5))
		require.NoError(t, err)
		requireWhole(t, a, 0, 0, 5)
	})
}

// The proof of a sell-out, and what is none.
func TestNowhereElse(t *testing.T) {
	empty := func(version int64) look {
		return look{left: []int64{0}, version: []int64{version}, links: make([]link, 2)}
	}
	// Home is bucket 0, and may have some.
	some := look{left: []int64{3}, version: []int64{9}, links: make([]link, 2)}
	ok := func(before, now []look) bool {
		_, ok := nowhereElse(before, now, 0, 0, "tea")
		return ok
	}
	require.True(t, ok([]look{some, empty(5)}, []look{empty(11), empty(5)}))
	require.False(t, ok(nil, []look{some, empty(5)}), "one look")
	require.False(t, ok([]look{some, empty(5)}, []look{some, empty(6)}), "it had some in between")
	require.False(t, ok([]look{some, some}, []look{some, some}), "it has some")
	require.False(t, ok([]look{some, empty(0)}, []look{some, empty(0)}), "not loaded yet")
	require.False(t, ok([]look{some, {err: ErrUnavailable}}, []look{some, empty(5)}), "not seen")
	for _, from := range []int{0, 1} {
		moving := []look{empty(5), empty(5)}
		moving[from].links[1-from] = link{gave: 2, items: []Item{{"tea", 1}}}
		moving[1-from].links[from] = link{took: 1}
		require.False(t, ok(moving, []look{empty(5), empty(5)}), "on its way before")
		require.False(t, ok([]look{empty(5), empty(5)}, moving), "on its way after")
		moving[from].links[1-from].items = []Item{{"cup", 1}}
		require.True(t, ok(moving, moving), "what is on its way is something else")
		if from == 0 { // home gave another one since, when the first had arrived
			moving[from].links[1-from].gave = 3
			require.False(t, ok([]look{empty(5), empty(5)}, moving), "it is not known what arrived in between")
			moving[from].links[1-from].gave = 2
		}
		moving[1-from].links[from].took = 2
		moving[from].links[1-from].items = []Item{{"tea", 1}}
		require.True(t, ok(moving, moving), "it has arrived")
	}
}

// A bucket out of reach: homes that have stock sell, others do not call it sold out.
func TestABucketIsDown(t *testing.T) {
	t.Parallel()
	c := redistest.Cluster(t, 3, 0)
	a := open(t, c.Client(), Options{Buckets: 3, SoldOutFor: -1})
	apart(t, a, 0, 2)
	c.MasterOf(a.buckets[2].keys.levels).Kill()
	_, err := a.Deduct(t.Context(), tea("o", userOf(a, 0), 1))
	require.NoError(t, err, "nobody else is asked")
	_, err = a.Deduct(t.Context(), tea("o", userOf(a, 1), 1))
	require.True(t, err == nil || errors.Is(err, ErrUnavailable), "%v", err) // the cluster may stop as a whole
	_, err = a.Deduct(t.Context(), tea("p", userOf(a, 1), 1))
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrUnknown, "nothing happened")
}

func FuzzLook(f *testing.F) {
	f.Add("3 17;0 0;0:0:13:4 3:tea2;.1-05:4 1-00:", 2, 2)
	f.Add("0:0:", 0, 1)
	f.Fuzz(func(t *testing.T, s string, items, buckets int) {
		if items < 0 || items > 10 || buckets < 0 || buckets > 10 {
			return
		}
		l, err := parseLook(s, items, buckets)
		if err == nil {
			require.Len(t, l.left, items)
			require.Len(t, l.links, buckets)
			for _, q := range l.left {
				require.GreaterOrEqual(t, q, int64(0))
			}
		}
	})
}

// A crowd that finds home empty asks once, not each for itself: two orders at home each,
// and few looks.
func TestACrowdLooksOnce(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		const crowd = 500
		var faults redistest.Faults
		a := open(t, b.Client(faults.Options), Options{Buckets: 3, SoldOutFor: -1})
		require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 0}))
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Times: -1, Delay: 10 * time.Millisecond})
		before := a.Stats().Calls
		var wg sync.WaitGroup
		for i := range crowd {
			wg.Go(func() {
				_, err := a.Deduct(t.Context(), tea(fmt.Sprint("o", i), fmt.Sprint("u", i), 1))
				if !errors.Is(err, ErrInsufficient) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Less(t, a.Stats().Calls-before, uint64(3*crowd))
	})
}

// Who hears "not enough" at home, after another order learned that all is sold, is told so.
func TestSoldOutWhileAnOrderWaited(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		a := open(t, b.Client(faults.Options), Options{Buckets: 3})
		require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 0}))
		for _, retry := range []bool{false, true} {
			a.memory.forget([]Item{{"tea", 1}})
			faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: 10 * time.Millisecond})
			before := a.Stats().Calls
			time.AfterFunc(5*time.Millisecond, func() { a.memory.seen("tea", 1, 0, time.Now()) })
			o := tea("o", "u", 1)
			o.Retry = retry
			res, err := a.Deduct(t.Context(), o)
			require.ErrorIs(t, err, ErrInsufficient)
			require.Equal(t, !retry, res.FromMemory, "a retry wants to know it of now")
			require.Equal(t, !retry, a.Stats().Calls-before == 1)
		}
	})
}

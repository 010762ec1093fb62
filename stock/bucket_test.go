package stock

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// eachBucketed runs f everywhere, on a cluster of three masters too, with a loaded
// activity of three buckets.
func eachBucketed(t *testing.T, opts Options, stock map[string]int64, f func(t *testing.T, a *Activity)) {
	if opts.Buckets == 0 {
		opts.Buckets = 3
	}
	run := func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, opts)
		if stock != nil {
			require.NoError(t, a.Load(t.Context(), stock))
		}
		f(t, a)
	}
	redistest.Each(t, run)
	t.Run("cluster of three", func(t *testing.T) { run(t, redistest.Cluster(t, 3, 0).Client()) })
}

// userOf returns a user whose home is that bucket.
func userOf(a *Activity, bucket int) string {
	for i := 0; ; i++ {
		if u := fmt.Sprintf("user-%d", i); a.home(u).bucket == bucket {
			return u
		}
	}
}

// The last unit sells, wherever it is and whoever asks, and not one more.
func TestBucketsSellTheLastUnit(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1}, map[string]int64{"tea": 100, "cup": 1}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		u := userOf(a, 2)
		for i := range 50 {
			_, err := a.Deduct(ctx, tea(fmt.Sprint("o", i), u, 2))
			require.NoError(t, err, i)
		}
		requireTea(t, a, 0, 0, 100)
		for bucket := range 3 {
			_, err := a.Deduct(ctx, tea("more", userOf(a, bucket), 1))
			require.ErrorIs(t, err, ErrInsufficient)
		}
		var wg sync.WaitGroup
		sold := make([]error, 12)
		for i := range sold {
			wg.Go(func() {
				_, sold[i] = a.Deduct(ctx, Order{ID: fmt.Sprint("c", i), User: userOf(a, i%3), Items: []Item{{"cup", 1}}})
			})
		}
		wg.Wait()
		n := 0
		for _, err := range sold {
			if err == nil {
				n++
			} else {
				require.ErrorIs(t, err, ErrInsufficient)
			}
		}
		require.Equal(t, 1, n)
	})
}

// Where an order belongs, and what a bucket is loaded with, is a part of the layout:
// another answer would grant old orders anew.
func TestHomesAndSharesNeverChange(t *testing.T) {
	_, rdb := redistest.Mini(t)
	a := open(t, rdb, Options{Buckets: 6, Prefix: "p"})
	var homes []int
	count := make([]int, 6)
	for i := range 6000 {
		h := a.home(fmt.Sprint("user-", i)).bucket
		count[h]++
		if i < 12 {
			homes = append(homes, h)
		}
	}
	require.Equal(t, []int{4, 5, 0, 1, 1, 3, 5, 5, 3, 0, 4, 1}, homes)
	for _, n := range count {
		require.InDelta(t, 1000, n, 150, "%v", count)
	}
	require.Equal(t, "p:stock1:{sale%b6.0.23}:levels", a.buckets[0].keys.levels)
	for _, q := range []int64{0, 1, 5, 6, 100, maxQty} {
		for _, sku := range []string{"tea", "cup"} {
			sum := int64(0)
			for i := range 6 {
				sum += share(sku, q, i, 6)
			}
			require.Equal(t, q, sum)
		}
	}
	require.Equal(t, []int64{0, 1}, []int64{share("tea", 1, 3, 6), share("tea", 1, 4, 6)})
}

func TestLoadBuckets(t *testing.T) {
	eachBucketed(t, Options{}, nil, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		stock := map[string]int64{"tea": 100, "cup": 1, "pot": 0}
		require.NoError(t, a.Load(ctx, stock))
		_, err := a.Deduct(ctx, tea("o", "u", 7))
		require.NoError(t, err)
		require.NoError(t, a.Load(ctx, stock))
		require.ErrorIs(t, a.Load(ctx, map[string]int64{"jar": 5, "tea": 101}), ErrConflict)
		requireLevels(t, a, map[string]Level{"tea": {Left: 93, Sold: 7}, "cup": {Left: 1}, "pot": {}})
		named, err := a.Stock(ctx, "tea", "nothing")
		require.NoError(t, err)
		require.Len(t, named, 1)
		require.Equal(t, int64(93), named["tea"].Left)
		_, err = a.Deduct(ctx, Order{ID: "n", User: "u", Items: []Item{{"nothing", 1}}})
		require.ErrorIs(t, err, ErrNoSKU)

		// A Load that died half-way is finished by the next.
		require.NoError(t, a.rdb.Del(ctx, a.buckets[1].keys.all...).Err())
		require.NoError(t, a.Load(ctx, stock))

		// Another number of buckets is another activity, and says so.
		for _, buckets := range []int{0, 2} {
			other := a.opts
			other.Buckets = buckets
			b := open(t, a.rdb, other)
			require.ErrorIs(t, b.Load(ctx, stock), ErrInvalid)
			require.ErrorContains(t, b.Load(ctx, stock), "loaded with 3")
			_, err := b.Deduct(ctx, tea("o2", "u", 1))
			require.Error(t, err)
			if buckets == 2 {
				require.ErrorContains(t, err, "loaded with 3")
			}
		}
		undivided := open(t, a.rdb, Options{Prefix: redistest.Prefix(t)})
		require.NoError(t, undivided.Load(ctx, stock))
		require.ErrorIs(t, open(t, a.rdb, Options{Prefix: undivided.opts.Prefix, Buckets: 3}).Load(ctx, stock), ErrInvalid)
	})
}

// Two processes that load different figures: all buckets have the figures of one.
func TestLoadBucketsDifferently(t *testing.T) {
	eachBucketed(t, Options{}, nil, func(t *testing.T, a *Activity) {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = a.Load(t.Context(), map[string]int64{"tea": int64(10 + i), "cup": 5}) })
		}
		wg.Wait()
		won := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, won)
				won = i
			} else {
				require.ErrorIs(t, err, ErrConflict)
			}
		}
		requireLevels(t, a, map[string]Level{"tea": {Left: int64(10 + won)}, "cup": {Left: 5}})
	})
}

func TestLoadManyIntoBuckets(t *testing.T) {
	_, rdb := redistest.Mini(t)
	a := open(t, rdb, Options{Buckets: 2})
	stock := map[string]int64{}
	for i := range 1200 {
		stock[fmt.Sprint("sku", i)] = int64(i)
	}
	require.NoError(t, a.Load(t.Context(), stock))
	info, err := a.Inspect(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1200), info.SKUs)
	stock["sku1100"], stock["new"] = 1, 1
	require.ErrorIs(t, a.Load(t.Context(), stock), ErrConflict)
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	require.Len(t, levels, 1200, "a conflict is found before anything is loaded")
}

func TestRestockBuckets(t *testing.T) {
	eachBucketed(t, Options{}, map[string]int64{"tea": 3, "big": maxQty - 5}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		for range 2 {
			_, err := a.Restock(ctx, "r", Item{"tea", 4}, Item{"big", 5})
			require.NoError(t, err)
		}
		_, err := a.Restock(ctx, "r", Item{"tea", 5})
		require.ErrorIs(t, err, ErrConflict)
		_, err = a.Restock(ctx, "s", Item{"tea", 1}, Item{"big", 1})
		require.ErrorIs(t, err, ErrInvalid)
		_, err = a.Restock(ctx, "s", Item{"nothing", 1})
		require.ErrorIs(t, err, ErrNoSKU)
		requireLevels(t, a, map[string]Level{"tea": {Left: 7}, "big": {Left: maxQty}})
	})
}

// An order that was granted is granted once, though it is retried after every other
// bucket got stock. Buckets that are probed in turn grant it again.
func TestRetryAfterARestockElsewhere(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1}, map[string]int64{"tea": 0}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		sells := func(s seller, id string) (granted int) {
			order := Order{ID: id, User: userOf(a, 2), Items: []Item{{"tea", 1}}, Retry: true}
			for bucket := 2; bucket >= 0; bucket-- {
				_, err := a.Restock(ctx, id+userOf(a, bucket), Item{"tea", 1})
				require.NoError(t, err)
				_, err = s.Deduct(ctx, order)
				require.NoError(t, err)
			}
			return len(kindsOf(t, a, id))
		}
		require.Greater(t, sells(prober{a}, "p"), 1, "the control sees nothing")
		require.Equal(t, 1, sells(a, "o"))
	})
}

// kindsOf is kinds over the journals of all buckets.
func kindsOf(t testing.TB, a *Activity, id string) (all []OpKind) {
	for e, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		for _, o := range e.Ops {
			if o.ID == id {
				all = append(all, o.Kind)
			}
		}
	}
	return all
}

// Limits, eligibility, holds and halts hold as in one bucket.
func TestBucketsAdministered(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1, UserLimit: 4, EligibleOnly: true}, map[string]int64{"tea": 9}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		users := []string{userOf(a, 0), userOf(a, 1), userOf(a, 2)}
		_, err := a.Deduct(ctx, tea("o", users[0], 1))
		require.ErrorIs(t, err, ErrNotEligible)
		require.NoError(t, a.Allow(ctx, users...))
		for _, u := range users { // each needs more than its bucket was loaded with, but for the limit
			_, err = a.Deduct(ctx, tea("o", u, 5))
			require.ErrorIs(t, err, ErrLimit)
			_, err = a.Reserve(ctx, tea("o", u, 2))
			require.NoError(t, err)
			_, err = a.Reserve(ctx, tea("p", u, 3))
			require.ErrorIs(t, err, ErrLimit)
		}
		requireTea(t, a, 3, 6, 0)
		holds := map[Ref]bool{}
		for h, err := range a.Holds(ctx) {
			require.NoError(t, err)
			holds[h.Ref] = true
		}
		require.Equal(t, map[Ref]bool{{"o", users[0]}: true, {"o", users[1]}: true, {"o", users[2]}: true}, holds)
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(1), info.SKUs)
		require.Equal(t, int64(3), info.OpenHolds)
		require.False(t, info.NextDue.IsZero())
		require.NoError(t, a.Halt(ctx, "tea is cold"))
		for _, u := range users {
			_, err = a.Reserve(ctx, tea("q", u, 1))
			require.ErrorContains(t, err, "tea is cold")
		}
		info, err = a.Inspect(ctx)
		require.NoError(t, err)
		require.Equal(t, "tea is cold", info.Halted)
		require.NoError(t, a.Resume(ctx))
		_, err = a.Confirm(ctx, Ref{"o", users[0]})
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"o", users[1]}, "")
		require.NoError(t, err)
		res, err := a.Lookup(ctx, Ref{"o", users[2]})
		require.NoError(t, err)
		require.Equal(t, Reserved, res.State)
		requireTea(t, a, 5, 2, 2)
		require.Positive(t, a.Stats().Calls)
		require.NoError(t, a.Drop(ctx))
		require.Empty(t, keysOf(t, a.rdb, a))
		require.NoError(t, a.Close(ctx))
		_, err = a.Reserve(ctx, tea("r", users[0], 1))
		require.ErrorIs(t, err, ErrClosed)
		_, err = a.Cancel(ctx, Ref{"o", users[1]}, "")
		require.ErrorIs(t, err, ErrClosed)
		_, err = a.Stock(ctx)
		require.NoError(t, err, "what only reads goes on")
	})
}

// An order that wants the whole of it fetches it all; a partial one what there is.
func TestPartialOrdersFetchStock(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1}, map[string]int64{"tea": 9, "cup": 6, "pot": 0}, func(t *testing.T, a *Activity) {
		res, err := a.Deduct(t.Context(), Order{ID: "o", User: userOf(a, 1), Items: []Item{{"tea", 9}, {"pot", 1}, {"cup", 6}}, Partial: true})
		require.NoError(t, err)
		require.Equal(t, []Item{{"tea", 9}, {"cup", 6}}, res.Items)
		require.Equal(t, []Item{{"pot", 1}}, res.Missing)
		_, err = a.Deduct(t.Context(), Order{ID: "p", User: userOf(a, 2), Items: []Item{{"tea", 1}, {"pot", 1}}, Partial: true})
		require.ErrorIs(t, err, ErrInsufficient)
		requireLevels(t, a, map[string]Level{"tea": {Sold: 9}, "cup": {Sold: 6}, "pot": {}})
	})
}

func TestEntriesOfBuckets(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1}, map[string]int64{"tea": 3}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Deduct(ctx, tea("o", userOf(a, 0), 3))
		require.NoError(t, err)
		var all []Entry
		byBucket := make([][]Entry, 3)
		for e, err := range a.Entries(ctx, "") {
			require.NoError(t, err)
			all = append(all, e)
			byBucket[e.Bucket] = append(byBucket[e.Bucket], e)
		}
		for i, own := range byBucket {
			require.NotEmpty(t, own)
			last := fmt.Sprintf("%d/0-0", i)
			for k, e := range own {
				require.Equal(t, last, e.Prev)
				var rest []Entry
				for r, err := range a.Entries(ctx, e.Prev) {
					require.NoError(t, err)
					rest = append(rest, r)
				}
				require.Equal(t, own[k:], rest)
				last = e.ID
			}
		}
		require.Equal(t, OpDeduct, byBucket[0][len(byBucket[0])-1].Ops[2].Kind, "taken and sold in one step: %v", byBucket[0])
		for _, from := range []string{"0-0", "3/0-0", "x/1-0", "1/", "-1/0-0"} {
			for _, err := range a.Entries(ctx, from) {
				require.ErrorIs(t, err, ErrInvalid, from)
			}
		}
		require.Equal(t, "give", OpGive.String())
		require.Equal(t, "take", OpTake.String())
	})
}

// From memory only after Redis proved it, and not after this process brought some.
func TestBucketsSoldOutInMemory(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a := open(t, b.Client(), Options{Buckets: 3})
		ctx := t.Context()
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 2}))
		asked := func(id string, bucket int) (fromMemory bool, err error) {
			res, err := a.Deduct(ctx, tea(id, userOf(a, bucket), 1))
			return res.FromMemory, err
		}
		for i := range 2 { // one bucket has none of the two, the others one each
			memory, err := asked(fmt.Sprint(i), 1)
			require.NoError(t, err)
			require.False(t, memory)
		}
		memory, err := asked("x", 0)
		require.ErrorIs(t, err, ErrInsufficient)
		require.False(t, memory)
		memory, err = asked("x", 2)
		require.ErrorIs(t, err, ErrInsufficient)
		require.True(t, memory)
		require.Equal(t, uint64(1), a.Stats().FromMemory)
		_, err = a.Cancel(ctx, Ref{"0", userOf(a, 1)}, "")
		require.NoError(t, err)
		_, err = asked("x", 2)
		require.NoError(t, err)
		_, err = asked("y", 2)
		require.ErrorIs(t, err, ErrInsufficient)
		other := open(t, b.Client(), a.opts)
		_, err = other.Restock(ctx, "r", Item{"tea", 1})
		require.NoError(t, err)
		memory, err = asked("y", 2)
		require.ErrorIs(t, err, ErrInsufficient)
		require.True(t, memory, "another process's")
		time.Sleep(a.opts.SoldOutFor + 1)
		_, err = asked("y", 2)
		require.NoError(t, err)
	})
}

// Run tells when the last unit of all buckets is gone, and when the first is back;
// a bucket that runs out is nobody's business.
func TestEventsOfBuckets(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var mu sync.Mutex
		var events []Event
		a := open(t, b.Client(), Options{Buckets: 3, OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}})
		ctx := t.Context()
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 6, "pot": 0}))
		stop := start(t, a.Run)
		step := func(do func() error, want ...int64) {
			t.Helper()
			require.NoError(t, do())
			time.Sleep(3 * watchEvery)
			mu.Lock()
			defer mu.Unlock()
			var got []int64
			for i, e := range events {
				require.Equal(t, "tea", e.SKU)
				require.True(t, i == 0 || e.Version > events[i-1].Version)
				got = append(got, e.Left)
			}
			require.Equal(t, want, got)
		}
		step(func() error { _, err := a.Deduct(ctx, tea("a", userOf(a, 0), 5)); return err })
		step(func() error { _, err := a.Deduct(ctx, tea("b", userOf(a, 1), 1)); return err }, 0)
		step(func() error { _, err := a.Cancel(ctx, Ref{"a", userOf(a, 0)}, ""); return err }, 0, 5)
		step(func() error { _, err := a.Deduct(ctx, tea("c", userOf(a, 2), 5)); return err }, 0, 5, 0)
		require.Equal(t, uint64(3), a.Stats().Events)
		stop()
	})
}

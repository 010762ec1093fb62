package stock

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestLoad(t *testing.T) {
	each(t, Options{}, nil, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Deduct(ctx, tea("o", "u", 1))
		require.ErrorIs(t, err, ErrNoSKU)
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5, "none": 0, "most": maxQty}))
		_, err = a.Deduct(ctx, tea("o", "u", 2))
		require.NoError(t, err)
		_, err = a.Restock(ctx, "r", Item{"tea", 4})
		require.NoError(t, err)
		before := ops(t, a)
		// The same again is nothing, whatever was sold since.
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5, "none": 0, "most": maxQty}))
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5}))
		// Other figures are a conflict, and then nothing is loaded at all.
		err = a.Load(ctx, map[string]int64{"new": 1, "tea": 7})
		require.ErrorIs(t, err, ErrConflict)
		require.ErrorContains(t, err, `"tea" was loaded with 5`)
		require.Equal(t, before, ops(t, a))
		want := map[string]Level{"tea": {Left: 7, Sold: 2}, "none": {}, "most": {Left: maxQty}}
		requireLevels(t, a, want)
		// SKUs may be added.
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5, "new": 1}))
		want["new"] = Level{Left: 1}
		requireLevels(t, a, want)
		last := ops(t, a)[len(before)]
		require.Equal(t, Op{Kind: OpLoad, Items: []Item{{"new", 1}}}, last)
		require.Empty(t, crossings(t, a))
		// All of the most can be sold at once.
		_, err = a.Deduct(ctx, Order{ID: "all", User: "u", Items: []Item{{"most", maxQty}}})
		require.NoError(t, err)
	})
}

func TestLoadMany(t *testing.T) {
	each(t, Options{}, nil, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		many := map[string]int64{}
		for i := range 1203 {
			many[fmt.Sprintf("sku-%04d", i)] = int64(i)
		}
		require.NoError(t, a.Load(ctx, many))
		require.NoError(t, a.Load(ctx, many))
		levels, err := a.Stock(ctx)
		require.NoError(t, err)
		require.Len(t, levels, len(many))
		var names []string
		for sku, n := range many {
			require.Equal(t, n, levels[sku].Left)
			names = append(names, sku)
		}
		named, err := a.Stock(ctx, append(names, "unknown")...)
		require.NoError(t, err)
		require.Equal(t, levels, named)
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.EqualValues(t, len(many), info.SKUs)
		// A conflict in the last of several round trips: nothing is loaded.
		for i := range 600 {
			many[fmt.Sprintf("another-%04d", i)] = 1
		}
		many["sku-1202"] = 1
		require.ErrorIs(t, a.Load(ctx, many), ErrConflict)
		levels, err = a.Stock(ctx)
		require.NoError(t, err)
		require.Len(t, levels, 1203)
	})
}

func TestRestock(t *testing.T) {
	each(t, Options{}, map[string]int64{"tea": 5, "most": maxQty - 10}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Deduct(ctx, tea("o", "u", 5))
		require.NoError(t, err)
		for i := range 3 {
			res, err := a.Restock(ctx, "r", Item{"tea", 4}, Item{"most", 4})
			require.NoError(t, err)
			require.Equal(t, i > 0, res.Replayed)
			require.Equal(t, []Item{{"tea", 4}, {"most", 4}}, res.Items)
			require.Equal(t, None, res.State)
		}
		_, err = a.Deduct(ctx, tea("p", "u", 4))
		require.NoError(t, err)
		res, err := a.Restock(ctx, "r", Item{"tea", 4}, Item{"most", 4}) // still
		require.NoError(t, err)
		require.True(t, res.Replayed)
		_, err = a.Restock(ctx, "r2", Item{"unknown", 1})
		require.ErrorIs(t, err, ErrNoSKU)
		// 2^52 in all, of which it does not matter how many were sold.
		_, err = a.Deduct(ctx, Order{ID: "q", User: "u", Items: []Item{{"most", maxQty - 10}}})
		require.NoError(t, err)
		_, err = a.Restock(ctx, "r3", Item{"tea", 1}, Item{"most", 7})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, `"most"`)
		_, err = a.Restock(ctx, "r3", Item{"tea", 1}, Item{"most", 6}) // the id is still free
		require.NoError(t, err)
		_, err = a.Restock(ctx, "r4", Item{"most", 1})
		require.ErrorIs(t, err, ErrInvalid)
		requireLevels(t, a, map[string]Level{"tea": {Left: 1, Sold: 9}, "most": {Left: 10, Sold: maxQty - 10}})
		requireConserved(t, a)
	})
}

func TestInspectAndHolds(t *testing.T) {
	each(t, Options{}, nil, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.Equal(t, Info{}, info)
		require.Empty(t, journal(t, a))
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 1000, "cup": 1}))
		want := map[Ref]Hold{}
		for i := range 300 {
			ref := Ref{fmt.Sprint("o", i), fmt.Sprint("u", i%7)}
			res, err := a.Reserve(ctx, Order{ID: ref.ID, User: ref.User, Items: []Item{{"tea", 1 + int64(i%3)}, {"cup", 2}}, Partial: true})
			require.NoError(t, err)
			want[ref] = Hold{Ref: ref, Items: res.Items, Expires: res.Expires}
		}
		_, err = a.Confirm(ctx, Ref{"o0", "u0"})
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"o1", "u1"}, "")
		require.NoError(t, err)
		delete(want, Ref{"o0", "u0"})
		delete(want, Ref{"o1", "u1"})
		got := map[Ref]Hold{}
		for h, err := range a.Holds(ctx) {
			require.NoError(t, err)
			got[h.Ref] = h
		}
		require.Equal(t, want, got)
		for h, err := range a.Holds(ctx) { // may be left early
			require.NoError(t, err)
			require.Contains(t, want, h.Ref)
			break
		}
		entries := journal(t, a)
		info, err = a.Inspect(ctx)
		require.NoError(t, err)
		require.False(t, info.NextDue.IsZero())
		require.Equal(t, Info{
			SKUs: 2, OpenHolds: 298, NextDue: info.NextDue, Entries: int64(len(entries)), LastEntry: entries[len(entries)-1].ID,
			LastEntries: map[string]string{"sale": entries[len(entries)-1].ID},
		}, info)
	})
}

func TestEntries(t *testing.T) {
	each(t, Options{}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Reserve(ctx, tea("o", "u", 5))
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"o", "u"}, "changed my mind")
		require.NoError(t, err)
		_, err = a.Deduct(ctx, Order{ID: "p", User: "u", Items: []Item{{"cup", 3}, {"tea", 1}}, Partial: true})
		require.NoError(t, err)
		_, err = a.Confirm(ctx, Ref{"p", "u"})
		require.NoError(t, err)
		all := journal(t, a)
		require.Len(t, all, 5)
		require.Equal(t, a.opts.Hold, all[1].Hold)
		require.Zero(t, all[2].Hold)
		got := ops(t, a)
		for i := range got {
			got[i].Event.Version = 0
		}
		require.Equal(t, []Op{
			{Kind: OpLoad, Items: []Item{{"cup", 2}, {"tea", 5}}},
			{Kind: OpReserve, ID: "o", User: "u", Items: []Item{{"tea", 5}}},
			{Kind: OpCrossing, Event: Event{SKU: "tea"}},
			{Kind: OpCancel, ID: "o", User: "u", Items: []Item{{"tea", 5}}, Reason: "changed my mind", Held: true},
			{Kind: OpCrossing, Event: Event{SKU: "tea", Left: 5}},
			{Kind: OpDeduct, ID: "p", User: "u", Items: []Item{{"tea", 1}}, Partial: true},
			{Kind: OpConfirm, ID: "p", User: "u", Items: []Item{{"tea", 1}}, Partial: true},
		}, got)
		// From anywhere, over several pages, and left early.
		for i := range 300 {
			_, err := a.Reserve(ctx, tea(fmt.Sprint(i), "u", 1))
			if err != nil {
				break
			}
			_, err = a.Cancel(ctx, Ref{fmt.Sprint(i), "u"}, "")
			require.NoError(t, err)
		}
		all = journal(t, a)
		require.Len(t, all, 605)
		var rest []Entry
		for e, err := range a.Entries(ctx, all[99].ID) {
			require.NoError(t, err)
			rest = append(rest, e)
		}
		require.Equal(t, all[100:], rest)
		for _, err := range a.Entries(ctx, "") {
			require.NoError(t, err)
			break
		}
		for e, err := range a.Entries(ctx, all[604].ID) {
			t.Fatalf("an entry after the last: %v, %v", e, err)
		}
		for _, err := range a.Entries(ctx, "not an id") {
			require.Error(t, err)
		}
	})
}

func TestDrop(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{UserLimit: 10, EligibleOnly: true, SoldOutFor: -1})
		other, err := New(rdb, "another", a.opts)
		require.NoError(t, err)
		require.NoError(t, a.Drop(ctx)) // of nothing
		for _, x := range []*Activity{a, other} {
			require.NoError(t, x.Load(ctx, lostStock))
			require.NoError(t, x.Allow(ctx, "u"))
			_, err := x.Reserve(ctx, tea("o", "u", 5))
			require.NoError(t, err)
			_, err = x.Deduct(ctx, Order{ID: "p", User: "u", Items: []Item{{"cup", 1}}})
			require.NoError(t, err)
		}
		n := len(keysOf(t, rdb, a))
		require.Equal(t, 14, n)
		require.NoError(t, a.Drop(ctx))
		require.NoError(t, a.Drop(ctx))
		require.Len(t, keysOf(t, rdb, a), 7, "the other activity's")
		_, err = a.Lookup(ctx, Ref{"o", "u"})
		require.ErrorIs(t, err, ErrNotFound)
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 9})) // a new life
		require.NoError(t, a.Allow(ctx, "u"))
		_, err = a.Reserve(ctx, tea("o", "u", 9))
		require.NoError(t, err)
		require.NoError(t, a.Drop(ctx))
		require.NoError(t, other.Drop(ctx))
		require.Empty(t, keysOf(t, rdb, a))
	})
}

// A sale that outlived its Retention leaves nothing that the next one of its name could
// take for its own.
func TestDropOfAnOldSale(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{SoldOutFor: -1, Hold: time.Minute, Retention: 20 * time.Minute})
		buy := func(id string) Result {
			res, err := a.Deduct(ctx, tea(id, "u", 1))
			require.NoError(t, err)
			return res
		}
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
		for _, id := range []string{"a", "b", "c"} {
			buy(id)
			time.Sleep(a.opts.Retention)
		}
		buy("d")
		require.NoError(t, a.Drop(ctx))
		require.Empty(t, keysOf(t, a.rdb, a))
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
		require.False(t, buy("a").Replayed)
		time.Sleep(2 * time.Minute)
		require.True(t, buy("a").Replayed)
	})
}

func TestStats(t *testing.T) {
	_, rdb := redistest.Mini(t)
	a := open(t, rdb, Options{})
	ctx := t.Context()
	require.Equal(t, Stats{}, a.Stats())
	require.NoError(t, a.Load(ctx, lostStock))
	_, err := a.Deduct(ctx, tea("o", "u", 5))
	require.NoError(t, err)
	again := tea("p", "u", 1)
	again.Retry = true
	_, err = a.Deduct(ctx, again)
	require.ErrorIs(t, err, ErrInsufficient)
	_, err = a.Deduct(ctx, tea("q", "u", 1))
	require.ErrorIs(t, err, ErrInsufficient)
	require.Equal(t, Stats{Calls: 3, Batches: 3, FromMemory: 1, Insufficient: 1}, a.Stats())
}

func TestNamesOfKindsAndStates(t *testing.T) {
	for k, want := range map[OpKind]string{OpLoad: "load", OpRestock: "restock", OpDeduct: "deduct", OpReserve: "reserve", OpConfirm: "confirm", OpCancel: "cancel", OpExpire: "expire", OpCrossing: "crossing", 'z': `OpKind('z')`} {
		require.Equal(t, want, k.String())
	}
	for s, want := range map[State]string{None: "none", Reserved: "reserved", Sold: "sold", Confirmed: "confirmed", Cancelled: "cancelled", Expired: "expired", 99: "State(99)"} {
		require.Equal(t, want, s.String())
	}
}

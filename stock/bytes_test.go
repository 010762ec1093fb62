package stock

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Names may be any bytes: they neither leave their key nor confuse a format.

// nasty draws bytes that mean something to a format, a pattern or a key.
func nasty(limit int) *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[0-9:;.+/@x{}%\r\n\x00-]{1,12}`),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 20), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), limit, limit), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"@", "@halt", ":", "0", "1:a", "load", "4+load", "tea", "*", "V3:a5.1 0.", "R1:a", "X;-", "/", ".", " ", "é\x00世"}),
	)
}

func TestAnyBytes(t *testing.T) {
	run := func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			ctx := t.Context()
			name := nasty(300).Draw(rt, "activity")
			opts := Options{
				Prefix: fmt.Sprint(prefix, "-", n), SoldOutFor: -1,
				UserLimit: maxQty, UserSKULimit: rapid.SampledFrom([]int64{0, maxQty}).Draw(rt, "limit"),
			}
			a, err := New(rdb, name, opts)
			require.NoError(rt, err)
			skus := rapid.SliceOfNDistinct(nasty(maxSKU), 1, 5, rapid.ID[string]).Draw(rt, "skus")
			stock := map[string]int64{}
			for _, sku := range skus {
				stock[sku] = 10
			}
			require.NoError(rt, a.Load(ctx, stock))
			ids := rapid.SliceOfNDistinct(nasty(maxID), 4, 4, rapid.ID[string]).Draw(rt, "ids")
			user := nasty(maxID).Draw(rt, "user")
			reason := nasty(maxID).Draw(rt, "reason")
			items := []Item{{skus[0], 3}}
			if len(skus) > 1 {
				items = append(items, Item{skus[1], 11}) // too many
			}
			// Held, partial where it can be; sold and cancelled; restocked; cancelled early.
			held, err := a.Reserve(ctx, Order{ID: ids[0], User: user, Items: items, Partial: true})
			require.NoError(rt, err)
			require.Equal(rt, items[:1], held.Items)
			require.ElementsMatch(rt, items[1:], held.Missing)
			last := Item{skus[len(skus)-1], 2}
			_, err = a.Deduct(ctx, Order{ID: ids[1], User: user, Items: []Item{last}})
			require.NoError(rt, err)
			_, err = a.Cancel(ctx, Ref{ids[1], user}, reason)
			require.NoError(rt, err)
			_, err = a.Restock(ctx, ids[2], last)
			require.NoError(rt, err)
			_, err = a.Cancel(ctx, Ref{ids[3], user}, reason)
			require.NoError(rt, err)

			// Every answer again, now from the records.
			res, err := a.Lookup(ctx, Ref{ids[0], user})
			require.NoError(rt, err)
			held.Replayed, held.At = true, res.At
			require.Equal(rt, held, res)
			end := len(user) - 1
			_, err = a.Lookup(ctx, Ref{ids[0], user[:end] + string([]byte{user[end] ^ 1})})
			require.ErrorIs(rt, err, ErrConflict)
			_, err = a.Deduct(ctx, Order{ID: ids[3], User: user, Items: []Item{last}})
			require.ErrorIs(rt, err, ErrCancelled)
			res, err = a.Restock(ctx, ids[2], last)
			require.NoError(rt, err)
			require.True(rt, res.Replayed)
			for h, err := range a.Holds(ctx) {
				require.NoError(rt, err)
				require.Equal(rt, Hold{Ref{ids[0], user}, held.Items, held.Expires}, h)
			}

			// And the journal.
			var got []Op
			for e, err := range a.Entries(ctx, "") {
				require.NoError(rt, err)
				got = append(got, e.Ops...)
			}
			var loaded []Item
			for _, sku := range slices.Sorted(maps.Keys(stock)) {
				loaded = append(loaded, Item{sku, 10})
			}
			require.Equal(rt, []Op{
				{Kind: OpLoad, Items: loaded},
				{Kind: OpReserve, ID: ids[0], User: user, Items: held.Items, Partial: true},
				{Kind: OpDeduct, ID: ids[1], User: user, Items: []Item{last}},
				{Kind: OpCancel, ID: ids[1], User: user, Items: []Item{last}, Reason: reason},
				{Kind: OpRestock, ID: ids[2], Items: []Item{last}},
			}, got)
			levels, err := a.Stock(ctx)
			require.NoError(rt, err)
			require.Len(rt, levels, len(stock))
			require.EqualValues(rt, 3, levels[skus[0]].Reserved)

			for _, k := range keysOf(t, rdb, a) {
				require.True(rt, strings.HasPrefix(k, opts.Prefix+":stock1:{"), "%q", k)
				require.Equal(rt, 1, strings.Count(k, "{"), "%q", k)
				require.Equal(rt, 1, strings.Count(k, "}"), "%q", k)
			}
			require.NoError(rt, a.Drop(ctx))
			require.Empty(rt, keysOf(t, rdb, a))
		})
	}
	t.Run("server", func(t *testing.T) { run(t, redistest.Shared(t).Client()) })
	t.Run("miniredis", func(t *testing.T) {
		_, rdb := redistest.Mini(t)
		run(t, rdb)
	})
}

// The sweep walks the journal past anything that can stand in it.
func TestSweepOfAnyBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		user, reason := nasty(maxID).Draw(rt, "user"), nasty(maxID).Draw(rt, "reason")
		ids := rapid.SliceOfNDistinct(nasty(maxID), 3, 8, rapid.ID[string]).Draw(rt, "ids")
		sku := nasty(maxSKU).Draw(rt, "sku")
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			ctx := t.Context()
			a := open(t, b.Client(), Options{Hold: time.Minute, SoldOutFor: -1})
			require.NoError(t, a.Load(ctx, map[string]int64{sku: int64(len(ids)) - 1}))
			order := func(id string) *op { return newOp('R', ':', id, user, []Item{{sku, 1}}) }
			cancel := newOp('X', ':', ids[0], user, nil)
			cancel.reason = reason
			batch := []*op{order(ids[0]), order(ids[1]), cancel, newOp('A', '+', ids[0], "", []Item{{sku, 1}})}
			for _, id := range ids[2:] {
				batch = append(batch, order(id))
			}
			_, err := a.flush(ctx, "", batch)
			require.NoError(t, err)
			time.Sleep(time.Minute)
			_, _, err = a.sweep(ctx)
			require.NoError(t, err)
			for i, id := range ids {
				want := []OpKind{OpReserve, OpExpire}
				if i == 0 {
					want = []OpKind{OpReserve, OpCancel, OpRestock}
				}
				require.Equal(t, want, kinds(t, a, id), "%q", id)
			}
			levels, err := a.Stock(ctx)
			require.NoError(t, err)
			require.EqualValues(t, len(ids), levels[sku].Left)
		})
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"R1795211442148;R1:u3:tea2;.", "D;D1:u3:tea2;3:cup1;.", "X;-1:u.", "C/8:3:tea2;.P1:u3:tea2;3:cup9;.", "E;R0:.", "A;A0:3:tea1;.",
		"F;nonce.0", "", "R", "R9999999999999999999999;R1:u.", "D/99:", "D;D-1:u.", "D;D+1:u.",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rec, err := parseRecord(s)
		if err != nil {
			require.Equal(t, record{}, rec)
			return
		}
		require.NotEqual(t, None, rec.state)
		requireFits(t, s, append(rec.granted, rec.requested...))
		require.LessOrEqual(t, len(rec.missing()), len(rec.requested))
	})
}

func FuzzParseOps(f *testing.F) {
	for _, s := range []string{
		"L4+loadL0:3:tea5;.", "R1:oR1:u3:tea5;.V3:tea1795211442148418 0.", "X1:oR1:u3:tea5;.3:why", "A1+rA0:3:tea1;.", "C1:oQ1:u3:tea1;.E1:pR1:u3:tea1;.",
		"", "R", "V3:tea1 0", "Z1:oR1:u.", "X1:oR1:u.9:why", "R-1:oR1:u.", "R1:oR1:u3:tea-5;.",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ops, err := parseOps(s)
		if err != nil {
			require.Empty(t, ops)
			return
		}
		for _, o := range ops {
			requireFits(t, s, o.Items)
			require.LessOrEqual(t, len(o.ID)+len(o.User)+len(o.Reason), len(s))
			require.GreaterOrEqual(t, o.Event.Left, int64(0))
		}
	})
}

// requireFits: what was read was there.
func requireFits(t *testing.T, s string, items []Item) {
	t.Helper()
	require.LessOrEqual(t, len(items), len(s))
	for _, it := range items {
		require.GreaterOrEqual(t, it.Qty, int64(0))
		require.Contains(t, s, it.SKU)
	}
}

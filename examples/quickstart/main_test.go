package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/stock"
)

func TestMain(m *testing.M) {
	// More sales at a time than there are processors: they wait for buyers and holds. Under
	// the race detector they have more to compute.
	if !redistest.RaceEnabled {
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	m.Run()
}

func TestSale(t *testing.T) {
	t.Parallel()
	for _, size := range []struct {
		buyers int
		units  int64
	}{{100, 1}, {500, 10}, {10_000, 100}} {
		t.Run(fmt.Sprint(size.buyers), func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			status := run(t.Context(), &out, "", size.buyers, size.units)
			require.Equal(t, 0, status, out.String())
			require.Equal(t, 9, strings.Count(out.String(), "\n  PASS  "), out.String())
			require.Contains(t, out.String(), fmt.Sprintf("%d of %d paid", size.units, size.units))
			require.Contains(t, out.String(), "\nPASS: all 9")
		})
	}
}

func TestSaleOnAServer(t *testing.T) {
	t.Parallel()
	rdb := redistest.Shared(t)
	var out strings.Builder
	require.Equal(t, 0, run(t.Context(), &out, rdb.Addr(), 10_000, 100), out.String())
}

// A sale leaves a Redis as it was, whether it ends or is interrupted.
func TestSaleLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprintf("interrupted=%v", interrupted), func(t *testing.T) {
			t.Parallel()
			m, rdb := redistest.Mini(t)
			require.NoError(t, rdb.Set(t.Context(), "mine", 1, 0).Err())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &cancelling{cancel: func() {
				if interrupted && len(m.Keys()) > 1 {
					cancel()
				}
			}}
			status := run(ctx, out, m.Addr(), 500, 10)
			require.Equal(t, interrupted, status == 1, out.String())
			require.Equal(t, interrupted, strings.Contains(out.String(), "Interrupted: no verdict"), out.String())
			require.Equal(t, []string{"mine"}, m.Keys())
		})
	}
}

// cancelling calls cancel whenever something is written.
type cancelling struct {
	strings.Builder
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	c.cancel()
	return c.Builder.Write(p)
}

func TestNoRedis(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.Equal(t, 1, run(t.Context(), &out, "127.0.0.1:1", 10, 1))
	require.Contains(t, out.String(), "No verdict")
}

// A small sale of two units: a pays; b cancels; c does not pay in time; d and then
// the last unit, e.
type evidence struct {
	journal []stock.Entry
	told    map[string]stock.State
	level   stock.Level
}

func sound() *evidence {
	op := func(kind stock.OpKind, id string) stock.Op {
		return stock.Op{Kind: kind, ID: id, User: "user-" + id, Items: []stock.Item{{SKU: sku, Qty: 1}}}
	}
	event := func(version, left int64) stock.Op {
		return stock.Op{Kind: stock.OpCrossing, Event: stock.Event{SKU: sku, Version: version, Left: left}}
	}
	e := &evidence{
		told: map[string]stock.State{
			"a": stock.Confirmed, "b": stock.Cancelled, "c": stock.Expired, "d": stock.Confirmed,
		},
		level: stock.Level{Sold: 2},
	}
	for i, ops := range [][]stock.Op{
		{{Kind: stock.OpLoad, Items: []stock.Item{{SKU: sku, Qty: 2}}}},
		{op(stock.OpReserve, "a"), op(stock.OpReserve, "b"), event(1, 0)},
		{op(stock.OpConfirm, "a")},
		{op(stock.OpCancel, "b"), event(2, 1), op(stock.OpReserve, "c"), event(3, 0)},
		{op(stock.OpExpire, "c"), event(4, 1)},
		{op(stock.OpReserve, "d"), event(5, 0), op(stock.OpConfirm, "d")},
	} {
		e.journal = append(e.journal, stock.Entry{ID: fmt.Sprintf("%d-0", i+1), Prev: fmt.Sprintf("%d-0", i), Ops: ops})
	}
	e.journal[0].Prev = "0-0"
	return e
}

// A check that cannot fail is no check: each row has a journal that it refuses.
func TestCheckerCatches(t *testing.T) {
	reserve := func(id, user string) stock.Op {
		return stock.Op{Kind: stock.OpReserve, ID: id, User: user, Items: []stock.Item{{SKU: sku, Qty: 1}}}
	}
	// ops adds to, or with cut takes away from, the ops of entry i.
	add := func(e *evidence, i int, ops ...stock.Op) { e.journal[i].Ops = append(e.journal[i].Ops, ops...) }
	cut := func(e *evidence, i, from, to int) {
		e.journal[i].Ops = append(e.journal[i].Ops[:from:from], e.journal[i].Ops[to:]...)
	}
	for _, c := range []struct {
		name  string
		row   string // the promise that must be seen broken
		spoil func(e *evidence)
	}{
		{"an entry is missing", "the journal is a chain", func(e *evidence) { e.journal = append(e.journal[:2:2], e.journal[3:]...) }},
		{"the beginning is missing", "the journal is a chain", func(e *evidence) { e.journal = e.journal[1:] }},
		{"one unit too many", "never oversold", func(e *evidence) { add(e, 5, reserve("e", "user-e")) }},
		{"oversold for a moment", "never oversold", func(e *evidence) {
			e.journal[3].Ops[0], e.journal[3].Ops[2] = e.journal[3].Ops[2], e.journal[3].Ops[0]
		}},
		{"an order granted twice", "the units always add up", func(e *evidence) { add(e, 4, reserve("a", "user-a")) }},
		{"a unit given back twice", "the units always add up", func(e *evidence) { add(e, 4, e.journal[3].Ops[0]) }},
		{"cancelled twice", "each order ends", func(e *evidence) { add(e, 4, e.journal[3].Ops[0]) }},
		{"paid, then given back", "each order ends", func(e *evidence) {
			op := e.journal[2].Ops[0]
			op.Kind = stock.OpCancel
			add(e, 2, op)
		}},
		{"another user's limit", "no buyer ever had", func(e *evidence) {
			e.journal[1].Ops[1].User = "user-a"
			e.journal[3].Ops[0].User = "user-a"
		}},
		{"a sell-out without event", "one event per", func(e *evidence) { cut(e, 1, 2, 3) }},
		{"the last one without event", "one event per", func(e *evidence) { cut(e, 5, 1, 3) }},
		{"an event twice", "one event per", func(e *evidence) { add(e, 4, e.journal[4].Ops[1]) }},
		{"an event of an old version", "one event per", func(e *evidence) { e.journal[4].Ops[1].Event.Version = 3 }},
		{"told yes, and no order", "a yes is one order", func(e *evidence) { e.told["e"] = stock.Confirmed }},
		{"an order, and not told yes", "a yes is one order", func(e *evidence) { delete(e.told, "d") }},
		{"told paid, but expired", "a yes is one order", func(e *evidence) { e.told["c"] = stock.Confirmed }},
		{"still held at the end", "all units sold", func(e *evidence) { cut(e, 5, 2, 3) }},
		{"nothing happened", "all units sold", func(e *evidence) { e.journal = nil }},
		{"Redis counts otherwise", "Redis's own figures", func(e *evidence) { e.level.Left = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := sound()
			for _, v := range check(e.journal, e.told, e.level) {
				require.Empty(t, v.broken, v.promise)
			}
			c.spoil(e)
			verdicts := check(e.journal, e.told, e.level)
			caught := false
			for _, v := range verdicts {
				caught = caught || strings.HasPrefix(v.promise, c.row) && v.broken != ""
			}
			require.True(t, caught, "%+v", verdicts)
			require.Equal(t, 1, report(screenOn(io.Discard), verdicts, 0))
		})
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 100: "100", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, grouped(n))
	}
}

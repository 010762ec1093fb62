package cache

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	rdb := redistest.Server(t).Client()
	var trips redistest.Trips // and of heartbeats, which one in five calls may meet
	rdb.AddHook(&trips)
	ctx, d := t.Context(), newDB("1", "ann")
	c := openSource(t, rdb, d.source(), Options{Local: -1})
	near := openSource(t, rdb, d.source(), Options{})
	connected(t, near)
	must := func(_ any, err error) { require.NoError(t, err) }
	fresh := 1000
	rows := redistest.Costs(t)
	for _, call := range []struct {
		row string
		do  func()
	}{
		{"Set", func() { must(nil, c.Set(ctx, "1", "ann")) }},
		{"Add", func() { must(c.Add(ctx, "1", "ann")) }},
		{"Get, from Redis", func() { must(c.Get(ctx, "1")) }},
		{"GetMany", func() { must(c.GetMany(ctx, []string{"1", "1"})) }},
		{"Get, loaded", func() {
			fresh++
			key := strconv.Itoa(fresh)
			d.set(key, "x")
			must(c.Get(ctx, key))
		}},
		{"Delete", func() { must(nil, c.Delete(ctx, "1", "2")) }},
		{"Get, local", func() { must(near.Get(ctx, "1")) }},
	} {
		rows.HoldTrips(t, &trips, call.row, call.do)
		rows.HoldAllocations(t, call.row, call.do)
	}
	require.Equal(t, "0 or 1, shared", rows.Row(t, "Peek")["round trips"])
	must(near.Get(ctx, "1"))
	for cache, want := range map[*Cache[string, string]]int64{near: 0, c: 1} {
		require.Equal(t, want, trips.Of(func() { _, ok, err := cache.Peek(ctx, "1"); must(ok, err) }))
	}
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	ctx, d := t.Context(), newDB("1", "ann", "2", "bob")
	c := open(t, rdb, d, Options{NotFoundTTL: -1})
	connected(t, c)
	require.Equal(t, "ann", get(t, c, "1"))
	require.NoError(t, c.Set(ctx, "1", "anna"))
	_, err := c.Add(ctx, "3", "eve")
	require.NoError(t, err)
	_, _, err = c.Peek(ctx, "3")
	require.NoError(t, err)
	_, err = c.GetMany(ctx, []string{"1", "2", "4"})
	require.NoError(t, err)
	_, err = c.Refresh(ctx, "1")
	require.NoError(t, err)
	require.NoError(t, c.Delete(ctx, "1", "2"))
	d.fail(errors.New("boom"))
	_, err = c.Get(ctx, "1")
	require.ErrorIs(t, err, ErrLoad)
	require.NoError(t, c.DeleteTwice(ctx, time.Millisecond, "3"))
}

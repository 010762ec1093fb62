package ratelimit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	rdb := redistest.Shared(t).Client()
	var trips redistest.Trips
	rdb.AddHook(&trips)
	ctx := t.Context()
	plenty := PerHour(1 << 30)
	l := open(t, rdb, Options{}, plenty)
	empty := open(t, rdb, Options{}, PerHour(1))
	leased := open(t, rdb, Options{Lease: 10 * time.Second}, plenty)
	local, err := NewLocal([]Limit{plenty})
	require.NoError(t, err)
	must := func(_ any, err error) { require.NoError(t, err) }
	for range 1000 { // the second is denied from memory, and leases grow
		must(empty.Allow(ctx, "k"))
		must(leased.Allow(ctx, "k"))
	}
	turn, err := l.Reserve(ctx, "k", 1)
	require.NoError(t, err)
	must(nil, turn.Cancel(ctx))
	must(nil, l.Reset(ctx, "k")) // the scripts are known from here on

	rows := redistest.Costs(t)
	for name, call := range map[string]func(){
		"Allow":                func() { must(l.Allow(ctx, "k")) },
		"AllowN":               func() { must(l.AllowN(ctx, "k", 3)) },
		"AllowUpTo":            func() { must(l.AllowUpTo(ctx, "k", 3)) },
		"Peek":                 func() { must(l.Peek(ctx, "k")) },
		"Reserve":              func() { must(l.Reserve(ctx, "k", 1)) },
		"Wait":                 func() { must(nil, l.Wait(ctx, "k")) },
		"Reset":                func() { must(nil, l.Reset(ctx, "k")) },
		"Cancel":               func() { must(nil, turn.Cancel(ctx)) },
		"denied, remembered":   func() { must(empty.Allow(ctx, "k")) },
		"granted from a lease": func() { must(leased.Allow(ctx, "k")) },
		"any, NewLocal":        func() { must(local.AllowN(ctx, "k", 3)) },
	} {
		rows.HoldTrips(t, &trips, name, call)
		rows.HoldAllocations(t, name, call)
	}
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	l, err := New(rdb, []Limit{PerHour(10)}, Options{Timeout: 20 * time.Second, Lease: time.Second})
	require.NoError(t, err)
	for range 12 {
		_, err := l.Allow(t.Context(), "k")
		require.NoError(t, err)
	}
	require.NoError(t, l.Reset(t.Context(), "k"))
	turn, err := l.Reserve(t.Context(), "k", 1)
	require.NoError(t, err)
	require.True(t, turn.OK())
	require.NoError(t, turn.Cancel(t.Context()))
	require.NoError(t, l.Close(t.Context()))
	require.Zero(t, l.Stats().WhenDown)
}

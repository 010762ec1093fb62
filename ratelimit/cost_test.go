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
		row := rows.Row(t, name)
		fewest := int64(99) // the first one may have to teach the server its script
		for range 5 {
			trips.N.Store(0)
			call()
			fewest = min(fewest, trips.N.Load())
		}
		require.Equal(t, row.Trips(), fewest, "round trips of %s", name)
		if row.Allocations() >= 0 && !raceEnabled {
			require.LessOrEqual(t, testing.AllocsPerRun(100, call), float64(row.Allocations()), "allocations of %s", name)
		}
	}
}

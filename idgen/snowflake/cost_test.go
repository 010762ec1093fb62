package snowflake

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	rdb := redistest.Shared(t).Client()
	var trips redistest.Trips
	rdb.AddHook(&trips)
	opts := Options{Prefix: redistest.Prefix(t)}
	warm := leaseOf(t, rdb, opts)
	require.NoError(t, warm.renew(t.Context()))
	require.NoError(t, warm.Close(t.Context())) // the scripts are known from here on
	rows := redistest.Costs(t)
	cost := func(name string, call func()) {
		t.Helper()
		trips.N.Store(0)
		call()
		require.Equal(t, rows.Row(t, name).Trips(), trips.N.Load(), name)
	}
	var w *Worker
	cost("LeaseWorker", func() { w = leaseOf(t, rdb, opts) })
	s := flakeOf(t, Classic, w)
	cost("Next", func() { next(t, s) })
	cost("TryNext", func() { s.TryNext() })
	require.EqualValues(t, rows.Row(t, "Next").Allocations(), testing.AllocsPerRun(1000, func() { _, _ = s.Next(t.Context()) }))
	cost("renewal", func() { require.NoError(t, w.renew(t.Context())) })
	cost("Close", func() { require.NoError(t, w.Close(t.Context())) })
}

package snowflake

import (
	"strconv"
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
	rows.HoldAllocations(t, "Next", func() { next(t, s) })
	rows.HoldAllocations(t, "TryNext", func() { s.TryNext() })
	cost("renewal", func() { require.NoError(t, w.renew(t.Context())) })
	cost("Close", func() { require.NoError(t, w.Close(t.Context())) })
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	w := leaseOf(t, rdb, Options{})
	next(t, flakeOf(t, Dense, w))
	require.NoError(t, w.renew(t.Context()))
	require.NoError(t, w.Close(t.Context()))
}

// What doc.go says of memory.
func TestMemory(t *testing.T) {
	rdb := redistest.Server(t).Client()
	opts := Options{Workers: 1000}
	w := leaseOf(t, rdb, opts)
	for i := range 1000 {
		slot := rdb.HGet(t.Context(), w.key, strconv.Itoa(w.ID())).Val()
		require.NoError(t, rdb.HSet(t.Context(), w.key, i, slot).Err())
	}
	each := float64(rdb.MemoryUsage(t.Context(), w.key, 0).Val()) / 1000
	t.Logf("%.0f bytes", each)
	require.InEpsilon(t, 105, each, 0.1)
}

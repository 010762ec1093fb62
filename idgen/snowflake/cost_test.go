package snowflake

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What doc.go says that calls cost, counted by the server.
func TestCostPerCall(t *testing.T) {
	server := redistest.Server(t)
	rdb := server.Client()
	warm := leaseOf(t, rdb, Options{Name: "warm"})
	require.NoError(t, warm.renew(t.Context()))
	require.NoError(t, warm.Close(t.Context())) // the scripts are loaded
	scripts := func() int {
		n, err := server.Executions(t.Context(), "evalsha")
		require.NoError(t, err)
		return n
	}
	before := scripts()
	step := func(name string, want int) {
		t.Helper()
		require.Equal(t, want, scripts()-before, name)
		before = scripts()
	}
	w := leaseOf(t, rdb, Options{})
	step("LeaseWorker", 1) // beside the question for the eviction policy
	s := flakeOf(t, Classic, w)
	for range 1000 {
		next(t, s)
	}
	step("Next", 0)
	require.NoError(t, w.renew(t.Context()))
	step("renewal", 1)
	require.NoError(t, w.Close(t.Context()))
	step("Close", 1)
}

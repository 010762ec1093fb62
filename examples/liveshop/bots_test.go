package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
)

// customers is a hundredth of what the command does by default.
func customers() string {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		return "10000"
	}
	return "400"
}

// hold is how long an order of theirs may be unpaid: under the race detector a busy
// machine does so little that with what is usual too few would pay in time.
func hold() string {
	if redistest.RaceEnabled {
		return "9s"
	}
	return "3s"
}

// The bots bring up a service of their own, sell all there is, and nothing is lost.
func TestBots(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"closed loop": {"-n", customers(), "-units", "20", "-hold", hold(), "-within", "4m"},
		"open loop":   {"-n", "200", "-units", "20", "-rate", "400", "-hold", hold(), "-within", "4m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run(t.Context(), append([]string{"bots"}, args...), &out)
			t.Log(out.String())
			require.NoError(t, err)
			require.Contains(t, out.String(), "20 of 20 units paid for")
			require.Contains(t, out.String(), "\nPASS: all ")
			require.NotContains(t, out.String(), "FAIL")
		})
	}
}

// The same on a Redis and a MySQL of one's own.
func TestBotsOnServers(t *testing.T) {
	t.Parallel()
	shoptest.NeedRedis(t)
	_, dsn := sqltest.MariaDB(t).Names()
	var out strings.Builder
	err := run(t.Context(), []string{"bots", "-n", customers(), "-units", "20", "-hold", hold(), "-within", "4m", "-redis", "spawn", "-db", dsn}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	require.Contains(t, out.String(), "20 of 20 units paid for")
	require.Contains(t, out.String(), "\nPASS: all ")
}

// A service that goes on is asked what it says of itself.
func TestBotsAtTheDemo(t *testing.T) {
	t.Parallel()
	base := demonstrate(t)
	var out strings.Builder
	err := run(t.Context(), []string{"bots", "-n", "200", "-units", "20", "-within", "4m", "-addr", strings.TrimPrefix(base, "http://")}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	require.Contains(t, out.String(), "20 of 20 units paid for")
	require.Contains(t, out.String(), "\nPASS: all ")
}

func TestCheckNeedsData(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"check"}, io.Discard), "-redis")
}

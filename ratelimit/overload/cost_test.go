package overload

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	var trips redistest.Trips
	rdb.AddHook(&trips)
	shedder, err := NewShedder(10, 10)
	require.NoError(t, err)
	perKey, err := NewPerKey(1)
	require.NoError(t, err)
	switches, err := NewSwitches(rdb, Options{Every: time.Hour})
	require.NoError(t, err)
	switches.SetHere("x", true)
	ctx := t.Context()
	rows := redistest.Costs(t)
	for name, call := range map[string]func() bool{
		"Shedder.Acquire": func() bool { done, err := shedder.Acquire(); done(); return err == nil },
		"PerKey.Acquire":  func() bool { done, err := perKey.Acquire(ctx, "k"); done(); return err == nil },
		"Switches.On":     func() bool { return switches.On("x") },
		"Switches.Set":    func() bool { return switches.Set(ctx, "y", true) == nil },
	} {
		must := func() { require.True(t, call()) }
		rows.HoldTrips(t, &trips, name, must)
		rows.HoldAllocations(t, name, must)
	}
}

// Run asks once, until Options.Every is over, and what a switch is costs no more.
func TestRoundTripsOfSwitches(t *testing.T) {
	server := redistest.Server(t)
	s, err := NewSwitches(server.Client(), Options{Every: time.Hour})
	require.NoError(t, err)
	sent := func(command string) int {
		n, err := server.Executions(t.Context(), command)
		require.NoError(t, err)
		return n
	}
	require.NoError(t, s.Set(t.Context(), "x", true))
	require.Equal(t, 1, sent("hset"))
	go func() { _ = s.Run(t.Context()) }()
	require.Eventually(t, func() bool { return !s.Read().IsZero() }, 10*time.Second, time.Millisecond)
	require.Equal(t, 1, sent("hgetall"))
	require.True(t, s.On("x"))
	require.Equal(t, 1, sent("hgetall"))
	require.Equal(t, time.Duration(-1), server.Client().TTL(t.Context(), s.key).Val())
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	s, err := NewSwitches(rdb, Options{})
	require.NoError(t, err)
	require.NoError(t, s.Set(t.Context(), "x", true))
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	require.Eventually(t, func() bool { return !s.Read().IsZero() }, 30*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-ran)
}

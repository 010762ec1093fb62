package idgen

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	var trips redistest.Trips
	rdb.AddHook(&trips)
	store := redisStoreOf(t, rdb, RedisOptions{})
	s := segment(t, store, Options{MinStep: 1_000_000})
	p, err := NewPermuter([]byte("k"), 1<<40)
	require.NoError(t, err)
	take(t, s, 1) // loads the script, and claims
	rows := redistest.Costs(t)
	for name, call := range map[string]func() error{
		"Next":         func() error { _, err := s.Next(t.Context()); return err },
		"TryNext":      func() error { s.TryNext(); return nil },
		"NextN":        func() error { _, err := s.NextN(t.Context(), 100); return err },
		"Permute":      func() error { _, err := p.Permute(1); return err },
		"Invert":       func() error { _, err := p.Invert(1); return err },
		"Claim, Redis": func() error { _, err := store.Claim(t.Context(), "order", 10); return err },
	} {
		must := func() { require.NoError(t, call()) }
		rows.HoldTrips(t, &trips, name, must)
		rows.HoldAllocations(t, name, must)
	}
}

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	store := redisStoreOf(t, rdb, RedisOptions{})
	claim(t, store, 10)
	require.Equal(t, int64(11), claim(t, store, 10).First)
}

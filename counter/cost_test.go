package counter

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	var trips redistest.Trips
	rdb.AddHook(&trips)
	c := newTestCounter(t, rdb, Options{Interval: never})
	ctx := t.Context()
	ids := make([]int64, 300)
	for i := range ids {
		ids[i] = int64(i)
	}
	steps := []struct {
		row  string
		call func() error
	}{
		{"Add", func() error {
			for _, id := range ids {
				if err := c.Add(id, "likes", 1); err != nil {
					return err
				}
			}
			return nil
		}},
		{"Flush", func() error { return c.Flush(ctx) }},
		{"AddSync", func() error { _, err := c.AddSync(ctx, 1, "likes", 1); return err }},
		{"Toggle", func() error { _, err := c.Toggle(ctx, 1, "likes", "ann", true); return err }},
		{"ToggleAt", func() error { _, err := c.ToggleAt(ctx, 1, "likes", 5, true); return err }},
		{"Get", func() error { _, err := c.Get(ctx, 1); return err }},
		{"GetMany", func() error { _, err := c.GetMany(ctx, ids); return err }},
	}
	for _, s := range steps { // so that the server knows the scripts
		require.NoError(t, s.call())
	}
	rows := redistest.Costs(t)
	cost := func(call func() error) int64 {
		trips.N.Store(0)
		require.NoError(t, call())
		return trips.N.Load()
	}
	for _, s := range steps {
		assert.Equal(t, rows.Row(t, s.row).Trips(), cost(s.call), s.row)
	}
	assert.EqualValues(t, 0, cost(func() error { return c.Flush(ctx) }), "of nothing")
	assert.EqualValues(t, 2, cost(func() error { _, err := c.AddSync(ctx, 1, "hot", 1); return err }), "a field that spreads")

	h := c.Handle(1, "likes")
	assert.EqualValues(t, rows.Row(t, "Handle.Add").Allocations(), testing.AllocsPerRun(100, func() { _ = h.Add(1) }), "Handle.Add")
	assert.EqualValues(t, rows.Row(t, "Add").Allocations(), testing.AllocsPerRun(100, func() { _ = c.Add(1, "likes", 1) }), "Add")
	id := int64(1000)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Add(id, "likes", 1); id++ }), 8.0, "the first Add")
}

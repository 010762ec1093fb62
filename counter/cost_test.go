package counter

import (
	"strings"
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
		{"IsOn", func() error { _, err := c.IsOn(ctx, "likes", "ann", ids...); return err }},
		{"IsOnAt", func() error { _, err := c.IsOnAt(ctx, "likes", 5, ids...); return err }},
		{"GetMany", func() error { _, err := c.GetMany(ctx, ids); return err }},
	}
	for _, s := range steps { // so that the server knows the scripts
		require.NoError(t, s.call())
	}
	rows := redistest.Costs(t)
	cost := func(call func() error) int64 { // once: a second Flush finds nothing
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
	rows.HoldAllocations(t, "Handle.Add", func() { _ = h.Add(1) })
	rows.HoldAllocations(t, "Add", func() { _ = c.Add(1, "likes", 1) })
	id := int64(1000)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Add(id, "likes", 1); id++ }), 8.0, "the first Add")
}

// The commands that doc.go lists are enough, and the keys are of the kinds, names and
// sizes that it says.
func TestKeysAndACL(t *testing.T) {
	server, rdb := redistest.Limited(t)
	ctx := t.Context()
	prefix := redistest.Prefix(t)
	c := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
	must := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	for id := range int64(2) {
		require.NoError(t, c.Add(id, "likes", 1))
	}
	for _, f := range []string{"views", "score", "hot"} {
		require.NoError(t, c.Add(1, f, 1))
	}
	must(c.Toggle(ctx, 2, "likes", "ann", true))
	must(c.Toggle(ctx, 2, "likes", "ann", false))
	must(c.Toggle(ctx, 2, "likes", "member-0001", true))
	must(c.ToggleAt(ctx, 3, "likes", 1<<16-1, true))
	must(c.IsOn(ctx, "likes", "ann", 1, 2))
	must(c.IsOnAt(ctx, "likes", 5, 1, 2))
	must(c.AddSync(ctx, 4, "likes", 1))
	must(nil, c.Flush(ctx))
	must(c.Get(ctx, 1))

	store := newMemoryStore()
	four := tiny
	four.Name, four.Fields = "four", []Field{{Name: "likes"}, {Name: "comments"}, {Name: "reposts"}, {Name: "views"}}
	cold := newCounterOf(t, rdb, four, Options{Prefix: prefix, Interval: never, Cold: store})
	must(nil, cold.Add(1, "likes", 1<<32))
	must(nil, cold.Add(1000, "likes", 1))
	must(nil, cold.Flush(ctx))
	require.True(t, moveOut(t, cold, 1))
	must(cold.Get(ctx, 1))
	require.True(t, moveOut(t, cold, 1000))
	must(nil, cold.moveIdle(ctx))

	all := server.Client()
	seen := map[string]bool{}
	for _, k := range all.Keys(ctx, "*").Val() {
		head, kind, ok := strings.Cut(k, "}:")
		require.True(t, ok && strings.HasPrefix(head, prefix+":counter1:{"), k)
		bytes, ttl := all.MemoryUsage(ctx, k).Val()-int64(len(prefix)), all.TTL(ctx, k).Val()
		most := map[string]int64{"c": 150, "b": 5400, "o": 150, "e": 130, "i": 300, "m": 250, "d": 16500, "f": 130, "a": 150}[kind[:1]]
		assert.LessOrEqual(t, bytes, most, k)
		assert.Equal(t, strings.Contains("fa", kind[:1]), ttl > 0, "%s lives for %v", k, ttl)
		seen[kind[:1]+all.Type(ctx, k).Val()] = true
	}
	for _, kind := range []string{"chash", "bstring", "ohash", "estring", "izset", "mset", "dstring", "fstring", "astring"} {
		assert.True(t, seen[kind], kind)
	}
	assert.Len(t, seen, 9)
}

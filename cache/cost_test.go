package cache

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	srv := redistest.Server(t)
	ctx, d := t.Context(), newDB()
	c := openSource(t, srv.Client(), d.source(), Options{Local: -1})
	near := openSource(t, srv.Client(), d.source(), Options{})
	connected(t, near)
	trips := func() int {
		n, err := srv.Executions(ctx, "evalsha")
		require.NoError(t, err)
		return n
	}
	must := func(_ any, err error) { require.NoError(t, err) }
	fresh := 0
	calls := []struct {
		row string
		do  func()
	}{
		{"Set, Add", func() { must(nil, c.Set(ctx, "1", "ann")) }},
		{"Get, from Redis", func() { must(c.Get(ctx, "1")) }},
		{"Peek", func() { _, ok, err := c.Peek(ctx, "1"); must(ok, err) }},
		{"GetMany", func() { must(c.GetMany(ctx, []string{"1", "1"})) }},
		{"Get, loaded", func() {
			fresh++
			key := strconv.Itoa(1000 + fresh)
			d.set(key, "x")
			must(c.Get(ctx, key))
		}},
		{"Delete", func() { must(nil, c.Delete(ctx, "1", "2")) }},
		{"Get, local", func() { must(near.Get(ctx, "1")) }},
	}
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	d.set("1", "ann")
	for _, call := range calls {
		row := regexp.MustCompile(`(?m)^//\t` + regexp.QuoteMeta(call.row) + ` +([0-9]+)[^\n]*?([0-9]*)$`).FindStringSubmatch(string(text))
		require.NotNil(t, row, "doc.go has no row for %s", call.row)
		want, err := strconv.Atoi(row[1])
		require.NoError(t, err)
		call.do() // the server learns the script
		if call.row == "Delete" {
			want = 2 // two keys, in one pipeline
		}
		before := trips()
		call.do()
		got := trips() - before
		if call.row == "Peek" {
			want = 1
		}
		require.Equal(t, want, got, "round trips of %s", call.row)
		if row[2] != "" {
			most, err := strconv.Atoi(row[2])
			require.NoError(t, err)
			require.LessOrEqual(t, testing.AllocsPerRun(200, call.do), float64(most), "allocations of %s", call.row)
			t.Log(call.row, testing.AllocsPerRun(200, call.do))
		}
	}
}

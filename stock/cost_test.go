package stock

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		counted := &trips{}
		rdb.AddHook(counted)
		a := open(t, rdb, Options{SoldOutFor: -1})
		remembers := open(t, rdb, Options{Prefix: a.opts.Prefix, SoldOutFor: maxSleep})
		ctx := t.Context()
		stock := map[string]int64{"tea": 1 << 40, "none": 0}
		must := func(_ any, err error) { require.NoError(t, err) }
		id := 0
		next := func() string { id++; return fmt.Sprintf("order-%010d", id) }
		sold, ref := tea("sold", "u", 1), Ref{"sold", "u"}
		nothing := Order{ID: "late", User: "u", Items: []Item{{"none", 1}}}

		must(nil, a.Load(ctx, map[string]int64{"tea": 1 << 40})) // the script is known from here on
		must(a.Deduct(ctx, sold))
		measured := map[string]func(){
			"Deduct":  func() { must(a.Deduct(ctx, tea(next(), "user-1", 1))) },
			"Reserve": func() { must(a.Reserve(ctx, tea(next(), "user-1", 1))) },
			"Confirm": func() { must(a.Confirm(ctx, ref)) },
			"Lookup":  func() { must(a.Lookup(ctx, ref)) },
			"Cancel":  func() { must(a.Cancel(ctx, Ref{next(), "user-1"}, "")) },
			"Restock": func() { must(a.Restock(ctx, next(), Item{"tea", 1})) },
			"order sold out, in memory": func() {
				_, err := remembers.Deduct(ctx, nothing)
				require.ErrorIs(t, err, ErrInsufficient)
			},
			"Load, up to 500 SKUs": func() { must(nil, a.Load(ctx, stock)) },
			"Stock":                func() { must(a.Stock(ctx, "tea")) },
			"Inspect":              func() { must(a.Inspect(ctx)) },
			"Entries": func() {
				for _, err := range a.Entries(ctx, "9999999999999-0") {
					require.NoError(t, err)
				}
			},
			"Holds": func() {
				for _, err := range a.Holds(ctx) {
					require.NoError(t, err)
					break
				}
			},
		}
		rows := costs(t)
		for name, call := range measured {
			row, ok := rows[name]
			require.True(t, ok, "doc.go has no row for %s", name)
			if name == "order sold out, in memory" {
				must(nil, a.Load(ctx, stock))
				call() // Redis says so, and from here on it is known
			}
			fewest := int64(99) // a call may also open a connection, which greets the server
			for range 5 {
				counted.n.Store(0)
				call()
				fewest = min(fewest, counted.n.Load())
			}
			require.Equal(t, row.trips, fewest, "round trips of %s", name)
			if _, local := rdb.(*redis.Client); local && row.allocations >= 0 && !isMini(rdb) && !raceEnabled {
				got := testing.AllocsPerRun(100, call)
				require.LessOrEqual(t, got, float64(row.allocations), "allocations of %s", name)
			}
		}
	})
}

// isMini tells whether the server shares this process, and its allocations.
func isMini(rdb redis.UniversalClient) bool {
	return !strings.Contains(rdb.Info(context.Background(), "server").Val(), "redis_version")
}

// trips counts round trips.
type trips struct{ n atomic.Int64 }

func (c *trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { c.n.Add(1); return next(ctx, cmd) }
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { c.n.Add(1); return next(ctx, cmds) }
}

type cost struct{ trips, allocations int64 } // allocations -1: not promised

var costRow = regexp.MustCompile(`^//\t(\S.*?) {2,}(\d+)(?:[, ].*?)?(?: {2,}\S+)?(?: {2,}(\d+))?$`)

// costs reads the table, a row per call.
func costs(t *testing.T) map[string]cost {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(doc), "# Cost per call")
	require.True(t, found)
	rows := map[string]cost{}
	for line := range strings.Lines(table) {
		m := costRow.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		c := cost{allocations: -1}
		c.trips, _ = strconv.ParseInt(m[2], 10, 64)
		if m[3] != "" {
			c.allocations, _ = strconv.ParseInt(m[3], 10, 64)
		}
		if strings.Contains(m[1], "sold out") || strings.HasPrefix(m[1], "Load") {
			rows[m[1]] = c
			continue
		}
		for name := range strings.SplitSeq(m[1], ", ") {
			rows[name] = c
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

package ratelimit

import (
	"context"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	rdb := redistest.Shared(t).Client()
	var trips roundTrips
	rdb.AddHook(&trips)
	ctx := t.Context()
	plenty := PerHour(1 << 30)
	l := open(t, rdb, Options{}, plenty)
	empty := open(t, rdb, Options{}, PerHour(1))
	leased := open(t, rdb, Options{Lease: 10 * time.Second}, plenty)
	local, err := NewLocal([]Limit{plenty})
	require.NoError(t, err)
	must := func(_ any, err error) { require.NoError(t, err) }
	for range 1000 { // the second is denied from memory, and leases grow
		must(empty.Allow(ctx, "k"))
		must(leased.Allow(ctx, "k"))
	}
	turn, err := l.Reserve(ctx, "k", 1)
	require.NoError(t, err)
	must(nil, turn.Cancel(ctx)) // the scripts are known from here on

	rows := costs(t)
	for name, call := range map[string]func(){
		"Allow":                func() { must(l.Allow(ctx, "k")) },
		"AllowN":               func() { must(l.AllowN(ctx, "k", 3)) },
		"AllowUpTo":            func() { must(l.AllowUpTo(ctx, "k", 3)) },
		"Peek":                 func() { must(l.Peek(ctx, "k")) },
		"Reserve":              func() { must(l.Reserve(ctx, "k", 1)) },
		"Wait":                 func() { must(nil, l.Wait(ctx, "k")) },
		"Reset":                func() { must(nil, l.Reset(ctx, "k")) },
		"Cancel":               func() { must(nil, turn.Cancel(ctx)) },
		"denied, remembered":   func() { must(empty.Allow(ctx, "k")) },
		"granted from a lease": func() { must(leased.Allow(ctx, "k")) },
		"any, NewLocal":        func() { must(local.AllowN(ctx, "k", 3)) },
	} {
		row, ok := rows[name]
		require.True(t, ok, "doc.go has no row for %s", name)
		fewest := int64(99) // a call may also open a connection, which greets the server
		for range 5 {
			trips.n.Store(0)
			call()
			fewest = min(fewest, trips.n.Load())
		}
		require.Equal(t, row.trips, fewest, "round trips of %s", name)
		if row.allocations >= 0 && !raceEnabled {
			require.LessOrEqual(t, testing.AllocsPerRun(100, call), float64(row.allocations), "allocations of %s", name)
		}
	}
}

// roundTrips counts them.
type roundTrips struct{ n atomic.Int64 }

func (c *roundTrips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { c.n.Add(1); return next(ctx, cmd) }
}

func (c *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { c.n.Add(1); return next(ctx, cmds) }
}

type cost struct{ trips, allocations int64 } // allocations -1: not promised

var costRow = regexp.MustCompile(`^//\t(\S.*?) {2,}(\d+)(?:, shared)?(?: {2,}\S+)?(?: {2,}(\d+))?$`)

// costs reads the table: a row for each call that it names, or for the whole of what
// stands there where that is no list of methods.
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
		rows[m[1]] = c
		for name := range strings.SplitSeq(m[1], ", ") {
			rows[name] = c
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

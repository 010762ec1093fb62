package redistest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
)

// Trips counts the round trips of the client that it is made a hook of, without those
// in which a new connection greets the server.
type Trips struct {
	N    atomic.Int64
	Most atomic.Int64 // commands in one round trip
}

type uncounted struct{}

// Uncounted returns a ctx whose commands no Trips counts: those of a test, beside those
// of what it measures.
func Uncounted(ctx context.Context) context.Context {
	return context.WithValue(ctx, uncounted{}, true)
}

func (*Trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *Trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(ctx, cmd)
		return next(ctx, cmd)
	}
}

func (c *Trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(ctx, cmds...)
		return next(ctx, cmds)
	}
}

func (c *Trips) count(ctx context.Context, cmds ...redis.Cmder) {
	if ctx.Value(uncounted{}) != nil || len(cmds) == 0 {
		return
	}
	switch cmds[0].Name() {
	case "hello", "auth", "client", "select", "readonly":
		return
	}
	c.N.Add(1)
	for n := int64(len(cmds)); ; {
		if most := c.Most.Load(); n <= most || c.Most.CompareAndSwap(most, n) {
			return
		}
	}
}

// Of returns how many round trips a call makes: the fewest of five times, since the
// first may teach the server a script.
func (c *Trips) Of(call func()) int64 {
	fewest := int64(math.MaxInt64)
	for range 5 {
		c.N.Store(0)
		call()
		fewest = min(fewest, c.N.Load())
	}
	return fewest
}

// CostTable is the table under "Cost per call" in a doc.go, by what its first column
// says.
type CostTable map[string]Cost

// A Cost is a row of it: its cells, by the heads of their columns.
type Cost map[string]string

// Row returns the row of a call, "Get, local", or the only one that lists it: "Set" of
// "Set, Add".
func (c CostTable) Row(t testing.TB, call string) Cost {
	t.Helper()
	if row, ok := c[call]; ok {
		return row
	}
	var rows []Cost
	for calls, row := range c {
		if slices.Contains(strings.Split(calls, ", "), call) {
			rows = append(rows, row)
		}
	}
	if len(rows) != 1 {
		t.Fatalf("%d rows under \"Cost per call\" in doc.go are about %s", len(rows), call)
	}
	return rows[0]
}

// HoldTrips fails the test unless call, made a few times, makes as many round trips as
// the row of that name says.
func (c CostTable) HoldTrips(t testing.TB, trips *Trips, name string, call func()) {
	t.Helper()
	if want, got := c.Row(t, name).Trips(), trips.Of(call); got != want {
		t.Errorf("%s: %d round trips, %d in doc.go", name, got, want)
	}
}

// HoldAllocations fails the test if call, made a hundred times, allocates more often
// than the row of that name says, if it says something. The race detector allocates by
// itself: under it the calls are made, and not judged.
func (c CostTable) HoldAllocations(t testing.TB, name string, call func()) {
	t.Helper()
	most := c.Row(t, name).Allocations()
	if got := testing.AllocsPerRun(100, call); most >= 0 && !RaceEnabled && got > float64(most) {
		t.Errorf("%s: %.0f allocations, %d in doc.go", name, got, most)
	}
}

// Number returns the number that a cell begins with, 0 for "none", -1 if it begins
// with something else or is not there.
func (c Cost) Number(head string) int64 {
	digits := leadingNumber.FindString(c[head])
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return n
	}
	if strings.HasPrefix(c[head], "none") {
		return 0
	}
	return -1
}

// Trips and Allocations are the columns that most tables have.
func (c Cost) Trips() int64       { return c.Number("round trips") }
func (c Cost) Allocations() int64 { return c.Number("allocations") }

var (
	leadingNumber = regexp.MustCompile(`^[0-9]+`)
	cell          = regexp.MustCompile(`\S+(?: \S+)*`)
)

// Costs reads the table of the package under test. Cells stand below their heads, two
// spaces apart.
func Costs(t testing.TB) CostTable {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parseCosts(string(doc))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func parseCosts(doc string) (CostTable, error) {
	_, table, _ := strings.Cut(doc, "# Cost per call")
	heads := map[int]string{} // by the column they begin in
	rows := CostTable{}
	for line := range strings.Lines(table) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t")
		if !indented {
			continue
		}
		first := len(heads) == 0
		row, call := Cost{}, ""
		for _, at := range cell.FindAllStringIndex(line, -1) {
			column, text := utf8.RuneCountInString(line[:at[0]]), line[at[0]:at[1]]
			switch {
			case first:
				heads[column] = text
			case column == 0:
				call = text
			case heads[column] == "":
				return nil, fmt.Errorf("redistest: %q stands below no head of the table: %q", text, line)
			default:
				row[heads[column]] = text
			}
		}
		if !first {
			rows[call] = row
		}
	}
	if len(rows) == 0 {
		return nil, errors.New(`redistest: doc.go has no table under "Cost per call"`)
	}
	return rows, nil
}

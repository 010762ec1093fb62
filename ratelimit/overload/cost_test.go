package overload

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

var costRow = regexp.MustCompile(`(?m)^//\t(\w+\.\w+)\s+(\d+)\s+(\d+)$`)

// The allocations under "Cost per call" in doc.go are measured, of those calls that do
// not ask Redis.
func TestCostPerCall(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	promised := map[string]string{}
	for _, row := range costRow.FindAllStringSubmatch(string(doc), -1) {
		require.Equal(t, "0", row[2], "round trips of %s", row[1])
		promised[row[1]] = row[3]
	}
	shedder, err := NewShedder(10, 10)
	require.NoError(t, err)
	perKey, err := NewPerKey(1)
	require.NoError(t, err)
	switches, err := NewSwitches(nil, Options{})
	require.NoError(t, err)
	switches.SetHere("x", true)
	ctx := t.Context()
	for name, call := range map[string]func() bool{
		"Shedder.Acquire": func() bool { done, err := shedder.Acquire(); done(); return err == nil },
		"PerKey.Acquire":  func() bool { release, err := perKey.Acquire(ctx, "k"); release(); return err == nil },
		"Switches.On":     func() bool { return switches.On("x") },
	} {
		allocations := testing.AllocsPerRun(100, func() { require.True(t, call()) })
		if !raceEnabled {
			require.LessOrEqual(t, allocations, float64(promised[name][0]-'0'), name)
		}
		delete(promised, name)
	}
	require.Empty(t, promised, "rows of doc.go that nothing measures")
}

// And the round trips of those that do.
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
	require.Eventually(t, func() bool { return !s.Read().IsZero() }, time.Minute, time.Millisecond)
	require.Equal(t, 1, sent("hgetall"))
	require.True(t, s.On("x"))
	require.Equal(t, 1, sent("hgetall"))
	require.Equal(t, time.Duration(-1), server.Client().TTL(t.Context(), s.key).Val())
}

package redistest

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTrips(t *testing.T) {
	_, rdb := Mini(t)
	var trips Trips
	rdb.AddHook(&trips)
	ctx := t.Context()
	require.NoError(t, rdb.Set(ctx, "a", 1, 0).Err())
	assert.EqualValues(t, 1, trips.N.Load(), "not the greeting of a new connection")
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Get(ctx, "a")
		p.Get(ctx, "a")
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, rdb.Get(Uncounted(ctx), "a").Err())
	assert.EqualValues(t, 2, trips.N.Load())
	assert.EqualValues(t, 2, trips.Most.Load())
}

func TestCosts(t *testing.T) {
	rows, err := parseCosts(`// # Cost per call
//
//	call          round trips   script    allocations
//	Get, local    0             none      none; 6 for the first
//	Get, from     1, shared     O(1)      30
//	Add           2 n           O(keys)
//	Add, AddMany  at least one
//
// And so on.
package x
`)
	require.NoError(t, err)
	assert.Len(t, rows, 4)
	from := rows.Row(t, "from")
	assert.Equal(t, Cost{"round trips": "1, shared", "script": "O(1)", "allocations": "30"}, from)
	assert.Equal(t, from, rows.Row(t, "Get, from"))
	assert.EqualValues(t, 1, from.Trips())
	assert.EqualValues(t, 30, from.Allocations())
	assert.EqualValues(t, 0, rows.Row(t, "local").Allocations())
	assert.EqualValues(t, 2, rows.Row(t, "Add").Trips(), "a row of its own")
	assert.EqualValues(t, -1, rows.Row(t, "Add").Allocations())
	assert.EqualValues(t, -1, rows.Row(t, "AddMany").Trips())

	_, err = parseCosts("// # Cost per call\n//\n//\tcall  round trips  script\n//\tSet   1       O(1)\n")
	require.ErrorContains(t, err, "no head")
	_, err = parseCosts("package x\n")
	require.ErrorContains(t, err, "no table")
}

// A silent takes down that a test failed.
type silent struct {
	testing.TB
	failed bool
}

func (s *silent) Helper()               {}
func (s *silent) Errorf(string, ...any) { s.failed = true }

func TestCostsAreHeld(t *testing.T) {
	_, rdb := Mini(t)
	var trips Trips
	rdb.AddHook(&trips)
	rows := CostTable{"Get": {"round trips": "1", "allocations": "2"}, "Set": {"round trips": "1"}}
	calls := 0
	times := func(n int) func() {
		return func() {
			sends := n
			if calls++; calls == 1 {
				sends++ // the script was not known
			}
			for range sends {
				rdb.Get(t.Context(), "a")
			}
		}
	}
	for n, want := range map[int]bool{0: true, 1: false, 2: true} {
		calls = 0
		s := &silent{TB: t}
		rows.HoldTrips(s, &trips, "Get", times(n))
		assert.Equal(t, want, s.failed, "%d round trips", n)
	}
	var kept []*int
	for n, want := range map[int]bool{0: false, 2: false, 3: true} {
		s := &silent{TB: t}
		allocate := func() {
			kept = kept[:0]
			for range n {
				kept = append(kept, new(int))
			}
		}
		rows.HoldAllocations(s, "Get", allocate)
		assert.Equal(t, want && !RaceEnabled, s.failed, "%d allocations", n)
		rows.HoldAllocations(t, "Set", allocate) // its row says nothing
	}
}

func TestLimited(t *testing.T) {
	Shared(t) // without servers the subtests would be skipped, and this one fail
	for call, want := range map[string]bool{"GET spillway:x1:{a}:b": false, "DEL spillway:x1:{a}:b": true, "GET spillway:y1:{a}:b": true} {
		var s *silent
		t.Run(call, func(t *testing.T) {
			s = &silent{TB: t}
			_, rdb := limited(s, "// Commands, for an ACL: GET.\n//\npackage x\n")
			words := strings.Fields(call)
			rdb.Do(t.Context(), words[0], words[1])
		})
		assert.Equal(t, want, s.failed, call)
	}
}

func TestDocumentedCommands(t *testing.T) {
	commands, err := documentedCommands("// It is small. Commands, for\n// an ACL: EVAL, and inside\n// scripts HSET, GET; CONFIG GET or HSET in New.\n//\n// DEL\npackage x\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"eval", "hset", "get", "config|get"}, commands)
	_, err = documentedCommands("package x\n")
	require.Error(t, err)
}

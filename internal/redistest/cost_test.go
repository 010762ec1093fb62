package redistest

import (
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

func TestDocumentedCommands(t *testing.T) {
	commands, err := documentedCommands("// It is small. Commands, for\n// an ACL: EVAL, and inside\n// scripts HSET, GET; CONFIG GET or HSET in New.\n//\n// DEL\npackage x\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"eval", "hset", "get", "config|get"}, commands)
	_, err = documentedCommands("package x\n")
	require.Error(t, err)
}

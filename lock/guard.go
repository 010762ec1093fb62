package lock

import (
	_ "embed"
	"errors"
	"fmt"
	"sync"
)

// ErrStale is a fence smaller than one that the resource has seen: the caller's
// lease was lost, and somebody else has had the lock since.
var ErrStale = errors.New("lock: stale fence")

// A FenceGuard is the side of a resource in this process's memory: it refuses
// whoever comes with a smaller fence than somebody before. The zero value is ready.
// A resource elsewhere needs its check there, in the step that writes: FenceLua, for
// Redis, or FenceSQL.
type FenceGuard struct {
	mu      sync.Mutex
	highest int64
}

// Do calls f if no greater fence has come, and else returns ErrStale. Calls are made
// one at a time, so that no older holder's write can come after the check of a newer
// one's: a check before the write would not be enough.
func (g *FenceGuard) Do(fence int64, f func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if fence < g.highest {
		return fmt.Errorf("%w: %d, after %d", ErrStale, fence, g.highest)
	}
	g.highest = fence
	return f()
}

//go:embed fence.lua
var fenceLua string

// FenceLua returns a Lua function for the scripts that write to a resource in Redis:
//
//	admit(key, fence)
//
// It remembers the highest fence under key, which the script takes in KEYS, and
// returns false, having changed nothing, if it has seen a greater one. Call it
// before the first write; it works on every Redis from 2.6 on. The key has no TTL:
// it must live as long as the resource.
func FenceLua() string { return fenceLua }

// FenceSQL returns the two pieces of an UPDATE that make a row refuse older
// fences, for a column of integers of 64 bits, not null, that is 0 in a new row:
//
//	UPDATE account SET balance = ?, <set> WHERE id = ? AND <where>
//
// Both take the fence as their parameter, written as param is ("?", "$3"). No row
// affected means that the fence is stale, or the row missing. The column's name goes
// into the text as it is: it must not come from users.
func FenceSQL(column, param string) (set, where string) {
	return column + " = " + param, column + " <= " + param
}

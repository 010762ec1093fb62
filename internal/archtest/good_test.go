package archtest

// good is a tree that keeps every rule. Controls break it.
var good = map[string]string{
	"go.mod": `module example.com/house

go 1.26.0
`,
	"tools/go.mod": `module example.com/house/tools

go 1.26.0
`,
	"lock/doc.go": `// Package lock gives leases.
//
// # What it promises
//
// One owner at a time.
//
// # What it does not
//
// Survive a failover.
//
// # Redis keys it writes
//
// One string.
//
// # When Redis is slow, down or fails over
//
// ErrUnavailable.
//
// # Cost per call
//
// One round trip.
package lock
`,
	"lock/lock.go": `package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"example.com/house/internal/script"
)

// What a call reports.
var (
	ErrInvalid     = errors.New("lock: invalid")
	ErrClosed      = errors.New("lock: closed")
	ErrUnavailable = script.ErrUnavailable
	ErrUnknown     = script.ErrUnknown
)

// Options configures a Locker.
type Options struct {
	// Prefix of the keys; empty means "spillway".
	Prefix string
}

// A Mode says who else may hold a lock.
type Mode int

// The modes.
const (
	Exclusive Mode = iota
	Shared
)

// A Locker takes locks.
type Locker struct{ rdb redis.UniversalClient }

//go:embed acquire.lua
var acquire string

// New returns a Locker.
func New(rdb redis.UniversalClient, opts Options) (*Locker, error) {
	if len(opts.Prefix) > 10 {
		return nil, fmt.Errorf("%w: Prefix %q", ErrInvalid, opts.Prefix)
	}
	return &Locker{rdb}, nil
}

// Acquire takes the lock called name.
func (l *Locker) Acquire(ctx context.Context, name string, m Mode) error {
	if err := script.Run(ctx, l.rdb, acquire); err != nil {
		return fmt.Errorf("lock: acquire %q: %w", name, err)
	}
	return nil
}

// Close frees everything.
func (l *Locker) Close(ctx context.Context) error { return nil }
`,
	"lock/acquire.lua": `-- KEYS    1: the lock, a string
-- ARGV    1: token   2: TTL in ms
-- Returns 1 if taken
-- Derived none
-- Retry   token: the same token gets the same answer
local now = redis.call('TIME') -- a comment with tostring(1)
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return string.format('%d', now[1])
end
return 0
`,
	"lock/example_test.go": `package lock_test

func Example() {
	l, err := lock.New(rdb, lock.Options{})
	switch err = l.Acquire(ctx, "x", lock.Exclusive); {
	case errors.Is(err, lock.ErrUnknown), errors.Is(err, lock.ErrUnavailable):
	case errors.Is(err, lock.ErrInvalid), errors.Is(err, lock.ErrClosed):
	}
	l.Acquire(ctx, "x", lock.Shared)
	l.Close(ctx)
}
`,
	"lock/lock_test.go": `package lock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestExpires(t *testing.T) {
	if testing.Short() {
		t.Skip("a bubble is slow here")
	}
	synctest.Test(t, func(t *testing.T) { time.Sleep(time.Hour) })
}
`,
	"internal/script/script.go": `// Package script runs scripts.
package script

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// What a call may report.
var (
	ErrUnavailable = errors.New("spillway: unavailable")
	ErrUnknown     = errors.New("spillway: outcome unknown")
)

// Run runs a script.
func Run(ctx context.Context, rdb redis.UniversalClient, src string) error {
	return rdb.EvalSha(ctx, src, nil).Err()
}
`,
	"internal/lifetime/lifetime.go": `// Package lifetime begins contexts.
package lifetime

import "context"

// A Group owns goroutines.
type Group struct{ ctx context.Context }

// New returns a Group.
func New() *Group { return &Group{context.Background()} }
`,
	"examples/demo/main.go": `package main

import (
	"context"
	"log"

	"example.com/house/lock"
)

func main() { log.Print(context.Background(), lock.Exclusive) }
`,
}

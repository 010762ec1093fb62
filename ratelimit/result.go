package ratelimit

import (
	"context"
	"fmt"
	"time"
)

// A Source says who decided a call.
type Source uint8

const (
	// FromRedis is the usual one.
	FromRedis Source = iota
	// FromMemory is a denial that Redis gave before and that still holds.
	FromMemory
	// FromLease is a unit that was taken from Redis in advance: see Options.Lease.
	FromLease
	// FromLocal is a limiter without Redis.
	FromLocal
	FromLocalShare // Redis is down: the share of this process
	FromFailOpen   // Redis is down: granted unseen
	FromFailClosed // Redis is down: denied unseen
)

var sourceNames = [...]string{"redis", "memory", "lease", "local", "local share", "fail open", "fail closed"}

func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return fmt.Sprintf("Source(%d)", uint8(s))
}

// A Result is the answer to a call.
type Result struct {
	// Granted is how many units were taken: what was asked for, or 0; AllowUpTo also
	// takes something in between.
	Granted int64
	// Remaining is how many units are left, of the limit that has least. From a lease
	// it counts what is left of the lease.
	Remaining int64
	// RetryAfter is when the units that were asked for and not granted can be there,
	// never too late; 0 if all were granted. A denial that is remembered tells the
	// time of the smaller call that was denied before.
	RetryAfter time.Duration
	// ResetAfter is how long the limit named by Limiting takes to be full again if
	// nothing more is taken. Of calls that were merged, as after the last; 0 from a
	// lease.
	ResetAfter time.Duration
	// Limiting is the name of the limit that denied, or that has least left.
	Limiting string
	// Source says who decided.
	Source Source
}

// OK reports whether units were granted. After Peek look at Remaining.
func (r Result) OK() bool { return r.Granted > 0 }

// A run is k calls for n units each, the last of which may be given its turn up to
// wait µs later.
type run struct{ n, k, wait int64 }

// A verdict is the answer to a run, as take.lua gives it.
type verdict struct {
	granted int64 // calls
	left    int64
	limit   int
	reset   int64 // µs
	us      int64 // until what was not granted, or until the turn
	now     int64 // server time, µs

	// To give back what was taken:
	state string // what the taking left, or
	takes int64
	found *found // nil if it was there
}

// found is what a turn that lies ahead found: the state in Redis, or the meters here.
type found struct {
	state  string
	meters meters
}

// An answer is the verdict on one call's run, and who gave it.
type answer struct {
	verdict
	n      int64
	source Source
}

// decide is take with a Result.
func (l *Limiter) decide(ctx context.Context, key string, q run) (Result, error) {
	var a answer
	if err := l.take(ctx, key, q, &a); err != nil {
		return Result{}, err
	}
	return Result{
		Granted: a.granted * a.n, Remaining: a.left, Limiting: l.rules[a.limit].name, Source: a.source,
		RetryAfter: time.Duration(a.us) * time.Microsecond, ResetAfter: time.Duration(a.reset) * time.Microsecond,
	}, nil
}

// Stats are counters of this process since New.
type Stats struct {
	Calls      uint64 // that asked Redis
	Batches    uint64 // round trips that carried them
	FromMemory uint64 // calls denied from memory
	FromLease  uint64 // calls granted from a lease
	WhenDown   uint64 // calls that Options.WhenDown decided
	Lost       uint64 // calls whose reply was lost: their units may be taken
	Overloaded uint64 // of WhenDown: because too many were waiting
	Outages    uint64 // times at which Redis was found to be down
	Down       bool   // it is now, or a part of the cluster is
}

package delayqueue

import (
	"context"
	_ "embed"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed inspect.lua
	inspectLua string
	//go:embed pause.lua
	pauseLua string

	inspectScript = script.New(script.Read, readLua, inspectLua)
	pauseScript   = script.New(script.State, readLua, pauseLua)
)

// Stats are counters of this process since New.
type Stats struct {
	Added       uint64 // jobs stored
	Replaced    uint64 // jobs that replaced a waiting one
	Extended    uint64 // jobs that extended a waiting one
	Duplicates  uint64 // jobs refused for their id or unique key
	Cancelled   uint64
	Rescheduled uint64
	Redriven    uint64

	Claims    uint64 // calls for due jobs
	Claimed   uint64 // jobs they brought
	Succeeded uint64 // handlers that returned nil, and whose ack was taken
	Retried   uint64 // handlers that failed, and whose jobs run again later
	Snoozed   uint64 // handlers that asked for a later run
	Died      uint64 // jobs that this process sent to the dead letters
	Returned  uint64 // jobs given back when Run ended
	Lost      uint64 // leases that ended before their handler
	Hints     uint64 // wake-ups by other processes
	LostHints uint64 // due jobs that only RunOptions.MaxSleep found: a hint was lost
	Orphans   uint64 // ids without a job, dropped; something else deleted keys
	Failures  uint64 // of background work, each tried again
}

// A Backlog is what Redis holds of a queue, all shards together.
type Backlog struct {
	Waiting int64     // jobs
	Late    int64     // of those waiting, how many are due by now
	Running int64     // jobs
	Dead    int64     // jobs
	NextDue time.Time // of the first waiting job; zero if none waits
	Paused  bool
}

type counters struct {
	added, replaced, extended, duplicates, cancelled, rescheduled, redriven,
	claims, claimed, succeeded, retried, snoozed, died, returned, lost,
	hints, lostHints, orphans, failures atomic.Uint64
}

// Stats returns the counters. It does no I/O.
func (q *Queue) Stats() Stats {
	c := &q.stats
	return Stats{
		Added: c.added.Load(), Replaced: c.replaced.Load(), Extended: c.extended.Load(),
		Duplicates: c.duplicates.Load(), Cancelled: c.cancelled.Load(),
		Rescheduled: c.rescheduled.Load(), Redriven: c.redriven.Load(),
		Claims: c.claims.Load(), Claimed: c.claimed.Load(), Succeeded: c.succeeded.Load(),
		Retried: c.retried.Load(), Snoozed: c.snoozed.Load(), Died: c.died.Load(),
		Returned: c.returned.Load(), Lost: c.lost.Load(), Hints: c.hints.Load(),
		LostHints: c.lostHints.Load(), Orphans: c.orphans.Load(), Failures: c.failures.Load(),
	}
}

// Inspect asks Redis about the queue. One round trip to every shard, in parallel;
// O(log n).
func (q *Queue) Inspect(ctx context.Context) (Backlog, error) {
	if q.closed.Load() {
		return Backlog{}, q.wrapQueue(ErrClosed)
	}
	var b Backlog
	calls := make([]script.Call, len(q.shards))
	for i := range calls {
		calls[i].Keys = q.shards[i].paused
	}
	replies, errs := inspectScript.RunMany(ctx, q.rdb, calls)
	for i, reply := range replies {
		if errs[i] != nil {
			return Backlog{}, q.wrapQueue(errs[i])
		}
		n, ok := integers(reply)
		if !ok || len(n) != 7 {
			return Backlog{}, q.wrapQueue(badReply("inspect.lua", reply))
		}
		b.Waiting += n[1]
		b.Late += n[2]
		b.Running += n[3]
		b.Dead += n[4]
		if due := time.UnixMilli(n[5]); n[5] >= 0 && (b.NextDue.IsZero() || due.Before(b.NextDue)) {
			b.NextDue = due
		}
		b.Paused = b.Paused || n[6] == 1
	}
	return b, nil
}

// Pause lets no further job start, in any process, until Resume. Running handlers go
// on and their results count. One round trip to every shard, in parallel.
func (q *Queue) Pause(ctx context.Context) error { return q.pause(ctx, 1) }

// Resume ends a Pause. What came due meanwhile starts now.
func (q *Queue) Resume(ctx context.Context) error { return q.pause(ctx, 0) }

func (q *Queue) pause(ctx context.Context, paused int) error {
	if q.closed.Load() {
		return q.wrapQueue(ErrClosed)
	}
	calls := make([]script.Call, len(q.shards))
	for i := range calls {
		calls[i] = script.Call{Keys: q.shards[i].paused, Args: []any{paused}}
	}
	_, errs := pauseScript.RunMany(ctx, q.rdb, calls)
	for _, err := range errs {
		if err != nil {
			return q.wrapQueue(err)
		}
	}
	return nil
}

func integers(reply any) ([]int64, bool) {
	r, ok := reply.([]any)
	if !ok {
		return nil, false
	}
	out := make([]int64, len(r))
	for i := range r {
		if out[i], ok = r[i].(int64); !ok {
			return nil, false
		}
	}
	return out, true
}

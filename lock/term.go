package lock

import (
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

// drift is what a lease is shorter than its TTL locally: clocks that run at
// different speeds, and Redis's millisecond rounding.
func drift(ttl time.Duration) time.Duration { return ttl/100 + 2*time.Millisecond }

// notice is how long before the end of its validity a lease counts as lost, so
// that its context has ended when another may hold the lock.
func notice(ttl time.Duration) time.Duration { return min(ttl/20, 100*time.Millisecond) }

// A term is what Redis granted to this process: one token's hold. Several leases
// may follow each other in one term.
type term struct {
	token   string
	renewal *script.Script
	call    script.Call // of the renewal
	lost    func(cause error)

	mu       sync.Mutex
	deadline time.Time // valid until; counted from before the send
	renewAt  time.Time
	stopped  bool // it is not renewed any more
	over     bool // given back or lost
}

// begin starts the clock of a term that was granted by a request sent then.
func (t *term) begin(sent time.Time, ttl time.Duration) {
	t.deadline, t.renewAt = sent.Add(ttl-drift(ttl)), sent.Add(ttl/3)
}

// left returns how long the term is still valid; not more than 0 if it is over.
func (t *term) left(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return 0
	}
	return t.deadline.Sub(now)
}

// until returns the end of the validity as known now.
func (t *term) until() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deadline
}

// stop keeps the term from being renewed.
func (t *term) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
}

// end marks the term as over, and reports whether it was not.
func (t *term) end() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.over
	t.over = true
	return !was
}

func (t *term) lose(cause error) {
	if t.end() {
		t.lost(cause)
	}
}

// A task is what a term needs from the wheel.
type task int

const (
	nothing task = iota
	renewal      // is due
	loss         // its validity is about to end
	removal      // it is over
)

// due tells what the term needs at now, and when it has to be looked at again. A
// renewal that falls due within soon is due now, so that it shares a pipeline; the
// next attempt follows after retry unless an answer comes first.
func (t *term) due(now time.Time, ttl time.Duration) (task, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	giveUp := t.deadline.Add(-notice(ttl))
	switch {
	case t.over:
		return removal, time.Time{}
	case !now.Before(giveUp):
		return loss, time.Time{}
	case t.stopped:
		return nothing, giveUp
	case !now.Before(t.renewAt.Add(-ttl / 12)):
		t.renewAt = now.Add(ttl / 6)
		return renewal, earlier(t.renewAt, giveUp)
	}
	return nothing, earlier(t.renewAt, giveUp)
}

// renewed takes in that a request sent then extended the term.
func (t *term) renewed(sent time.Time, ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := sent.Add(ttl - drift(ttl)); d.After(t.deadline) {
		t.deadline, t.renewAt = d, sent.Add(ttl/3)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

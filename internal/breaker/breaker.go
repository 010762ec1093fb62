// Package breaker is one circuit breaker: it says whether a server that failed is
// worth asking.
//
// Closed, everything is asked. After some failures in a row it opens: one probe is
// let through at a time, at growing distances, and only after some successes in a row
// does it close. That it takes several of each is the hysteresis: a server that
// flaps does not make its users flap.
package breaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	failures  = 3 // in a row open it
	successes = 3 // in a row close it
	minPause  = 200 * time.Millisecond
	maxPause  = 5 * time.Second
)

// A Breaker watches one server. Use New. It starts no goroutine.
type Breaker struct {
	base   time.Time
	open   atomic.Bool
	failed atomic.Int32 // in a row, while closed
	opened atomic.Uint64

	mu        sync.Mutex // of an open breaker
	probing   bool       // somebody was let through
	succeeded int        // in a row
	pause     time.Duration
	probe     time.Duration // since base: when the next is due
}

// New returns a closed breaker.
func New() *Breaker { return &Breaker{base: time.Now()} }

// Ready reports whether to ask the server. Of an open breaker's callers, one is told
// yes whenever a probe is due: at first after about 0.2 s, then, as long as probes
// fail, at distances that double up to 5 s. A closed breaker costs one atomic load.
func (b *Breaker) Ready() bool {
	if !b.open.Load() {
		return true
	}
	now := time.Since(b.base)
	b.mu.Lock()
	defer b.mu.Unlock()
	if now < b.probe {
		return false
	}
	b.probing = true
	b.rest(now)
	return true
}

// Done tells how asking the server ended. An answer of any kind is ok; what says
// nothing about the server, such as a caller who left, is not reported. Of those who
// were asking when it opened, failures say nothing new.
func (b *Breaker) Done(ok bool) {
	if !b.open.Load() {
		if ok {
			if b.failed.Load() != 0 {
				b.failed.Store(0)
			}
			return
		}
		if b.failed.Add(1) < failures {
			return
		}
	}
	now := time.Since(b.base)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open.Load():
		if ok {
			return // it closed in this moment
		}
		b.probing, b.succeeded, b.pause = false, 0, minPause
		b.rest(now)
		b.opened.Add(1)
		b.open.Store(true)
	case ok:
		b.pause = minPause
		if b.succeeded++; b.succeeded >= successes {
			b.failed.Store(0)
			b.open.Store(false)
			return
		}
		b.rest(now)
	case !b.probing: // let through before it opened, as many calls that share a round trip are
	default:
		b.probing, b.succeeded, b.pause = false, 0, min(2*b.pause, maxPause)
		b.rest(now)
	}
}

// rest puts the next probe off, never twice by the same time, so that processes do
// not probe together.
func (b *Breaker) rest(now time.Duration) { b.probe = now + b.pause/2 + rand.N(b.pause) }

// Open reports whether the server counts as down.
func (b *Breaker) Open() bool { return b.open.Load() }

// Opened returns how often it opened.
func (b *Breaker) Opened() uint64 { return b.opened.Load() }

// Wait returns how long an open breaker goes without asking, 0 if it is closed or
// the next caller is a probe.
func (b *Breaker) Wait() time.Duration {
	if !b.open.Load() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.probe-time.Since(b.base))
}

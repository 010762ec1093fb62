package ratelimit

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/script"
)

// A lease is units that were taken in advance and can be granted until they are
// void: Options.Lease after the request for them was sent. A unit is granted at
// most that much later than it was taken, which is why all processes together grant
// at most Rate·Lease more than the limit in any window.
type lease struct {
	until int64 // void from then on
	size  int64
	left  atomic.Int64
	state string // of the key after they were taken
}

// leasing is what the size of the next lease of a key is measured by.
type leasing struct {
	asked int64 // when the last one was
	units int64 // asked for since, beside the lease
}

// spend takes units from the lease: most, or what it has if that is least or more.
func (n *note) spend(least, most, now int64) (took, left int64) {
	le := n.lease.Load()
	if le == nil {
		return 0, 0
	}
	for {
		left := le.left.Load()
		if left < least || now >= le.until {
			return 0, 0
		}
		took := min(left, most)
		if le.left.CompareAndSwap(left, left-took) {
			return took, left - took
		}
	}
}

// rest grants an AllowUpTo, to which nothing was granted, what is left of the lease.
func (l *Limiter) rest(n *note, q run, a *answer) bool {
	took, left := n.spend(1, q.k, l.clock())
	if took == 0 {
		return false
	}
	l.stats.fromLease.Add(1)
	a.source, a.granted, a.left = FromLease, took, left
	return true
}

// want returns how many units to take in advance with a call for units: what the
// callers of this process need in a lease's time, going by the time since the last one
// was asked for; but no more than twice what they used in that time, or a few calls at
// once would take as if they went on like that. take.lua gives half of what is there at
// most, so that leases become small, and then none, as the limit is reached; and none
// where a call was denied, which needs what is there when it comes again.
func (n *note) want(units, now int64, period time.Duration, burst int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leases.units += units
	le := n.lease.Load()
	if le != nil && now < le.until && le.left.Load() > 0 {
		return 0
	}
	used := n.leases.units
	if le != nil {
		used += le.size - le.left.Load()
		n.lease.CompareAndSwap(le, nil)
	}
	elapsed := max(now-n.leases.asked, 1)
	n.leases = leasing{asked: now}
	return int64(min(float64(used)*float64(period)/float64(elapsed), float64(2*used), float64(burst)))
}

// fill makes v the lease that was asked for at a time.
func (n *note) fill(v verdict, sent int64, period time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if v.granted == 0 || sent <= n.resetAt {
		return
	}
	le := &lease{until: sent + int64(period), size: v.granted, state: v.state}
	le.left.Store(v.granted)
	n.lease.Store(le)
}

// returnLeases gives back what is left of the leases, as far as their keys were left
// alone since.
func (l *Limiter) returnLeases(ctx context.Context) {
	if l.opts.Lease == 0 {
		return
	}
	var calls []script.Call
	now := l.clock()
	l.notes.each(func(n *note) {
		if le := n.lease.Swap(nil); le != nil && now < le.until {
			if left := le.left.Swap(0); left > 0 {
				calls = append(calls, l.giveBackCall(n.key, le.state, left, nil))
			}
		}
	})
	if len(calls) == 0 {
		return
	}
	ctx, cancel := lifetime.Within(ctx, l.opts.Timeout)
	defer cancel()
	givebackScript.RunMany(ctx, l.rdb, calls) // what fails is lost, never minted
}

// giveBackCall undoes a taking of n units that left a state, by what it found if that
// was ahead.
func (l *Limiter) giveBackCall(key, state string, n int64, f *found) script.Call {
	args := make([]any, len(l.args), len(l.args)+3)
	copy(args, l.args)
	if f != nil {
		return script.Call{Keys: []string{key}, Args: append(args, state, 0, f.state)}
	}
	return script.Call{Keys: []string{key}, Args: append(args, state, n, "")}
}

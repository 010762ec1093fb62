package lock

import "sync/atomic"

// Stats are counters of this process since New.
type Stats struct {
	Acquired  uint64 // leases that Redis granted
	HandOvers uint64 // leases passed on inside the process, without Redis
	Lost      uint64 // leases that ended before they were given back
	MaxHeld   uint64 // leases that Options.MaxHold ended
	// Rescued counts locks that were found free by a timer a quarter of a second or
	// more after their release: a notification was lost. It should be 0.
	Rescued  uint64
	Renewals uint64 // extensions that Redis confirmed
	Failures uint64 // calls of background work that failed and were, or will be, repeated
}

type counters struct {
	acquired, handOvers, lost, maxHeld, rescued, renewals, failures atomic.Uint64
}

// Stats returns the counters. It does no I/O.
func (l *Locker) Stats() Stats {
	c := &l.stats
	return Stats{
		Acquired: c.acquired.Load(), HandOvers: c.handOvers.Load(), Lost: c.lost.Load(), MaxHeld: c.maxHeld.Load(),
		Rescued: c.rescued.Load(), Renewals: c.renewals.Load(), Failures: c.failures.Load(),
	}
}

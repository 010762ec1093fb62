package coalesce

import (
	"sync"
	"time"
)

const (
	maxFlights = 4                     // in the air, per lane
	slowFloor  = 50 * time.Millisecond // below this no flight is slow
	slowFactor = 4                     // times the moving average
	minSweep   = 1024                  // lanes that are kept without asking
)

// A lane is the queue of one hash tag and its flights.
//
// One flight is in the air at a time. One that takes longer than the limit is
// slow and no longer stands in the way: the next may take off beside it, up to
// maxFlights. Who opens it? While callers keep arriving they could look at the
// clock, but when all of them already wait (256 goroutines in a loop, say)
// nobody arrives any more. So the first caller that has to queue sets the
// lane's timer to the moment at which the youngest flight becomes slow, and
// only when it fires does anyone look what is in the air then. Flights that
// land in time neither stop nor reset it: a busy lane's timer fires at most once
// per limit (20 a second), a lone caller's lane has none, and no call waits for
// it unless a flight is stuck.
//
// A timer set only by a caller that finds a flight already older than the
// average would be set less often, but misses the case above, in which everyone
// queued while the stuck flight was young.
//
// Invariant, outside the lock: while calls are queued at least one flight is in
// the air, and either the timer is armed, or maxFlights are in the air, or one
// of them is landing (and will see to it), or the group is closed.
type lane[Q, R any] struct {
	g    *Group[Q, R]
	name string

	mu      sync.Mutex
	dead    bool // swept: not in g.lanes any more
	queue   list[Q, R]
	ids     map[string]*call[Q, R] // leads that are queued
	air     []*flight[Q, R]
	landing int           // of those in the air, about to take the queue or end
	avg     time.Duration // moving average of a flight, 0 before the first
	timer   *time.Timer
	armed   bool
}

// enter returns the lane of that name, locked.
func (g *Group[Q, R]) enter(name string) *lane[Q, R] {
	for {
		g.mu.RLock()
		l := g.lanes[name]
		g.mu.RUnlock()
		if l == nil {
			l = g.create(name)
		}
		l.mu.Lock()
		if !l.dead {
			return l
		}
		l.mu.Unlock()
	}
}

// create makes a lane and, whenever their number has doubled, forgets those that
// are idle. So their memory is bounded by twice the lanes that were ever busy
// at once (or minSweep), at an amortised cost of O(1) a new lane, while the few
// lanes of the usual process are never made twice.
func (g *Group[Q, R]) create(name string) *lane[Q, R] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.lanes[name]; l != nil {
		return l
	}
	if len(g.lanes) >= g.sweepAt {
		for name, l := range g.lanes {
			l.mu.Lock()
			if len(l.air) == 0 {
				l.dead = true
				delete(g.lanes, name)
				if l.timer != nil {
					l.timer.Stop()
				}
			}
			l.mu.Unlock()
		}
		g.sweepAt = max(minSweep, 2*len(g.lanes))
	}
	l := &lane[Q, R]{g: g, name: name, ids: make(map[string]*call[Q, R])}
	g.lanes[name] = l
	return l
}

// submit joins, queues or sends c.
func (l *lane[Q, R]) submit(c *call[Q, R]) error {
	if l.g.closed.Load() {
		return ErrClosed
	}
	if c.id != "" {
		if lead := l.ids[c.id]; lead != nil {
			l.join(c, lead)
			return nil
		}
	}
	if l.queue.n >= l.g.opts.MaxQueue {
		l.g.stats.overloaded.Add(1)
		return ErrOverloaded
	}
	l.queue.push(c)
	if c.id != "" {
		l.ids[c.id] = c
	}
	if len(l.air) > 0 && (l.landing > 0 || l.armed || len(l.air) == maxFlights) {
		return nil // the usual case in a busy lane: no look at the clock
	}
	now := time.Now()
	l.open(now)
	if len(l.air) == 0 { // the group closed in this moment
		l.withdraw(c)
		return ErrClosed
	}
	l.watch(now)
	return nil
}

func (l *lane[Q, R]) join(c, lead *call[Q, R]) {
	l.g.stats.joined.Add(1)
	c.lead = lead
	lead.joined.push(c)
}

// leave takes c's caller out. It returns nil if the answer is there already,
// and otherwise what is true of the item.
func (l *lane[Q, R]) leave(c *call[Q, R]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state == settled {
		return nil
	}
	lead := c
	if c.lead != nil {
		lead = c.lead
		lead.joined.remove(c)
		l.g.recycle(c)
	} else {
		c.gone = true
	}
	if lead.state == sent {
		f := lead.flight
		if f.waiting--; f.waiting == 0 {
			f.abandon()
		}
		return ErrUnknown
	}
	if lead.waiters() > 0 {
		return ErrUnknown // it will be sent for the others
	}
	l.withdraw(lead)
	l.g.recycle(lead)
	l.g.stats.dropped.Add(1)
	return ErrUnsent
}

func (l *lane[Q, R]) withdraw(c *call[Q, R]) {
	l.queue.remove(c)
	l.forget(c)
}

func (l *lane[Q, R]) forget(c *call[Q, R]) {
	if c.id != "" {
		delete(l.ids, c.id)
	}
}

// open sends the next batch if the rule allows another flight.
func (l *lane[Q, R]) open(now time.Time) {
	if l.queue.n == 0 || !l.clear(now) {
		return
	}
	f := l.g.flights.Get().(*flight[Q, R])
	f.lane = l
	if !l.g.life.Go(f.start) {
		l.g.flights.Put(f)
		return
	}
	if len(l.air) > 0 {
		l.g.stats.beside.Add(1)
	}
	l.load(f, now)
}

// clear reports whether the rule allows another flight.
func (l *lane[Q, R]) clear(now time.Time) bool {
	return len(l.air) == 0 || len(l.air) < maxFlights && now.Sub(l.youngest()) >= l.limit()
}

func (l *lane[Q, R]) limit() time.Duration { return max(slowFloor, slowFactor*l.avg) }

func (l *lane[Q, R]) youngest() time.Time {
	var t time.Time
	for _, f := range l.air {
		if f.took.After(t) {
			t = f.took
		}
	}
	return t
}

// watch keeps the invariant about the timer.
func (l *lane[Q, R]) watch(now time.Time) {
	if l.queue.n == 0 || l.armed || len(l.air) == maxFlights || l.g.closed.Load() {
		return
	}
	l.armed = true
	d := l.youngest().Add(l.limit()).Sub(now)
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.late)
	} else {
		l.timer.Reset(d)
	}
}

func (l *lane[Q, R]) late() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	now := time.Now()
	l.open(now)
	l.watch(now)
}

package lock

import (
	"context"
	"errors"
	"time"

	"github.com/spillway-go/spillway/internal/bus"
	"github.com/spillway-go/spillway/internal/lifetime"
)

// A gate is where the goroutines of this process queue for one lock. The process
// contends for it once, however many wait, and passes the lease on among them.
//
// The promise: one lease at a time is out, fences grow from one to the next, and
// whoever waits is served, in order, or is told why not. It would be broken by a
// lease passed on when its term is no longer valid, by a waiter that is served and
// has left, by a phase that nobody ends: each phase but free and out has a
// goroutine that ends it.
type gate struct {
	l    *Locker
	name string
	keys keys

	line       // line.mu guards everything below
	gone  bool // no longer in Locker.gates: look the name up again
	phase phase

	// Of the term, in the phases out, lingering and releasing.
	term   *term
	lease  *Lease // nil while lingering
	fences block
	sent   time.Time // when it was asked for
	since  time.Time // when the answer came
	wanted bool      // another process asked for the lock

	ear    *bus.Sub    // hears that the lock is wanted; nil unless Options.Linger is on
	eared  time.Time   // since when it hears without a gap; zero: it does not
	linger *time.Timer // ends the phase lingering
}

type phase int

const (
	free       phase = iota
	contending       // a contest runs
	out              // lease is out
	lingering        // nobody has the lease, the process keeps it
	releasing        // a release is on its way
)

// A block is the fences that Redis reserved for a term.
type block struct{ first, next, last int64 }

// enter waits for the lock of that name.
func (l *Locker) enter(ctx context.Context, cancel context.CancelCauseFunc, name string, try bool) (*Lease, error) {
	g, err := l.gate(name)
	if err != nil {
		return nil, err
	}
	if g.phase == lingering && g.usable(time.Now()) {
		g.linger.Stop()
		s := g.take(cancel)
		g.mu.Unlock()
		return s, nil
	}
	if try && (g.phase == out || g.phase == contending && g.stuck) {
		g.mu.Unlock()
		return nil, ErrNotAcquired
	}
	w := &waiter{try: try, cancel: cancel, served: make(chan struct{})}
	g.queue.push(w)
	if g.phase == free {
		g.contend(0)
	} else if g.phase == lingering {
		g.linger.Reset(0)
	}
	g.mu.Unlock()

	return g.await(ctx, l, w)
}

// gate returns the gate of that name, locked.
func (l *Locker) gate(name string) (*gate, error) {
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil, ErrClosed
		}
		g := l.gates[name]
		if g == nil {
			g = &gate{l: l, name: name, keys: l.keysOf(name), line: line{left: make(chan struct{}, 1)}}
			g.listen()
			l.gates[name] = g
		}
		l.mu.Unlock()
		g.mu.Lock()
		if !g.gone {
			return g, nil
		}
		g.mu.Unlock()
	}
}

// settle ends a phase: it starts the next one if anybody waits, and else forgets
// the gate. g.mu is held.
func (g *gate) settle(yield time.Duration) {
	g.phase, g.term, g.lease = free, nil, nil
	if g.queue.first != nil {
		g.contend(yield)
		return
	}
	if g.ear != nil {
		g.ear.Close()
	}
	g.gone = true
	g.l.mu.Lock() // a gate's lock before the Locker's, everywhere
	if g.l.gates[g.name] == g {
		delete(g.l.gates, g.name)
	}
	g.l.mu.Unlock()
}

// shut fails those who wait, for Close.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail(ErrClosed, false)
	switch g.phase {
	case lingering:
		g.linger.Reset(0)
	case contending:
		g.nudge()
	}
}

// usable reports whether the term may be given to one more goroutine: it is valid
// for long enough to be renewed, has a fence left, and it is not yet the turn of
// other processes.
func (g *gate) usable(now time.Time) bool {
	g.term.mu.Lock()
	stopped := g.term.stopped
	g.term.mu.Unlock()
	return !stopped && g.fences.next <= g.fences.last && g.term.left(now) >= g.l.opts.TTL/4 &&
		(now.Sub(g.since) < handOverFor || g.hears() && !g.wanted) && g.paced(now)
}

// paced reports whether the next fence is not ahead of the server's clock, or else
// it would not grow over a FLUSHALL: one a microsecond, counted from the answer.
// Passing a lease on takes about as long, so that it hardly ever has to wait, and
// for less than a microsecond then.
func (g *gate) paced(now time.Time) bool {
	for range 64 {
		if now.Sub(g.since).Microseconds() >= g.fences.next-g.fences.first {
			return true
		}
		now = time.Now()
	}
	return false
}

// take makes a lease of the term. g.mu is held.
func (g *gate) take(cancel context.CancelCauseFunc) *Lease {
	s := g.l.newLease(g.name, g.fences.next, g.term, g, cancel)
	g.fences.next++
	if s.fence > g.fences.first {
		g.l.stats.handOvers.Add(1)
	}
	g.phase, g.lease = out, s
	return s
}

// serve gives the lease to the first in the queue, and reports whether there is one.
func (g *gate) serve() bool {
	w := g.queue.first
	if w == nil {
		return false
	}
	g.queue.remove(w)
	w.lease = g.take(w.cancel)
	close(w.served)
	return true
}

// giveBack is home.giveBack: on to the next goroutine, kept, or released.
func (g *gate) giveBack(ctx context.Context, s *Lease, doubt bool) error {
	if doubt {
		ctx, cancel := lifetime.Within(ctx, endFor)
		defer cancel()
		_, err := g.l.release(ctx, g.keys, s.term.token, s.fence, true)
		return err
	}
	g.mu.Lock()
	if g.lease != s {
		g.mu.Unlock()
		g.l.stats.lost.Add(1) // it was on its way back when it was lost
		return ErrLost
	}
	g.lease = nil
	now := time.Now()
	if g.usable(now) {
		if g.serve() {
			g.mu.Unlock()
			return nil
		}
		if g.mayLinger() {
			g.phase = lingering
			g.linger.Reset(g.l.opts.Linger)
			g.mu.Unlock()
			return nil
		}
	}
	return g.surrender(ctx)
}

// surrender releases the term to other processes. It is called with g.mu held and
// returns without it.
func (g *gate) surrender(ctx context.Context) error {
	t := g.term
	g.phase = releasing
	g.mu.Unlock()
	defer g.l.gaveBack()
	if !t.end() { // lost in this moment; lose leaves the phase releasing alone
		g.mu.Lock()
		g.settle(0)
		g.mu.Unlock()
		return ErrLost
	}
	g.l.wheel.remove(t)
	ctx, cancel := lifetime.Within(ctx, endFor) // ctx may have ended
	defer cancel()
	sent := time.Now()
	used := g.fences.next - 1
	notified, err := g.l.release(ctx, g.keys, t.token, used, false)
	if !isAnswer(err) {
		g.l.persist(t.until(), func(ctx context.Context) error {
			_, err := g.l.release(ctx, g.keys, t.token, used, true)
			return err
		})
	}
	yield := time.Duration(0)
	if notified {
		// Others were told. Time for the message, their request, and a little.
		yield = 4*time.Since(sent) + 500*time.Microsecond
	}
	g.mu.Lock()
	g.settle(yield)
	g.mu.Unlock()
	return err
}

// lose is the term's: nobody renews it any more. The goroutine that holds the
// lease is told; those that wait contend anew without waiting for it.
func (g *gate) lose(t *term, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term != t || g.phase == releasing {
		return
	}
	g.l.gaveBack()
	if g.lease != nil && g.lease.lose(cause) {
		g.l.stats.lost.Add(1)
	}
	if g.phase == lingering {
		g.linger.Stop()
	}
	if errors.Is(cause, ErrClosed) {
		g.fail(ErrClosed, false)
	}
	g.settle(0)
}

// contend makes this process contend for the lock, after yield. g.mu is held.
func (g *gate) contend(yield time.Duration) {
	g.phase, g.stuck, g.trouble = contending, false, nil
	c := &contest{l: g.l, line: &g.line, prize: g, channel: g.keys.channel, renewal: g.newTerm}
	if !g.l.group.Go(func(ctx context.Context) { c.run(ctx, yield) }) {
		g.fail(ErrClosed, false)
		g.settle(0)
	}
}

func (g *gate) newTerm(token string) *term {
	t := &term{token: token, renewal: renewScript, call: g.l.renewCall(g.keys, token)}
	t.lost = func(cause error) { g.lose(t, cause) }
	return t
}

// ask is prize.ask. A request of another process may be heard before the answer is.
func (g *gate) ask(ctx context.Context, token string, _, marks bool) (answer, error) {
	g.mu.Lock()
	g.wanted = false
	g.mu.Unlock()
	return g.l.acquire(ctx, g.keys, token, marks)
}

// won is prize.won.
func (g *gate) won(ctx context.Context, t *term, got answer, sent time.Time, _ bool) bool {
	g.mu.Lock()
	g.term, g.trouble = t, nil
	g.fences = block{got.fence, got.fence, got.fence + handOvers - 1}
	g.sent, g.since, g.wanted = sent, time.Now(), g.wanted || got.wanted
	if g.serve() {
		g.fail(ErrNotAcquired, true)
		g.mu.Unlock()
		// Not before there is a lease: one that is lost in this moment must be told.
		g.l.wheel.add(t)
		return true
	}
	if err := g.surrender(ctx); err != nil {
		g.l.troubled("release a lock that nobody waited for", err)
	}
	return true
}

// undo is prize.undo.
func (g *gate) undo(ctx context.Context, token string, doubt bool) error {
	_, err := g.l.release(ctx, g.keys, token, 0, doubt)
	return err
}

// ended is prize.ended.
func (g *gate) ended() { g.settle(0) }

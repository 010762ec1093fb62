package lock

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/bus"
)

const (
	// pollEvery is how often a lock that stays held is asked for although no message
	// came and its TTL is not over: the net below lost notifications.
	pollEvery = 2 * time.Second
	// turnEvery is the same with Options.Fair, where asking is also how a process
	// shows that it is alive, and how it finds that the one before it is not:
	// WINDOW and GONE in turns.lua are made for it.
	turnEvery = 500 * time.Millisecond
	// rescueAfter is how long after a release a waiter that a timer woke counts as
	// rescued; before, its message may still be on its way.
	rescueAfter = 250 * time.Millisecond
	// confirmFor is how long a waiter waits for its subscription to be confirmed
	// before it goes on without.
	confirmFor = time.Second
	// troublePause is how long the contender waits after an error.
	troublePause = 50 * time.Millisecond
)

// contend makes this process contend for the lock, after yield. g.mu is held.
func (g *gate) contend(yield time.Duration) {
	g.phase, g.trouble = contending, nil
	if !g.l.group.Go(func(ctx context.Context) { g.runContend(ctx, yield) }) {
		g.fail(ErrClosed, false)
		g.settle(0)
	}
}

// A contest is one process's way to a lock.
type contest struct {
	g     *gate
	token string
	doubt bool          // an attempt with token may have run, or may yet
	sub   *bus.Sub      // nil until the lock was found held
	woken chan struct{} // holds a token when the lock may be free
	timed bool          // the last wait ended by a timer
}

// runContend asks for the lock until it has it or nobody waits any more. It tries
// once, and only if the lock is held subscribes; then it must try again, as what
// was published before the confirmation is lost: subscribe, confirm, try, wait. A
// reconnect counts as a message.
func (g *gate) runContend(ctx context.Context, yield time.Duration) {
	c := &contest{g: g, token: g.l.newToken(), woken: make(chan struct{}, 1)}
	defer c.close()
	if yield > 0 {
		c.subscribe(ctx)
		if !g.l.opts.Fair { // there the queue decides
			c.wait(ctx, yield)
		}
	}
	for {
		tries, waits := g.who()
		if !tries && !waits {
			if c.giveUp(ctx) {
				return
			}
			continue
		}
		sent := time.Now()
		got, err := c.attempt(ctx, waits)
		if err == nil && got.granted {
			if c.granted(ctx, got, sent) {
				return
			}
			continue
		}
		g.mu.Lock()
		g.trouble = err
		if err != nil {
			g.l.stats.failures.Add(1)
			// A closed client does not open again: nobody waits for it.
			g.fail(err, !errors.Is(err, redis.ErrClosed))
		} else {
			g.fail(ErrNotAcquired, true)
		}
		empty := g.queue.first == nil
		g.mu.Unlock()
		switch {
		case empty:
		case err != nil:
			c.wait(ctx, troublePause)
			c.timed = false // what this timer finds, no message could have told
		case c.sub == nil:
			c.subscribe(ctx)
		default:
			poll := pollEvery
			if g.l.opts.Fair {
				poll = turnEvery
			}
			c.wait(ctx, min(got.left+time.Millisecond, poll))
		}
		if ctx.Err() != nil {
			g.mu.Lock()
			g.fail(ErrClosed, false)
			g.mu.Unlock()
		}
	}
}

// who tells whether callers that try, and callers that wait, are in the queue.
func (g *gate) who() (tries, waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := g.queue.first; w != nil && !waits; w = w.next {
		tries, waits = tries || w.try, !w.try
	}
	return tries, waits
}

// attempt asks for the lock once, or until the outcome is known.
func (c *contest) attempt(ctx context.Context, waits bool) (answer, error) {
	within := ctx
	if !waits {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, tryFor)
		defer cancel()
	}
	// Marking the record as waited for before the subscription is confirmed would be
	// a message to nobody.
	got, err := c.g.l.acquire(within, c.g.keys, c.token, c.sub != nil)
	if errors.Is(err, ErrUnknown) {
		c.doubt = true
		if !waits && ctx.Err() == nil {
			// TryLock does not wait for a lock, but it does for what became of it.
			got, err = c.g.l.acquire(ctx, c.g.keys, c.token, false)
		}
	}
	return got, err
}

// granted begins the term and hands it to the first in the queue. It reports false
// if the grant came so late that it is worth nothing.
func (c *contest) granted(ctx context.Context, got answer, sent time.Time) bool {
	g, ttl := c.g, c.g.l.opts.TTL
	t := &term{token: c.token, renewal: renewScript, call: g.l.renewCall(g.keys, c.token)}
	t.lost = func(cause error) { g.lose(t, cause) }
	t.begin(sent, ttl)
	now := time.Now()
	if t.left(now) < ttl/4 {
		c.putBack(ctx)
		return false
	}
	g.l.stats.acquired.Add(1)
	if c.timed && got.age >= rescueAfter {
		g.l.stats.rescued.Add(1)
	}
	if !g.l.took() {
		c.putBack(ctx)
		g.mu.Lock()
		g.fail(ErrClosed, false)
		g.settle(0)
		g.mu.Unlock()
		return true
	}
	g.l.wheel.add(t)
	g.mu.Lock()
	g.term, g.trouble = t, nil
	g.fences = block{got.fence, got.fence, got.fence + handOvers - 1}
	g.sent, g.since, g.wanted = sent, now, got.wanted
	if !g.serve() {
		if err := g.surrender(ctx); err != nil {
			g.l.troubled("release a lock that nobody waited for", err)
		}
		return true
	}
	g.mu.Unlock()
	return true
}

// giveUp ends the contest if still nobody waits. An attempt that may have been
// granted, or may yet be, is taken back first; what arrives even later ends with
// its TTL.
func (c *contest) giveUp(ctx context.Context) bool {
	if c.doubt || c.sub != nil && c.g.l.opts.Fair { // there is a place in the queue to give up
		c.putBack(ctx)
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.queue.first != nil && ctx.Err() == nil {
		return false
	}
	c.g.fail(ErrClosed, false)
	c.g.settle(0)
	return true
}

// putBack releases what the token may have; the contest goes on with another.
func (c *contest) putBack(ctx context.Context) {
	if _, err := c.g.l.release(ctx, c.g.keys, c.token, 0, c.doubt); err != nil &&
		!errors.Is(err, ErrLost) && !errors.Is(err, ErrUnknown) {
		c.g.l.troubled("release", err)
	}
	c.token, c.doubt = c.g.l.newToken(), false
}

// subscribe begins to listen, and returns when what is published from now on
// arrives, or when it takes too long: the timers are still there.
func (c *contest) subscribe(ctx context.Context) {
	c.sub = c.g.l.bus.Subscribe(c.g.keys.channel, func(e bus.Event) {
		turn, is := strings.CutPrefix(e.Payload, "turn ")
		if e.Gap || e.Payload == "free" || is && c.g.l.mine(turn) {
			select {
			case c.woken <- struct{}{}:
			default:
			}
		}
	})
	ctx, cancel := context.WithTimeout(ctx, confirmFor)
	defer cancel()
	select {
	case <-c.sub.Ready():
	case <-ctx.Done():
	case <-c.g.left:
	}
	// What came up to here is answered by the attempt that follows.
	select {
	case <-c.woken:
	default:
	}
}

// wait waits for a message, at most for d.
func (c *contest) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	c.timed = false
	select {
	case <-c.woken:
	case <-timer.C:
		c.timed = true
	case <-c.g.left:
	case <-ctx.Done():
	}
}

func (c *contest) close() {
	if c.sub != nil {
		c.sub.Close()
	}
}

package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/bus"
	"github.com/spillway-go/spillway/internal/lifetime"
)

const (
	// pollEvery is how often what stays held is asked for although no message came
	// and its TTL is not over: the net below lost notifications.
	pollEvery = 2 * time.Second
	// turnEvery is the same where asking is also how a process shows that it is alive
	// (Options.Fair: WINDOW and GONE in turns.lua are made for it), or that it still
	// means to write (the intent in join.lua).
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

// A line is where goroutines of this process wait for one thing. One goroutine,
// the contest, asks Redis on behalf of all of them.
type line struct {
	mu      sync.Mutex
	queue   queue
	left    chan struct{} // holds a token when the contest's last waiter left
	stuck   bool          // the contest found the prize held, and waits
	trouble error         // why the contest gets nowhere
}

// A waiter is a goroutine in a line.
type waiter struct {
	try    bool
	writes bool // of an RWLock
	cancel context.CancelCauseFunc
	served chan struct{} // closed when lease or err is set
	lease  *Lease
	err    error

	queued     bool
	prev, next *waiter
}

// await waits until w is served or ctx ends, at once. If w is served in that
// moment, what it got is given back.
func (n *line) await(ctx context.Context, l *Locker, w *waiter) (*Lease, error) {
	select {
	case <-w.served:
		return w.lease, w.err
	case <-ctx.Done():
	}
	err := ctx.Err()
	n.mu.Lock()
	if w.queued {
		n.queue.remove(w)
		if n.queue.first == nil {
			n.nudge()
		}
		if n.trouble != nil {
			err = fmt.Errorf("%w, waiting for Redis: %w", err, n.trouble)
		}
	}
	n.mu.Unlock()
	if s := w.lease; s != nil {
		// Not in the caller's time, which is over.
		l.group.Go(func(ctx context.Context) {
			if err := s.Unlock(ctx); err != nil {
				l.troubled("give back a lease that nobody waited for", err)
			}
		})
	}
	return nil, err
}

// nudge makes the contest look who waits.
func (n *line) nudge() {
	select {
	case n.left <- struct{}{}:
	default:
	}
}

// fail tells the waiters, or only those that try, why they get nothing. n.mu is held.
func (n *line) fail(err error, tries bool) {
	for w := n.queue.first; w != nil; {
		next := w.next
		if w.try || !tries {
			n.queue.remove(w)
			w.err = err
			close(w.served)
		}
		w = next
	}
}

// who tells whether callers that try, and callers that wait, are in the line, and
// whether the first wants to write.
func (n *line) who() (tries, waits, writes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	writes = n.queue.first != nil && n.queue.first.writes
	for w := n.queue.first; w != nil && !waits; w = w.next {
		tries, waits = tries || w.try, !w.try
	}
	return tries, waits, writes
}

// A prize is what a contest is about.
type prize interface {
	// ask asks Redis for it. marks says that the caller hears of releases.
	ask(ctx context.Context, token string, writes, marks bool) (answer, error)
	// won hands it to the first in the line, has its term renewed from then on, and
	// reports whether the contest is over.
	won(ctx context.Context, t *term, got answer, sent time.Time, writes bool) bool
	// undo gives back what token has, or may have if doubt.
	undo(ctx context.Context, token string, doubt bool) error
	// ended is called with the line locked when nobody is in it.
	ended()
}

// A contest is this process's way to a prize.
type contest struct {
	l       *Locker
	line    *line
	prize   prize
	channel string
	renewal func(token string) *term

	token  string
	writes bool          // what the token was used for
	marked bool          // Redis may know that the token waits, and keep others out
	doubt  bool          // an attempt with the token may have run, or may yet
	sub    *bus.Sub      // nil until the prize was found held
	woken  chan struct{} // holds a token when it may be free
	timed  bool          // the last wait ended by a timer
}

// run asks for the prize until nobody waits any more. It tries once, and only if it
// is held subscribes; then it must try again, as what was published before the
// confirmation is lost: subscribe, confirm, try, wait. A reconnect counts as a
// message. If others were just let in, they get yield to come.
func (c *contest) run(ctx context.Context, yield time.Duration) {
	c.token, c.woken = c.l.newToken(), make(chan struct{}, 1)
	defer c.close()
	if yield > 0 {
		c.subscribe(ctx)
		if !c.l.opts.Fair { // there the queue decides
			c.wait(ctx, yield)
		}
	}
	for {
		if ctx.Err() != nil {
			c.line.mu.Lock()
			c.line.fail(ErrClosed, false)
			c.line.mu.Unlock()
		}
		tries, waits, writes := c.line.who()
		if !tries && !waits {
			if c.giveUp(ctx) {
				return
			}
			continue
		}
		if c.writes != writes && (c.doubt || c.marked) {
			c.putBack(ctx) // the first in the line left, and the next wants something else
		}
		c.writes = writes
		sent := time.Now()
		got, err := c.attempt(ctx, waits)
		if err == nil && got.granted {
			if c.granted(ctx, got, sent) {
				return
			}
			continue
		}
		switch {
		case c.refused(err):
		case err != nil:
			c.wait(ctx, troublePause)
			c.timed = false // what this timer finds, no message could have told
		case c.sub == nil:
			c.subscribe(ctx)
		default:
			c.wait(ctx, min(got.left+time.Millisecond, c.poll()))
		}
	}
}

func (c *contest) poll() time.Duration {
	if c.l.opts.Fair || c.writes {
		return turnEvery
	}
	return pollEvery
}

// attempt asks once, or until the outcome is known.
func (c *contest) attempt(ctx context.Context, waits bool) (answer, error) {
	within := ctx
	if !waits {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, tryFor)
		defer cancel()
	}
	// Marking before the subscription is confirmed would be a message to nobody.
	marks := c.sub != nil
	c.marked = c.marked || marks && (c.l.opts.Fair || c.writes)
	got, err := c.prize.ask(within, c.token, c.writes, marks)
	if errors.Is(err, ErrUnknown) {
		c.doubt = true
		if !waits && ctx.Err() == nil {
			// TryLock does not wait for a lock, but it does for what became of it.
			got, err = c.prize.ask(ctx, c.token, c.writes, false)
		}
	}
	return got, err
}

// refused tells those who try, or everybody, that they get nothing, and reports
// whether nobody is left.
func (c *contest) refused(err error) bool {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.line.trouble = err
	switch {
	case err == nil:
		c.line.fail(ErrNotAcquired, true)
	case errors.Is(err, redis.ErrClosed), errors.Is(err, ErrSize):
		// Nobody waits for a client that does not open again.
		c.line.fail(err, false)
	default:
		c.l.stats.failures.Add(1)
		c.line.fail(err, true)
	}
	empty := c.line.queue.first == nil
	c.line.stuck = err == nil && !empty
	return empty
}

// granted begins the term, and reports whether the contest is over. A grant that
// came so late that it is worth nothing goes back.
func (c *contest) granted(ctx context.Context, got answer, sent time.Time) bool {
	t := c.renewal(c.token)
	t.begin(sent, c.l.opts.TTL)
	if t.left(time.Now()) < c.l.opts.TTL/4 {
		c.putBack(ctx)
		return false
	}
	if !c.l.took() {
		c.putBack(ctx)
		c.line.mu.Lock()
		c.line.fail(ErrClosed, false)
		c.line.mu.Unlock()
		return false
	}
	c.l.stats.acquired.Add(1)
	if c.timed && got.age >= rescueAfter {
		c.l.stats.rescued.Add(1)
	}
	c.token, c.doubt, c.marked = c.l.newToken(), false, false
	return c.prize.won(ctx, t, got, sent, c.writes)
}

// giveUp ends the contest if still nobody waits. An attempt that may have been
// granted, or may yet be, is taken back first; what arrives even later ends with
// its TTL.
func (c *contest) giveUp(ctx context.Context) bool {
	if c.doubt || c.marked {
		c.putBack(ctx)
	}
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.line.queue.first != nil && ctx.Err() == nil {
		return false
	}
	c.line.fail(ErrClosed, false)
	c.prize.ended()
	return true
}

// putBack releases what the token may have; the contest goes on with another.
func (c *contest) putBack(ctx context.Context) {
	within, cancel := lifetime.Within(ctx, endFor)
	defer cancel()
	err := c.prize.undo(within, c.token, c.doubt)
	if err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, ErrUnknown) {
		c.l.troubled("give back", err)
	}
	c.token, c.doubt, c.marked = c.l.newToken(), false, false
}

// subscribe begins to listen, and returns when what is published from now on
// arrives, or when that takes too long: the timers are still there.
func (c *contest) subscribe(ctx context.Context) {
	c.sub = c.l.bus.Subscribe(c.channel, func(e bus.Event) {
		turn, is := strings.CutPrefix(e.Payload, "turn ")
		if e.Gap || e.Payload == "free" || is && c.l.mine(turn) {
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
	case <-c.line.left:
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
	case <-c.line.left:
	case <-ctx.Done():
	}
}

func (c *contest) close() {
	if c.sub != nil {
		c.sub.Close()
	}
}

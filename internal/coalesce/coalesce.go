// Package coalesce is group commit: the calls of many goroutines become one.
//
// While a call is in flight the callers that arrive gather; the next call
// carries them all. Nothing ever waits for a batch to fill: a lone caller flies
// alone and at once, and batches grow only as far as callers outnumber round
// trips. Callers share flights within a lane (one per hash tag), so that a stuck
// shard delays nobody else.
//
// What it does not do: it never repeats a flight and never moves an item from
// one batch into another. Whoever must resend a batch whose outcome is unknown
// does so inside flush, where the batch stays what it was.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/spillway-go/spillway/internal/lifetime"
)

var (
	// ErrUnsent means that the item never reached a flush: nothing happened.
	ErrUnsent = errors.New("coalesce: not sent")
	// ErrUnknown means that the item was or will be sent and this caller has no
	// answer: it may have happened.
	ErrUnknown = errors.New("coalesce: outcome unknown")
	// ErrOverloaded refuses an item because its lane's queue is full. It is an
	// ErrUnsent.
	ErrOverloaded = fmt.Errorf("%w: queue full", ErrUnsent)
	// ErrClosed refuses an item because of Close. It is an ErrUnsent.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnsent)
)

// A panicError is what the waiters of a batch get whose flush panicked. It is
// an ErrUnknown, and whatever the value is if that was an error.
type panicError struct {
	Value any
	Stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("%v: flush panicked: %v\n%s", ErrUnknown, e.Value, e.Stack)
}

func (e *panicError) Unwrap() []error {
	if err, ok := e.Value.(error); ok {
		return []error{ErrUnknown, err}
	}
	return []error{ErrUnknown}
}

// Options limit a Group. Zero is the default of each field.
type Options struct {
	// MaxItems bounds the items of one flight. Default 128.
	MaxItems int
	// MaxBytes bounds the sum of the sizes given to Do in one flight. An item
	// that is larger goes alone. Default 128 KiB.
	MaxBytes int
	// MaxQueue bounds the items that wait in one lane; what comes on top gets
	// ErrOverloaded at once. Default 65536.
	MaxQueue int
}

// Stats counts what a Group did since New.
type Stats struct {
	Flights    uint64 // calls of flush
	Items      uint64 // items they carried
	Joined     uint64 // callers that joined an item that waited
	Dropped    uint64 // items not sent because all their callers left
	Overloaded uint64 // items refused with ErrOverloaded
	Beside     uint64 // flights opened beside a slow one
}

// A Group merges calls. Use New.
type Group[Q, R any] struct {
	flush func(ctx context.Context, lane string, batch []Q) ([]R, error)
	opts  Options
	life  *lifetime.Group

	closed atomic.Bool
	stats  struct{ flights, items, joined, dropped, overloaded, beside atomic.Uint64 }

	mu      sync.RWMutex
	lanes   map[string]*lane[Q, R]
	sweepAt int // number of lanes at which the idle ones are forgotten

	// Pools belong to the group because a channel made in a synctest bubble must
	// not leave it.
	calls, flights sync.Pool
}

// New returns a group that settles batches with flush.
//
// flush returns one result per item, in the order of batch, or an error that
// every caller of the batch gets as it is. It keeps neither batch nor ctx: both
// are used again. ctx belongs to no caller; it ends when the last caller of the
// batch has left, or when Close runs out of time. A panic becomes a
// *panicError, runtime.Goexit or a wrong number of results an ErrUnknown, for
// the callers of that batch alone.
func New[Q, R any](flush func(ctx context.Context, lane string, batch []Q) ([]R, error), opts Options) *Group[Q, R] {
	if opts.MaxItems <= 0 {
		opts.MaxItems = 128
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 128 << 10
	}
	if opts.MaxQueue <= 0 {
		opts.MaxQueue = 64 << 10
	}
	g := &Group[Q, R]{
		flush: flush, opts: opts, life: lifetime.New(),
		lanes: make(map[string]*lane[Q, R]), sweepAt: minSweep,
	}
	g.calls.New = func() any { return &call[Q, R]{ready: make(chan struct{}, 1)} }
	g.flights.New = func() any { return newFlight(g) }
	return g
}

// Do sends q, which weighs size bytes, in the named lane and returns its
// result.
//
// An id that waits in the lane already is joined instead of sent, and its result
// shared: equal ids must mean equal requests. What flies is not joined: its answer may
// be older than the call. An empty id is never joined.
//
// A caller whose ctx ends leaves at once, with ctx's error and ErrUnsent if the
// item was withdrawn in time, or ErrUnknown if it was or will be sent. Errors
// that are neither of the two come from flush. The cost is O(1) and, in a busy
// lane, no allocation.
func (g *Group[Q, R]) Do(ctx context.Context, lane, id string, q Q, size int) (R, error) {
	if err := ctx.Err(); err != nil {
		var none R
		return none, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	var r R
	c := g.calls.Get().(*call[Q, R])
	c.id, c.q, c.size = id, q, size
	l := g.enter(lane)
	err := l.submit(c)
	l.mu.Unlock()
	if err != nil {
		g.recycle(c)
		return r, err
	}
	if done := ctx.Done(); done == nil {
		<-c.ready
	} else {
		select {
		case <-c.ready:
		case <-done:
			if reason := l.leave(c); reason != nil {
				return r, fmt.Errorf("%w: %w", reason, ctx.Err())
			}
			<-c.ready // it landed in this moment
		}
	}
	r, err = c.r, c.err
	g.recycle(c)
	return r, err
}

// Close refuses new items and waits until all that were accepted have landed.
// When ctx ends first, the flights' context ends, what still waits gets
// ErrClosed, and ctx's error is returned once the flights are down. It may be
// called again.
func (g *Group[Q, R]) Close(ctx context.Context) error {
	g.closed.Store(true)
	stop := context.AfterFunc(ctx, g.abort)
	defer stop()
	err := g.life.Drain(ctx)
	g.each(func(l *lane[Q, R]) {
		if l.timer != nil {
			l.timer.Stop()
		}
	})
	if err != nil {
		return fmt.Errorf("coalesce: close: %w", err)
	}
	return nil
}

// Stats returns the counters. They are read one by one.
func (g *Group[Q, R]) Stats() Stats {
	s := &g.stats
	return Stats{
		Flights: s.flights.Load(), Items: s.items.Load(), Joined: s.joined.Load(),
		Dropped: s.dropped.Load(), Overloaded: s.overloaded.Load(), Beside: s.beside.Load(),
	}
}

// abort needs no protection against items that come later: submit sees closed
// under the same lock.
func (g *Group[Q, R]) abort() {
	g.each(func(l *lane[Q, R]) {
		for _, f := range l.air {
			f.abandon()
		}
		for c := l.queue.pop(); c != nil; c = l.queue.pop() {
			l.forget(c)
			c.settle()
			g.deliver(c, *new(R), ErrClosed)
		}
	})
}

func (g *Group[Q, R]) each(f func(*lane[Q, R])) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, l := range g.lanes {
		l.mu.Lock()
		f(l)
		l.mu.Unlock()
	}
}

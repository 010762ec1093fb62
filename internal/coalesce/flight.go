package coalesce

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

const maxYields = 4

// A flight is a goroutine that carries one batch after the other, for as long
// as its lane lets it take off again. Guarded by the lane's lock, but for the
// batch while flush has it.
type flight[Q, R any] struct {
	g     *Group[Q, R]
	lane  *lane[Q, R]
	start func(context.Context) // run, bound once and not on every take-off

	took      time.Time // when it took off
	calls     []*call[Q, R]
	batch     []Q // of calls, for flush
	waiting   int // callers that have not left
	abandoned bool

	// Making a context for each flight would cost more than the rest of it. One
	// serves until it is cancelled. It hangs on no parent, which would keep it
	// for ever; Close cancels it by way of the lane.
	ctx    context.Context
	cancel context.CancelFunc
}

func newFlight[Q, R any](g *Group[Q, R]) *flight[Q, R] {
	f := &flight[Q, R]{g: g}
	f.start = f.run
	return f
}

// abandon tells flush that nobody waits any more.
func (f *flight[Q, R]) abandon() {
	f.abandoned = true
	if f.cancel != nil {
		f.cancel()
	}
}

// load takes the next batch out of the queue and puts f in the air.
func (l *lane[Q, R]) load(f *flight[Q, R], now time.Time) {
	bytes := 0
	f.waiting = 0
	for c := l.queue.head; c != nil; c = l.queue.head {
		if len(f.calls) == l.g.opts.MaxItems || len(f.calls) > 0 && c.size > l.g.opts.MaxBytes-bytes {
			break
		}
		l.withdraw(c)
		bytes += c.size
		c.state, c.flight = sent, f
		f.waiting += c.waiters()
		f.calls = append(f.calls, c)
		f.batch = append(f.batch, c.q)
	}
	f.took = now
	l.air = append(l.air, f)
	l.g.stats.flights.Add(1)
	l.g.stats.items.Add(uint64(len(f.calls)))
}

func (f *flight[Q, R]) run(ctx context.Context) {
	down := false
	defer func() {
		if !down { // runtime.Goexit inside flush: deferred calls still run
			f.land(nil, fmt.Errorf("%w: flush called runtime.Goexit", ErrUnknown))
			if f.again(ctx) {
				f.run(ctx)
			}
		}
	}()
	// A fresh goroutine may be here before open has loaded the batch; open holds
	// the lock.
	f.lane.mu.Lock()
	f.renew(ctx)
	f.lane.mu.Unlock()
	for more := true; more; more = f.again(ctx) {
		f.land(f.fly())
		f.gather()
	}
	down = true
}

// renew makes a context if the last one is used up.
func (f *flight[Q, R]) renew(ctx context.Context) {
	if f.ctx != nil {
		return
	}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if f.abandoned { // since it was loaded
		f.cancel()
	}
}

func (f *flight[Q, R]) fly() (rs []R, err error) {
	returned := false
	defer func() {
		if !returned {
			if v := recover(); v != nil {
				err = &panicError{Value: v, Stack: debug.Stack()}
			}
		}
	}()
	rs, err = f.g.flush(f.ctx, f.lane.name, f.batch)
	returned = true
	if err == nil && len(rs) != len(f.batch) {
		err = fmt.Errorf("%w: flush returned %d results for %d items", ErrUnknown, len(rs), len(f.batch))
	}
	return rs, err
}

// land gives the batch its answer. The flight counts as in the air until again
// decides, lest a caller opens another beside one that is about to take off.
func (f *flight[Q, R]) land(rs []R, err error) {
	l := f.lane
	d := time.Since(f.took)
	l.mu.Lock()
	for _, c := range f.calls {
		c.settle()
	}
	// A stuck flight counts as one that was just slow: it must not raise the
	// limit for the next stuck one, while a server that became slow for good
	// still does, by a third a flight.
	d = min(d, l.limit())
	if l.avg == 0 {
		l.avg = d
	}
	l.avg += (d - l.avg) / 8
	l.landing++
	l.mu.Unlock()

	var r R
	for i, c := range f.calls {
		if err == nil {
			r = rs[i]
		}
		f.g.deliver(c, r, err)
	}
	clear(f.calls)
	clear(f.batch) // not before: rs may be the same slice
	f.calls, f.batch = f.calls[:0], f.batch[:0]
}

// gather lets those who just got their answer call again. Otherwise the next
// batch would take off with the few who came early and the many would wait for
// it: the callers would fall into two groups that fly in turn. One yield is not
// enough where another processor is idle and picks this goroutine up at once;
// yielding while it brings somebody in made flights of 62 of 64 callers where
// one yield made 43. The bound is for a machine whose processors are all taken,
// where a yield is long. A lone caller has its answer by now.
func (f *flight[Q, R]) gather() {
	l := f.lane
	n := 0
	for range maxYields {
		runtime.Gosched()
		before := n
		l.mu.Lock()
		n = l.queue.n
		l.mu.Unlock()
		if n <= before || n >= l.g.opts.MaxItems {
			return
		}
	}
}

// again loads the next batch if the lane has one and no other flight is about
// to take it; if not, the flight is over.
func (f *flight[Q, R]) again(ctx context.Context) bool {
	l := f.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.abandoned {
		f.abandoned, f.ctx, f.cancel = false, nil, nil
	}
	l.landing--
	l.air = slices.DeleteFunc(l.air, func(o *flight[Q, R]) bool { return o == f })
	now := time.Now()
	if l.queue.n > 0 && l.clear(now) {
		l.load(f, now)
		l.watch(now)
		f.renew(ctx)
		return true
	}
	if l.armed && len(l.air) > 0 {
		// The timer was set for this flight. Those that stay are older, and the
		// next caller must see at once that they are slow.
		l.timer.Stop()
		l.armed = false
	}
	l.watch(now)
	f.lane = nil
	l.g.flights.Put(f)
	return false
}

package snowflake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success.
var (
	// ErrInvalid is a bad argument, option or layout; the message names it.
	ErrInvalid = errors.New("snowflake: invalid argument")
	// ErrClosed is a call after Worker.Close.
	ErrClosed = errors.New("snowflake: closed")
	// ErrUnavailable is a lease that ran out and could not be renewed: no id was made.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply while leasing: a worker id may be taken until its TTL.
	ErrUnknown = script.ErrUnknown

	// ErrClock is a clock that is behind the ids made so far by more than the caller's
	// ctx can wait, or a minute away from Redis's.
	ErrClock = errors.New("snowflake: the clock is wrong")
	// ErrNoWorker is a lease when all worker ids are taken.
	ErrNoWorker = errors.New("snowflake: all worker ids are leased")
	// ErrExhausted is a time that does not fit into the layout's bits any more.
	ErrExhausted = errors.New("snowflake: the layout's epoch has ended")
)

// A Snowflake makes ids from the clock. Methods may be called from many goroutines.
//
//   - Next waits until it can make one.
//   - TryNext never waits.
//
// Ids increase strictly within a process and roughly, by the clocks, among processes.
type Snowflake struct {
	w      *Worker
	layout Layout
	epoch  int64 // µs
	unit   int64 // µs
	borrow int64 // units
	end    int64 // the last unit that fits
	seq    uint
	worker uint // bits of the worker id
}

// New returns a source of ids of the layout, made under the worker's id. A worker
// serves one Snowflake: two would make the same ids.
//
// A layout whose fields do not fit, or whose epoch has ended or not begun, is
// ErrInvalid. One that ends within a year is reported to the worker's Logger, and
// by Stats.
func New(layout Layout, worker *Worker) (*Snowflake, error) {
	if err := layout.check(); err != nil {
		return nil, err
	}
	if worker == nil {
		return nil, fmt.Errorf("%w: worker is nil", ErrInvalid)
	}
	if most := 1 << layout.WorkerBits; worker.opts.Workers > most {
		return nil, fmt.Errorf("%w: Options.Workers %d of the worker, but Layout.WorkerBits %d holds %d", ErrInvalid, worker.opts.Workers, layout.WorkerBits, most)
	}
	s := &Snowflake{
		w: worker, layout: layout, epoch: layout.Epoch.UnixMicro(), unit: layout.Unit.Microseconds(), borrow: layout.borrow(),
		end: 1<<layout.TimeBits - 1, seq: uint(layout.SequenceBits), worker: uint(layout.WorkerBits),
	}
	now := worker.wall().UnixMicro()
	switch left := layout.End().Sub(worker.wall()); {
	case now < s.epoch:
		return nil, fmt.Errorf("%w: Layout.Epoch %v is in the future", ErrInvalid, layout.Epoch)
	case left <= 0:
		return nil, fmt.Errorf("%w: Layout.Epoch %v has ended %v ago: %w", ErrInvalid, layout.Epoch, -left, ErrExhausted)
	case left < year:
		worker.opts.Logger.Warn("snowflake: the layout's epoch ends within a year", "end", layout.End())
	}
	if !worker.attach(s) {
		return nil, fmt.Errorf("%w: the worker has a Snowflake already", ErrInvalid)
	}
	return s, nil
}

const year = 365 * 24 * time.Hour

// Next returns an id. It waits, until ctx ends, for a lease (then ErrUnavailable),
// and for a clock that was set back or has been overtaken; if that would take longer
// than ctx has, it refuses at once with ErrClock. Without a wait no round trip and no
// allocation.
func (s *Snowflake) Next(ctx context.Context) (int64, error) {
	l := s.w.lease.Load()
	if id, why := s.make(l); why == made {
		return id, nil
	}
	return s.wait(ctx)
}

// TryNext returns an id if it can make one at once.
func (s *Snowflake) TryNext() (int64, bool) {
	id, why := s.make(s.w.lease.Load())
	return id, why == made
}

// Why no id was made.
type reason int

const (
	made    reason = iota
	lapsed         // the lease is over, here
	beyond         // the time is above what was reserved
	early          // the clock has to catch up
	overrun        // of the time's bits
)

// make makes an id under the lease l, in one atomic step.
func (s *Snowflake) make(l *lease) (int64, reason) {
	// One reading of the monotonic clock serves for both: reading the wall clock too
	// would cost as much as all the rest.
	now := int64(time.Since(s.w.base))
	if now >= l.until.Load() {
		return 0, lapsed
	}
	unit := (now + s.w.began.Load() - s.epoch*1000) / (s.unit * 1000)
	for {
		last := l.last.Load()
		next := max(last+1, unit<<s.seq)
		u := next >> s.seq
		switch {
		case u > unit+s.borrow:
			return u - s.borrow - unit, early
		case u*s.unit+s.epoch > l.ceiling.Load():
			return 0, beyond
		case u > s.end:
			return 0, overrun
		}
		if l.last.CompareAndSwap(last, next) {
			return u<<(s.worker+s.seq) | l.id<<s.seq | next&(1<<s.seq-1), made
		}
	}
}

func (s *Snowflake) wait(ctx context.Context) (int64, error) {
	s.w.waits.Add(1)
	for {
		// Before the look at the lease, or a change in between would be missed.
		changed := s.w.changed()
		l := s.w.lease.Load()
		n, why := s.make(l)
		var timer <-chan time.Time
		switch why {
		case made:
			return n, nil
		case overrun:
			return 0, fmt.Errorf("snowflake: worker %d: %w", l.id, ErrExhausted)
		case early:
			if s.w.isClosed() {
				return 0, fmt.Errorf("snowflake: worker %d: %w", l.id, ErrClosed)
			}
			behind := time.Duration(n*s.unit) * time.Microsecond
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < behind {
				return 0, fmt.Errorf("snowflake: worker %d: %w: it is %v behind the ids made so far", l.id, ErrClock, behind)
			}
			// The clock may be set right before that.
			timer = time.After(min(behind, time.Second))
		case lapsed, beyond:
			if s.w.isClosed() {
				return 0, fmt.Errorf("snowflake: worker %d: %w", l.id, ErrClosed)
			}
			s.w.hurry()
		}
		select {
		case <-timer:
		case <-changed:
		case <-ctx.Done():
			return 0, s.w.gaveUp(l, why, context.Cause(ctx))
		}
	}
}

// first returns the state after which the next id has a time above floor, in µs.
func (s *Snowflake) first(floor int64) int64 {
	return max(0, (floor-s.epoch)/s.unit+1)<<s.seq - 1
}

// used returns the time, in µs, of the last id of a lease.
func (s *Snowflake) used(last int64) int64 { return (last>>s.seq)*s.unit + s.epoch }

// Stats are counters of this process since LeaseWorker, and the state of the moment.
type Stats struct {
	Worker   int           // the worker id
	Left     time.Duration // until the lease ends if it is not renewed
	Renewals uint64
	Failures uint64    // leases and renewals that failed
	Lost     uint64    // leases that another process took over, or Redis forgot
	Waits    uint64    // calls of Next that could not make an id at once
	End      time.Time // of the layout's epoch
	EndsSoon bool      // within a year
}

// Stats returns the counters. It does no I/O.
func (s *Snowflake) Stats() Stats {
	st := s.w.stats()
	st.End = s.layout.End()
	st.EndsSoon = st.End.Sub(s.w.wall()) < year
	return st
}

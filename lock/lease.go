package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Lease is one holder's hold of a lock, until Unlock. Redis ends it after the
// TTL if it is not renewed, which happens in the background.
type Lease struct {
	name   string
	fence  int64
	term   *term
	home   home
	cancel context.CancelCauseFunc
	timer  *time.Timer // of MaxHold

	mu    sync.Mutex
	state leaseState
	cause error // why ctx ended early
}

type leaseState int

const (
	held leaseState = iota
	lost
	unlocking // an Unlock is under way
	doubtful  // an Unlock failed; another may find out
	returned
)

// A home is where a lease came from and goes back to.
type home interface {
	// giveBack ends a lease that is held. doubt says that an earlier attempt may
	// have given it back.
	giveBack(ctx context.Context, s *Lease, doubt bool) error
}

// newLease is called with what guards the term, so that losing the term finds it.
func (l *Locker) newLease(name string, fence int64, t *term, h home, cancel context.CancelCauseFunc) *Lease {
	s := &Lease{name: name, fence: fence, term: t, home: h, cancel: cancel}
	if d := l.opts.MaxHold; d > 0 {
		s.timer = time.AfterFunc(d, func() {
			if s.interrupt(ErrMaxHold) {
				l.stats.maxHeld.Add(1)
				t.stop()
			}
		})
	}
	return s
}

// Fence returns a number that is greater than that of every holder of this lock
// before. Send it with each write that the lock protects, and have the resource
// refuse smaller ones (FenceGuard): this alone stops a holder that does not know
// yet that it lost the lease. It is below 2^53. Readers of an RWLock and holders of
// a Semaphore have one too; it orders them, no more.
func (s *Lease) Fence() int64 { return s.fence }

// Valid reports whether the lease is held and, as far as this process can tell,
// will be for margin longer even if no renewal succeeds. It does no I/O.
func (s *Lease) Valid(margin time.Duration) bool {
	s.mu.Lock()
	ok := s.state == held && s.cause == nil
	s.mu.Unlock()
	return ok && s.term.left(time.Now()) > margin
}

// Deadline returns until when the lease is valid if no renewal succeeds from now
// on: on this process's monotonic clock, counted from before the request was sent,
// less 1 % of the TTL and 2 ms. The lease's context ends a little earlier.
func (s *Lease) Deadline() time.Time { return s.term.until() }

// Unlock gives the lease back: to the next goroutine that waits in this process,
// or to Redis, in one round trip. It ends the lease's context. ctx's end does not
// keep it from telling Redis, for which it takes up to six seconds, and a call
// in flight.
//
// nil means that the lease was held until now. ErrLost: it had ended before.
// ErrUnknown: it has been given back, or had ended, or the reply was lost each time.
// ErrUnavailable: Redis was not reached. After the last two nobody renews the lease, so
// that it ends within a TTL; until then the Locker goes on trying to give it back,
// unless it is closed; and Unlock may be called again, to learn more. Otherwise a second
// call is ErrNotHeld, or ErrLost again.
func (s *Lease) Unlock(ctx context.Context) error {
	s.mu.Lock()
	state := s.state
	if state == held || state == doubtful {
		s.state = unlocking
	}
	s.mu.Unlock()
	var err error
	switch state {
	case lost:
		err = ErrLost
	case unlocking, returned:
		err = ErrNotHeld
	default:
		if s.timer != nil {
			s.timer.Stop()
		}
		err = s.home.giveBack(ctx, s, state == doubtful)
		s.cancel(nil)
		s.mu.Lock()
		switch {
		case err == nil:
			s.state = returned
		case errors.Is(err, ErrLost):
			s.state = lost
		default:
			s.state = doubtful
		}
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("lock: unlock %.200q: %w", s.name, err)
	}
	return nil
}

// interrupt ends the context of a lease that is held, and reports whether it was.
func (s *Lease) interrupt(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != held || s.cause != nil {
		return false
	}
	s.cause = cause
	s.cancel(cause)
	return true
}

// lose ends a lease whose term is lost, and reports whether it was held.
func (s *Lease) lose(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != held {
		return false
	}
	s.state = lost
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.cause == nil {
		s.cause = cause
		s.cancel(cause)
	}
	return true
}

// do is Locker.Do with a lease.
func (s *Lease) do(ctx context.Context, f func(context.Context, *Lease) error) (err error) {
	defer func() { // also when f panics: the lease must not outlive it
		unlock := s.Unlock(ctx)
		s.mu.Lock()
		cause := s.cause
		s.mu.Unlock()
		if errors.Is(unlock, ErrNotHeld) {
			unlock = nil // f did it
		}
		if cause != nil && !errors.Is(unlock, cause) {
			unlock = errors.Join(fmt.Errorf("lock: %.200q: %w", s.name, cause), unlock)
		}
		if unlock != nil {
			err = errors.Join(err, unlock)
		}
	}()
	return f(ctx, s)
}

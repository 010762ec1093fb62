package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A QuorumLease is a hold of a lock on a majority of servers, until Unlock. It is
// renewed in the background, where servers that it began without join it, and has no
// fence.
type QuorumLease struct {
	q      *Quorum
	name   string
	keys   keys
	token  string
	cancel context.CancelCauseFunc
	timer  *time.Timer   // of MaxHold
	over   chan struct{} // closed when nobody renews any more

	mu       sync.Mutex
	deadline time.Time
	cause    error // why it ended early
	ended    bool
}

// Valid reports whether the lease is held and will be for margin longer, as
// Lease.Valid does.
func (s *QuorumLease) Valid(margin time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && time.Until(s.deadline) > margin
}

// Deadline returns until when the lease is valid if no renewal succeeds, as
// Lease.Deadline does.
func (s *QuorumLease) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline
}

// Unlock gives the lease back on every server, whatever ctx's state. nil means that
// it was held until now and a majority knows that it is free; ErrLost, that it had
// ended before; ErrUnavailable, that too few servers answered, and it ends within a
// TTL.
func (s *QuorumLease) Unlock(ctx context.Context) error {
	if s.timer != nil {
		s.timer.Stop()
	}
	cause := s.end(nil)
	if errors.Is(cause, ErrNotHeld) {
		return fmt.Errorf("lock: unlock quorum %.200q: %w", s.name, cause)
	}
	released, failed := s.everywhere(ctx)
	switch {
	case errors.Is(cause, ErrMaxHold) && released >= s.q.majority():
		return nil // it had been told to end, and was still held
	case cause != nil:
		return fmt.Errorf("lock: unlock quorum %.200q: %w", s.name, cause)
	case released >= s.q.majority():
		return nil
	case failed == nil:
		return fmt.Errorf("lock: unlock quorum %.200q: %w", s.name, ErrLost)
	}
	return fmt.Errorf("lock: unlock quorum %.200q: %w: %w", s.name, ErrUnavailable, failed)
}

// everywhere releases on all nodes at once, and tells how many said that it was held,
// and what the others' errors were.
func (s *QuorumLease) everywhere(ctx context.Context) (released int, failed error) {
	errs := make([]error, len(s.q.nodes))
	var wg sync.WaitGroup
	for i, n := range s.q.nodes {
		wg.Go(func() { errs[i] = s.q.release(ctx, n, s.keys, s.token) })
	}
	wg.Wait()
	for _, err := range errs {
		switch {
		case err == nil:
			released++
		case !errors.Is(err, ErrLost):
			failed = errors.Join(failed, err)
		}
	}
	return released, failed
}

// end ends the renewals and the context, and returns why the lease had ended
// before: ErrNotHeld if it was given back.
func (s *QuorumLease) end(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		before := s.cause
		s.cause = ErrNotHeld
		return before
	}
	s.ended, s.cause = true, cause
	if cause == nil {
		s.cause = ErrNotHeld
	}
	close(s.over)
	s.cancel(cause)
	return nil
}

func (s *QuorumLease) lose(cause error) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if !ended {
		_ = s.end(cause)
	}
}

// renew extends the lease on all nodes, a third of a TTL apart, until it is over.
func (s *QuorumLease) renew(ctx context.Context) {
	ttl := s.q.opts.TTL
	next := ttl / 3
	for {
		timer := time.NewTimer(max(0, min(next, time.Until(s.Deadline().Add(-notice(ttl))))))
		select {
		case <-s.over:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			s.lose(fmt.Errorf("%w: %w", ErrLost, ErrClosed))
			return
		case <-timer.C:
		}
		if time.Until(s.Deadline()) <= notice(ttl) {
			s.lose(ErrLost)
			return
		}
		sent := time.Now()
		yes, without := s.extend(ctx)
		switch {
		case yes >= s.q.majority():
			s.mu.Lock()
			s.deadline = sent.Add(ttl - drift(ttl))
			s.mu.Unlock()
			s.join(without)
			next = ttl/3 - time.Since(sent)
		case len(without) > len(s.q.nodes)-s.q.majority():
			s.lose(ErrLost)
			return
		default:
			next = ttl / 20
		}
	}
}

// join takes the lock on nodes that are without it, beside the majority that has it: they
// were down when it was taken, or another who asked was there first. They count from the
// next renewal on. Without it a lease that began on two of three ends with one of these.
func (s *QuorumLease) join(nodes []*Locker) {
	for _, n := range nodes {
		s.q.calls.Go(func(ctx context.Context) {
			within, cancel := context.WithTimeout(ctx, s.q.opts.TTL/20)
			defer cancel()
			got, err := n.acquire(within, s.keys, s.token, false)
			select {
			case <-s.over: // the release may have been there before
				if got.granted || err != nil {
					_ = s.q.release(ctx, n, s.keys, s.token) // or its TTL ends it
				}
			default:
			}
		})
	}
}

// extend renews on all nodes at once. It counts those that did within a twentieth of the
// TTL, and returns those that are without the lock.
func (s *QuorumLease) extend(ctx context.Context) (yes int, without []*Locker) {
	type answer struct {
		from *Locker
		nodeAnswer
	}
	answers := make(chan answer, len(s.q.nodes))
	for _, n := range s.q.nodes {
		s.q.calls.Go(func(ctx context.Context) {
			within, cancel := context.WithTimeout(ctx, s.q.opts.TTL/20)
			defer cancel()
			reply, err := renewScript.Run(within, n.rdb, n.renewCall(s.keys, s.token))
			answers <- answer{n, nodeAnswer{reply == int64(1), err}}
		})
	}
	timer := time.NewTimer(s.q.opts.TTL / 20)
	defer timer.Stop()
	for range s.q.nodes {
		select {
		case a := <-answers:
			if a.yes {
				yes++
			} else if a.err == nil {
				without = append(without, a.from)
			}
		case <-timer.C:
			return yes, without
		case <-s.over:
			return yes, without
		case <-ctx.Done():
			return yes, without
		}
	}
	return yes, without
}

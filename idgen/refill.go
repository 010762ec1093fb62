package idgen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// claimPatience ends a claim that hangs; it is tried again.
	claimPatience = 10 * time.Second

	minBackoff = 10 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// wait returns an id as soon as there is one.
func (s *Segment) wait(ctx context.Context) (int64, error) {
	for waited := false; ; waited = true {
		id, arrived, err := s.take()
		if arrived == nil {
			return id, err
		}
		if !waited {
			s.waits.Add(1)
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return 0, s.gaveUp(context.Cause(ctx))
		}
	}
}

// take returns an id, or the channel to wait on if none is at hand. Id 0 is none.
func (s *Segment) take() (id int64, arrived <-chan struct{}, err error) {
	for {
		b := s.cur.Load()
		if i := b.next.Add(1) - 1; i < b.count {
			if i >= b.trigger {
				s.approach(b)
			}
			return b.first + i*b.stride, nil, nil
		}
		if arrived, err := s.advance(b); arrived != nil || err != nil {
			return 0, arrived, err
		}
	}
}

// approach asks for the next range, once a buffer.
func (s *Segment) approach(b *buffer) {
	if b.asked.Load() || !b.asked.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
}

// advance puts the next segment in the place of b, which is used up. If there is
// none yet it returns the channel to wait on.
func (s *Segment) advance(b *buffer) (arrived <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, fmt.Errorf("idgen: biz %q: %w", s.biz, ErrClosed)
	case s.cur.Load() != b: // another goroutine was here
		return nil, nil
	case len(s.ahead) > 0:
		s.activate(b, s.ahead[0])
		s.ahead = slices.Delete(s.ahead, 0, 1)
		return nil, nil
	case s.final != nil:
		return nil, s.final
	}
	s.fill()
	return s.arrived, nil
}

// activate puts b in the place of old. It is under s.mu.
func (s *Segment) activate(old, b *buffer) {
	b.since = time.Now()
	if old.count > 0 {
		lasted := b.since.Sub(old.since)
		s.rate = perSecond(old.count, lasted)
		// The segment that is coming had the step of before: what counts is how long
		// this many ids lasted, not how many the next claim asks for by now.
		switch {
		case lasted < s.opts.TargetDuration:
			s.step = min(2*s.step, s.opts.MaxStep)
		case lasted >= 2*s.opts.TargetDuration:
			s.step = max(s.step/2, s.opts.MinStep)
		}
	}
	rest := max(float64(b.count)/4, s.rate*s.slowest.max().Seconds()*2)
	b.trigger = b.count - int64(min(rest, float64(b.count)))
	s.cur.Store(b)
}

// fill sees to it that a refill is under way if one is needed. It is under s.mu.
func (s *Segment) fill() {
	if s.filling || s.closed || s.final != nil || len(s.ahead) >= s.opts.Segments-1 {
		return
	}
	s.filling = s.group.Go(s.refill)
}

// refill claims ranges until enough are ahead.
func (s *Segment) refill(ctx context.Context) {
	backoff := minBackoff
	for {
		s.mu.Lock()
		if s.closed || s.final != nil || len(s.ahead) >= s.opts.Segments-1 {
			s.filling = false
			s.mu.Unlock()
			return
		}
		step := s.step
		s.mu.Unlock()

		err := s.claim(ctx, step)
		if err == nil {
			backoff = minBackoff
			continue
		}
		s.opts.Logger.Warn("idgen: a claim failed", "biz", s.biz, "step", step, "error", err)
		// Processes that lost the store together must not come back together.
		t := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-t.C:
		case <-s.closing:
			t.Stop()
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// claim claims one range and puts it in line.
func (s *Segment) claim(ctx context.Context, step int64) error {
	ctx, cancel := context.WithTimeout(ctx, claimPatience)
	defer cancel()
	began := time.Now()
	r, err := s.store.Claim(ctx, s.biz, step)
	took := time.Since(began)
	if err == nil {
		r, err = r.checked()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		class := r.First % r.Stride
		if seen := s.seen[class]; r.First <= seen {
			err = fmt.Errorf("%w: it handed out %d after %d", ErrWentBack, r.First, seen)
		}
		s.seen[class] = max(s.seen[class], r.last())
	}
	s.failure = err
	if err != nil {
		s.stats.Failures++
		if errors.Is(err, ErrInvalid) || errors.Is(err, ErrExhausted) {
			s.final = fmt.Errorf("idgen: biz %q: %w", s.biz, err)
			s.wake()
		}
		return err
	}
	s.stats.Claims++
	s.slowest.add(took)
	if !s.closed {
		s.ahead = append(s.ahead, &buffer{first: r.First, stride: r.Stride, count: r.Count})
		s.wake()
	}
	return nil
}

// wake lets all waiters look again. It is under s.mu.
func (s *Segment) wake() {
	close(s.arrived)
	s.arrived = make(chan struct{})
}

// gaveUp is the error of a caller whose ctx ended before there was an id.
func (s *Segment) gaveUp(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failure == nil:
		return fmt.Errorf("idgen: biz %q: %w: %w", s.biz, ErrUnavailable, cause)
	case errors.Is(s.failure, ErrUnknown):
		// What is unknown is whether the claim left a hole. That this caller got no id
		// is certain, and ErrUnknown must not be found in its error.
		return fmt.Errorf("idgen: biz %q: %w: %w; last claim: %s", s.biz, ErrUnavailable, cause, text(s.failure))
	}
	return fmt.Errorf("idgen: biz %q: %w: %w; last claim: %w", s.biz, ErrUnavailable, cause, s.failure)
}

func text(err error) string { return err.Error() }

func perSecond(n int64, d time.Duration) float64 {
	return float64(n) / max(d.Seconds(), 1e-6)
}

// A window is the latest claim times. Their maximum stands for the 99th percentile.
type window struct {
	times [64]time.Duration
	n     int
}

func (w *window) add(d time.Duration) {
	w.times[w.n%len(w.times)] = d
	w.n++
}

func (w *window) max() time.Duration { return slices.Max(w.times[:]) }

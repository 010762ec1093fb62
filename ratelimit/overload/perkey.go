package overload

import (
	"context"
	"fmt"
	"sync"
)

// A PerKey bounds how many callers hold a key at a time: a semaphore per key.
// Methods may be called from many goroutines.
type PerKey struct {
	n  int
	mu sync.Mutex
	m  map[string]*holders
}

// holders are the callers of one key: those in, and a queue of those who wait.
type holders struct {
	in    int
	queue []chan struct{} // closed when it is the waiter's turn
}

// NewPerKey returns a PerKey that lets n callers hold each key.
func NewPerKey(n int) (*PerKey, error) {
	if n < 1 {
		return nil, fmt.Errorf("%w: n %d, want at least 1", ErrInvalid, n)
	}
	return &PerKey{n: n, m: make(map[string]*holders)}, nil
}

// Acquire waits for a place of the key, first come first served, or until ctx ends.
// The caller calls done when its work ends, however it ends; again it does nothing. Waiting
// callers are bounded by their ctx alone: give it a deadline.
func (p *PerKey) Acquire(ctx context.Context, key string) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("overload: key %.200q: %w", key, err)
	}
	p.mu.Lock()
	h := p.m[key]
	if h == nil {
		h = &holders{}
		p.m[key] = h
	}
	if h.in < p.n {
		h.in++
		p.mu.Unlock()
		return p.done(key, h), nil
	}
	turn := make(chan struct{})
	h.queue = append(h.queue, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return p.done(key, h), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, c := range h.queue {
		if c == turn {
			h.queue = append(h.queue[:i], h.queue[i+1:]...)
			p.mu.Unlock()
			return nil, fmt.Errorf("overload: key %.200q: %w", key, ctx.Err())
		}
	}
	p.release(key, h) // the turn came in this moment: pass it on
	p.mu.Unlock()
	return nil, fmt.Errorf("overload: key %.200q: %w", key, ctx.Err())
}

func (p *PerKey) done(key string, h *holders) func() {
	ended := false
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !ended {
			ended = true
			p.release(key, h)
		}
	}
}

// release hands the place to the next in the queue. It is called with mu held.
func (p *PerKey) release(key string, h *holders) {
	if len(h.queue) > 0 {
		close(h.queue[0])
		h.queue = h.queue[1:]
		return
	}
	if h.in--; h.in == 0 {
		delete(p.m, key)
	}
}

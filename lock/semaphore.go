package lock

import (
	"context"
	"fmt"
)

// maxSize is how many permits a semaphore may have.
const maxSize = 1 << 20

// A Semaphore is held by up to n at a time, over all processes, each with a permit
// that is renewed, and ends, by itself.
type Semaphore struct {
	l    *Locker
	name string
	n    int
}

// Semaphore returns the semaphore of that name with n permits, 1 to 2^20; the same
// n everywhere: while any permit is out, another n is ErrSize. It makes no call.
func (l *Locker) Semaphore(name string, n int) *Semaphore { return &Semaphore{l, name, n} }

// Lock waits for a permit. It returns as Locker.Lock does; the lease's Fence orders
// the permits and protects nothing. One round trip if a permit is free.
func (s *Semaphore) Lock(ctx context.Context) (context.Context, *Lease, error) {
	return s.lock(ctx, false)
}

// TryLock is Lock without waiting: ErrNotAcquired if no permit is free.
func (s *Semaphore) TryLock(ctx context.Context) (context.Context, *Lease, error) {
	return s.lock(ctx, true)
}

func (s *Semaphore) lock(ctx context.Context, try bool) (context.Context, *Lease, error) {
	if s.n < 1 || s.n > maxSize {
		return nil, nil, fmt.Errorf("%w: semaphore %q of %d permits, want 1 to %d", ErrInvalid, s.name, s.n, maxSize)
	}
	return s.l.join(ctx, "sem", s.name, s.n, &waiter{try: try})
}

package lock

import "context"

// An RWLock is held by one writer or by any number of readers, each with a lease of
// its own that is renewed, and ends, by itself. A writer that waits keeps new readers
// out. It has nothing to do with the Lock of the same name.
type RWLock struct {
	l    *Locker
	name string
}

// RW returns the read-write lock of that name. It makes no call.
func (l *Locker) RW(name string) *RWLock { return &RWLock{l, name} }

// Lock waits until it holds the lock for writing. It returns as Locker.Lock does.
// One round trip if the lock is free; goroutines of a process queue for it, readers
// and writers, in order.
func (rw *RWLock) Lock(ctx context.Context) (context.Context, *Lease, error) {
	return rw.l.join(ctx, "rw", rw.name, 0, &waiter{writes: true})
}

// TryLock is Lock without waiting: ErrNotAcquired if anybody holds the lock.
func (rw *RWLock) TryLock(ctx context.Context) (context.Context, *Lease, error) {
	return rw.l.join(ctx, "rw", rw.name, 0, &waiter{writes: true, try: true})
}

// RLock waits until it holds the lock for reading.
func (rw *RWLock) RLock(ctx context.Context) (context.Context, *Lease, error) {
	return rw.l.join(ctx, "rw", rw.name, 0, &waiter{})
}

// TryRLock is RLock without waiting: ErrNotAcquired if anybody holds the lock for
// writing, or waits to.
func (rw *RWLock) TryRLock(ctx context.Context) (context.Context, *Lease, error) {
	return rw.l.join(ctx, "rw", rw.name, 0, &waiter{try: true})
}

package stock

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxSleep bounds how long Run goes without asking for holds that came due.
const maxSleep = time.Second

// Run does what should happen without a caller, until ctx ends: it releases holds
// when they are due, tells Options.OnEvent of sell-outs and returns, and tries
// cancels again that found Redis out of memory. One Run in every process is right;
// they do not disturb each other. It keeps one connection of the pool.
//
// Without any Run, holds are released by the next order, and what was sold out
// is noticed to have come back after Options.SoldOutFor.
//
// Run returns nil once ctx has ended, at most about a second later.
func (a *Activity) Run(ctx context.Context) error {
	if a.buckets != nil {
		a.runBuckets(ctx)
		return nil
	}
	var wg sync.WaitGroup
	if a.opts.OnEvent != nil || a.opts.SoldOutFor > 0 {
		// Before the first sweep: what that releases is told of.
		from, _ := a.lastEvent(ctx)
		wg.Go(func() { a.runEvents(ctx, from) })
	}
	a.runSweep(ctx)
	wg.Wait()
	return nil
}

func (a *Activity) runSweep(ctx context.Context) {
	longest := min(maxSleep, max(a.opts.Hold/4, 20*time.Millisecond))
	for ctx.Err() == nil {
		a.retryCancels(ctx)
		now, due, err := a.sweep(ctx)
		if err != nil {
			a.troubled(ctx, "release holds", err)
			continue
		}
		wait := longest
		if !due.IsZero() {
			wait = min(wait, due.Sub(now))
		}
		if wait > 0 {
			sleep(ctx, wait)
		}
	}
}

// troubled reports that background work failed, and waits before it goes on.
func (a *Activity) troubled(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	a.stats.failures.Add(1)
	a.opts.Logger.Warn("stock: background work failed, trying again", "activity", a.name, "work", what, "error", err)
	sleep(ctx, maxSleep/2)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// maxUndone bounds the cancels that wait for memory. More are refused as they
// are: the caller was told that nothing happened.
const maxUndone = 10_000

// undone are the cancels that Redis had no memory for.
type undone struct {
	mu   sync.Mutex
	refs map[Ref]string // → reason
}

func (u *undone) add(ref Ref, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refs == nil {
		u.refs = make(map[Ref]string)
	}
	if len(u.refs) < maxUndone {
		u.refs[ref] = reason
	}
}

// next returns any one of the cancels.
func (u *undone) next() (ref Ref, reason string, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for ref, reason := range u.refs {
		return ref, reason, true
	}
	return Ref{}, "", false
}

func (u *undone) done(ref Ref) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.refs, ref)
}

func (u *undone) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.refs)
}

// retryCancels works on the undone cancels until they are done or one fails again.
func (a *Activity) retryCancels(ctx context.Context) {
	for ctx.Err() == nil {
		ref, reason, ok := a.undone.next()
		if !ok {
			return
		}
		_, err := a.Cancel(ctx, ref, reason)
		if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrClosed) {
			return
		}
		a.undone.done(ref)
	}
}

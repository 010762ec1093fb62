// Package lifetime owns the goroutines that a Close ends.
//
// It is the only place of the library where a context without a caller begins,
// so that "who ends this goroutine?" has one answer everywhere.
package lifetime

import (
	"context"
	"sync"
	"time"
)

// A Group is a set of goroutines that end with it. The zero value is not
// usable; call New.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	n      int
	idle   chan struct{} // closed when the group is closed and n is 0
}

// New returns an open group.
func New() *Group {
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{ctx: ctx, cancel: cancel, idle: make(chan struct{})}
}

// Go runs f in a goroutine of the group, with the group's context. It reports
// false, and runs nothing, if the group is closed.
func (g *Group) Go(f func(ctx context.Context)) bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	g.n++
	g.mu.Unlock()
	go func() {
		defer g.done()
		f(g.ctx)
	}()
	return true
}

func (g *Group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.closed && g.n == 0 {
		close(g.idle)
	}
}

// Drain lets no new goroutine start and waits for those that run to end by
// themselves. When ctx ends first, their context is cancelled, they are still
// waited for, and ctx's error is returned: nothing is left running either way.
func (g *Group) Drain(ctx context.Context) error {
	g.close()
	select {
	case <-g.idle:
		g.cancel()
		return nil
	case <-ctx.Done():
		g.cancel()
		<-g.idle
		return ctx.Err()
	}
}

// Stop cancels the group's context and waits for its goroutines to end.
func (g *Group) Stop() {
	g.close()
	g.cancel()
	<-g.idle
}

func (g *Group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	if g.n == 0 {
		close(g.idle)
	}
}

// Within returns a context for clean-up that must outlive its caller: it keeps
// ctx's values, ignores its cancellation, and ends after d.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}

// ForNew returns a context for the few calls that a constructor makes to its
// server: constructors take no context, so d bounds them.
func ForNew(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

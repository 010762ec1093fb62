package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

// errLeft is a caller that left before the answer came.
var errLeft = fmt.Errorf("%w: the caller left", ErrUnknown)

// bounded runs f, which asks Redis, and waits for it until left is closed, and no longer
// than Options.Timeout: a client's own timeouts are often longer than a request may
// take. After errLate or errLeft f goes on, at most until what it has sent is
// answered or given up by the client.
func (l *Limiter) bounded(left <-chan struct{}, f func(ctx context.Context)) error {
	done := make(chan struct{})
	if !l.life.Go(func(ctx context.Context) {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, l.opts.Timeout)
		defer cancel()
		f(ctx)
	}) {
		return ErrClosed
	}
	late := time.NewTimer(l.opts.Timeout + l.opts.Timeout/8)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-left:
		return errLeft
	case <-late.C:
		return errLate
	}
}

// alone runs a script in a round trip of its own, and then hands its outcome to then,
// also if the caller has left by that time.
func (l *Limiter) alone(ctx context.Context, s *script.Script, c script.Call, then func(reply any, err error)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var ran error
	err := l.bounded(ctx.Done(), func(ctx context.Context) {
		var reply any
		reply, ran = s.Run(ctx, l.rdb, c)
		then(reply, ran)
	})
	switch {
	case err == nil:
		return ran
	case errors.Is(err, errLeft):
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return err
}

package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// errOver is Redis's answer to a release that an earlier attempt of may have run: the
// token holds nothing.
var errOver = fmt.Errorf("%w: it was given back, or lost before", ErrUnknown)

// persist goes on with a release that got no answer. It ends with the first answer, at
// until, when there is nothing left to give back, or with Close. Whoever waits for the
// lock would else wait for the TTL, although nobody holds it, when Redis was away for a
// second.
func (l *Locker) persist(until time.Time, release func(context.Context) error) {
	l.group.Go(func(ctx context.Context) {
		ctx, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		for {
			timer := time.NewTimer(min(l.opts.TTL/20, time.Second))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			err := release(ctx)
			if isAnswer(err) {
				return
			}
			l.troubled("give back", err)
		}
	})
}

// isAnswer reports whether a release need not be tried again.
func isAnswer(err error) bool {
	return err == nil || errors.Is(err, ErrLost) || errors.Is(err, errOver) || errors.Is(err, redis.ErrClosed)
}

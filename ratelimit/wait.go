package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxAhead is how far ahead turns are given.
const maxAhead = 24 * time.Hour

// A Reservation is a turn that was given: its units are taken, and its owner may act
// when Delay is over.
type Reservation struct {
	l   *Limiter
	key string
	a   answer
	at  time.Time // of the answer
}

// Reserve takes n units of key, in advance if they are not there now, and tells when
// the caller may act. Turns are given in the order of the calls, so that many small
// calls cannot keep a large one waiting. It needs limits that are GCRA, else it is
// ErrInvalid. See AllowN for n. One shared round trip.
func (l *Limiter) Reserve(ctx context.Context, key string, n int64) (*Reservation, error) {
	if !l.queue {
		return nil, fmt.Errorf("%w: Reserve needs limits that are all GCRA: windows cannot be taken in advance", ErrInvalid)
	}
	r := &Reservation{l: l, key: key}
	if err := l.take(ctx, key, run{n: n, k: 1, wait: maxAhead.Microseconds()}, &r.a); err != nil {
		return nil, err
	}
	r.at = time.Now()
	return r, nil
}

// OK reports whether a turn was given. None is more than 24 hours ahead, and none is
// given while Redis is down under FailClosed.
func (r *Reservation) OK() bool { return r.a.granted > 0 }

// Delay returns how long the owner has to wait from now, 0 if no longer; if no turn
// was given, after how long asking again makes sense.
func (r *Reservation) Delay() time.Duration {
	return max(0, time.Until(r.at.Add(time.Duration(r.a.us)*time.Microsecond)))
}

// Cancel gives the units back, for a turn that will not be used. They come back only
// if nobody took units of the key since: the turns that were given later stay where
// they are. Other processes that remember a denial may go on denying until its
// RetryAfter. One round trip; after an error nothing, or as much, came back. Call it
// once, and before Close.
func (r *Reservation) Cancel(ctx context.Context) error {
	l, a := r.l, r.a
	if a.granted == 0 || a.n == 0 {
		return nil
	}
	if a.source == FromLocal || a.source == FromLocalShare {
		l.local.giveBack(r.key, a.n, a.takes, a.found)
		return nil
	}
	if a.state == "" {
		return nil
	}
	name := l.key(r.key)
	err := l.alone(ctx, givebackScript, l.giveBackCall(name, a.state, a.n, a.found), func(reply any, err error) {
		if reply == int64(1) || errors.Is(err, ErrUnknown) {
			now := l.clock()
			l.notes.make(r.key, name, now).forget(now)
		}
	})
	if err != nil {
		return fmt.Errorf("ratelimit: cancel for key %.200q: %w", r.key, err)
	}
	return nil
}

// Wait is WaitN for one unit.
func (l *Limiter) Wait(ctx context.Context, key string) error { return l.WaitN(ctx, key, 1) }

// WaitN blocks until n units of key are taken, and it is the caller's turn. A turn
// that would come after ctx's deadline is not taken: the error, context's
// DeadlineExceeded, comes at once. A caller whose ctx ends while it waits gives its
// turn back as Reservation.Cancel does, for which it waits Options.Timeout at most.
//
// Where all limits are GCRA turns are given in the order of the calls. With others
// the caller asks again whenever units may be there, and may be overtaken.
func (l *Limiter) WaitN(ctx context.Context, key string, n int64) error {
	for {
		q := run{n: n, k: 1}
		if l.queue && n > 0 {
			q.wait = maxAhead.Microseconds()
			if d, ok := ctx.Deadline(); ok {
				q.wait = max(1, min(q.wait, time.Until(d).Microseconds()))
			}
		}
		r := Reservation{l: l, key: key}
		err := l.take(ctx, key, q, &r.a)
		if err != nil || n == 0 {
			return err
		}
		r.at = time.Now()
		d := r.Delay()
		if d == 0 && r.OK() {
			return nil
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
			err = fmt.Errorf("ratelimit: key %.200q: %w: the turn is in %v", key, context.DeadlineExceeded, d)
		} else {
			err = sleep(ctx, d)
		}
		switch {
		case err != nil && r.OK():
			_ = r.Cancel(context.WithoutCancel(ctx)) // what fails is lost, never minted
			return err
		case err != nil || r.OK():
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ratelimit: waiting: %w", ctx.Err())
	}
}

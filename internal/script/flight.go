package script

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// A flight is what is known about one call over all its attempts.
type flight struct {
	source bool      // the server does not know the script: send it whole
	mayRun bool      // an attempt may have run
	since  time.Time // the first failure, or the first that may have run
	cause  error     // the last failure

	reply any
	err   error
}

// A next is what a flight needs after an attempt.
type next int

const (
	settled next = iota // reply and err are final
	atOnce              // another attempt
	later               // another attempt, after a pause
)

// settle takes in how an attempt ended.
func (f *flight) settle(ctx context.Context, retry Retry, a *attempt) next {
	cause := a.outcome()
	verdict := answered
	if cause != nil {
		verdict = judge(cause, a.payload.writes)
	}
	switch verdict {
	case answered:
		if a.Err() == nil { // else the answer is nil: redis.Nil never escapes
			f.reply = a.Val()
		}
		return settled
	case refused:
		f.err = parseRefused(cause)
		return settled
	case noScript:
		if !f.source {
			f.source = true
			return atOnce
		}
		verdict = broken // EVAL cannot lack its script
	}

	f.cause = cause
	now := time.Now()
	if !f.mayRun && (verdict == unknown || verdict == broken) {
		f.mayRun, f.since = true, now
	}
	if f.since.IsZero() {
		f.since = now
	}
	limit := healFor
	if f.mayRun {
		limit = resolveFor
	}
	if verdict == broken || verdict == hopeless || f.mayRun && retry == Bounded ||
		now.Sub(f.since) >= limit || ended(ctx) != nil {
		f.err = f.failure(ctx, retry, verdict)
		return settled
	}
	return later
}

// failure is the error of a flight that makes no further attempt, after a last
// one that ended in v.
func (f *flight) failure(ctx context.Context, retry Retry, v verdict) error {
	cause, end := f.cause, ended(ctx)
	if cause == nil { // nothing was tried
		cause = end
	} else if end != nil {
		cause = fmt.Errorf("%w (%w)", cause, end)
	}
	if !f.mayRun || retry == Read {
		advice := "try again"
		if v == hopeless || v == broken {
			advice = "trying again does not help"
		}
		if errors.Is(cause, redis.ErrClosed) {
			advice = "the client is closed"
		}
		return &failure{ErrUnavailable, advice, cause}
	}
	advice := "repeat the call with the same arguments"
	switch {
	case v == broken:
		advice = "the script failed on the way"
	case retry == Bounded:
		advice = "do not repeat the call"
	}
	return &failure{ErrUnknown, advice, cause}
}

// A failure is why a call has no answer.
type failure struct {
	kind   error // ErrUnavailable or ErrUnknown
	advice string
	cause  error
}

func (f *failure) Error() string   { return fmt.Sprintf("%v; %s: %v", f.kind, f.advice, f.cause) }
func (f *failure) Unwrap() []error { return []error{f.kind, f.cause} }

// NotDone makes [ErrUnavailable] of [ErrUnknown], for a call whose caller did not get what
// he wanted whether or not the script ran.
func NotDone(err error) error {
	if f := new(failure); errors.As(err, &f) && errors.Is(f.kind, ErrUnknown) {
		return &failure{ErrUnavailable, "try again", f.cause}
	}
	return err
}

// ended returns ctx's error, also in the moment between the deadline, which a
// connection may notice first, and the timer that ends ctx.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}

// pause waits before attempt n+1, longer with each n and never twice the same,
// or until ctx ends.
func pause(ctx context.Context, n int) {
	d := maxPause
	if n < 8 { // no overflow of the shift
		d = min(d, minPause<<(n-1))
	}
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

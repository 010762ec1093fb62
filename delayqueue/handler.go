package delayqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Handler does a job. Returning nil acknowledges it; Snooze(d) has it run again
// after d; Discard(err) sends it to the dead letters at once; any other error, and a
// panic, counts as a failed attempt and is retried after RunOptions.Backoff.
//
// Delivery is at least once: after a crash, a pause or a partition longer than the
// lease, a job runs again, perhaps while the first handler still does. The context ends
// with cause ErrLeaseLost when that may happen, ErrMaxRun after RunOptions.MaxRun, and
// ErrDraining when Run ends before the handler: a handler has to obey it, as Run
// cannot return before its handlers. Effects that must happen once use Delivery.Once or
// Delivery.OnceSQL.
//
// Middleware is a function that takes a Handler and returns one.
type Handler func(ctx context.Context, d *Delivery) error

// A Delivery is one run of a job. It is read by the handler and belongs to it until it
// returns.
type Delivery struct {
	ID      string
	Body    []byte
	Due     time.Time // when the job was due, on Redis's clock
	Attempt int       // 1, and 1 more for each time that its handler failed
	Crashes int       // how many workers it outlived

	q     *Queue
	shard *shard
	token string
	add   string // token of the Add, 8 bytes; the same over retries and crashes

	// The rest belongs to the runner, under its lock.
	started time.Time
	renew   time.Time // when the lease is to be renewed
	valid   time.Time // until when nobody else can have the job
	stop    context.CancelCauseFunc
	ended   error // the cause with which stop was called
	telling bool  // Redis is being told how it ended
}

type snoozed struct{ delay time.Duration }

func (s snoozed) Error() string { return fmt.Sprintf("delayqueue: snoozed for %v", s.delay) }

type discarded struct{ err error }

func (d discarded) Error() string { return fmt.Sprintf("delayqueue: discarded: %v", d.Unwrap()) }
func (d discarded) Unwrap() error { return d.err }

// Snooze is what a handler returns to run again after d, counted by Redis's clock,
// without a failure being counted. A negative d is 0, more than 10 years are 10 years.
func Snooze(d time.Duration) error { return snoozed{min(max(d, 0), maxDelay)} }

// Discard is what a handler returns when trying again cannot help: the job goes to the
// dead letters with err, which may not be nil.
func Discard(err error) error {
	if err == nil {
		err = errors.New("discarded without a reason")
	}
	return discarded{err}
}

// JSON makes a Handler of a function that takes the body as a T. A body that is no T is
// discarded: it will not become one.
func JSON[T any](f func(ctx context.Context, v T, d *Delivery) error) Handler {
	return func(ctx context.Context, d *Delivery) error {
		var v T
		if err := json.Unmarshal(d.Body, &v); err != nil {
			return Discard(fmt.Errorf("delayqueue: job %q: body: %w", d.ID, err))
		}
		return f(ctx, v, d)
	}
}

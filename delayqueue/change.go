package delayqueue

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed change.lua
var changeLua string

var changeScript = script.New(script.State, readLua, changeLua)

// Cancel removes a job that waits or is dead. Cancelling twice is no error;
// ErrActive, ErrFinished and ErrNotFound say what came first. The id stays taken for
// Options.ReplayWindow, so that an Add which is still on its way does not bring the job
// back. One round trip, O(log n).
func (q *Queue) Cancel(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return q.wrapQueue(err)
	}
	err := q.change(ctx, "X", id, 0)
	if err == nil {
		q.stats.cancelled.Add(1)
	}
	return q.wrap(id, err)
}

// Reschedule makes a waiting job, be it for its first run or a retry, due at another
// time, taken literally; a time in the past is due at once. ErrActive, ErrFinished,
// ErrCancelled, ErrDead and ErrNotFound say that it waits no more. One round trip,
// O(log n).
func (q *Queue) Reschedule(ctx context.Context, id string, at time.Time) error {
	if err := checkID(id); err != nil {
		return q.wrapQueue(err)
	}
	if err := checkAt("at", at); err != nil {
		return q.wrap(id, err)
	}
	err := q.change(ctx, "T", id, millis(at))
	if err == nil {
		q.stats.rescheduled.Add(1)
	}
	return q.wrap(id, err)
}

func (q *Queue) change(ctx context.Context, verb, id string, ms int64) error {
	reply, err := q.run(ctx, changeScript, q.shardOf(id).keys, 1,
		nil, verb, id, strconv.FormatInt(ms, 10), q.opts.ReplayWindow.Milliseconds())
	if err != nil {
		return err
	}
	switch reply {
	case int64(0):
		return nil
	case int64(1):
		return ErrActive
	case int64(2):
		return ErrFinished
	case int64(3):
		return ErrCancelled
	case int64(4):
		return ErrDead
	case int64(5):
		return ErrNotFound
	case int64(6):
		return fmt.Errorf("%w: the job has started; it may have been moved before: %w", ErrUnknown, ErrActive)
	}
	return badReply("change.lua", reply)
}

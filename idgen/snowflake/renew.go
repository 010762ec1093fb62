package snowflake

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

// pause is how long, on average, a failed renewal is not repeated, and how often a
// Snowflake that has run out of reserved time may ask for more.
const pause = 100 * time.Millisecond

// renewals renews the lease each third of its time until Close.
func (w *Worker) renewals(ctx context.Context) {
	wait := w.opts.TTL / 3
	for {
		t := time.NewTimer(wait)
		select {
		case <-w.close:
			t.Stop()
			return
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-w.early:
			t.Stop()
		}
		err := w.renew(ctx)
		wait = w.opts.TTL / 3
		if err != nil {
			wait = pause/2 + rand.N(pause)
			w.opts.Logger.Warn("snowflake: a renewal failed", "worker", w.ID(), "error", err)
		}
		w.settle(err)
		// Whoever waits has seen the outcome; hurry may ask again only after a pause.
		t = time.NewTimer(pause / 2)
		select {
		case <-w.close:
			t.Stop()
			return
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// renew renews the lease, or takes another one if it is lost.
func (w *Worker) renew(ctx context.Context) error {
	l := w.lease.Load()
	sent := time.Now()
	reply, err := renewScript.Run(ctx, w.rdb, script.Call{Keys: []string{w.key}, Args: []any{
		l.token, l.id, w.opts.TTL.Milliseconds(), w.wall().UnixMicro(), w.wanted(),
	}})
	if refused := new(script.Refused); errors.As(err, &refused) && refused.Code == "LOST" {
		w.opts.Logger.Warn("snowflake: the lease was lost; taking another worker id", "worker", l.id)
		l.until.Store(0)
		if err := w.acquire(ctx); err != nil {
			return fmt.Errorf("after worker %d was lost: %w", l.id, err)
		}
		w.mu.Lock()
		w.counters.Lost++
		w.mu.Unlock()
		return nil
	}
	if err != nil {
		return w.explain(err)
	}
	text, _ := reply.(string)
	ceiling, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("renew.lua answered %v: %w", reply, err)
	}
	l.ceiling.Store(ceiling)
	l.until.Store(w.validity(sent))
	// Only now: without more reserve, a clock that was set forth would end the ids.
	w.readClock()
	return nil
}

// settle notes how a renewal ended and wakes the waiters.
func (w *Worker) settle(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = err
	if err != nil {
		w.counters.Failures++
		return
	}
	w.counters.Renewals++
	w.wake()
}

// hurry asks for a renewal now.
func (w *Worker) hurry() {
	select {
	case w.early <- struct{}{}:
	default:
	}
}

// wake is under w.mu.
func (w *Worker) wake() {
	close(w.change)
	w.change = make(chan struct{})
}

func (w *Worker) changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.change
}

func (w *Worker) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// gaveUp is the error of a caller whose ctx ended before an id could be made.
func (w *Worker) gaveUp(l *lease, why reason, cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case why == early:
		return fmt.Errorf("snowflake: worker %d: %w: %w", l.id, ErrClock, cause)
	case w.failure == nil:
		return fmt.Errorf("snowflake: worker %d: %w: %w", l.id, ErrUnavailable, cause)
	case errors.Is(w.failure, ErrUnknown):
		// What is unknown is the renewal. That this caller got no id is certain.
		return fmt.Errorf("snowflake: worker %d: %w: %w; last renewal: %s", l.id, ErrUnavailable, cause, text(w.failure))
	}
	return fmt.Errorf("snowflake: worker %d: %w: %w; last renewal: %w", l.id, ErrUnavailable, cause, w.failure)
}

func text(err error) string { return err.Error() }

func (w *Worker) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.counters
	l := w.lease.Load()
	st.Worker, st.Waits = int(l.id), w.waits.Load()
	st.Left = max(0, time.Duration(l.until.Load())-time.Since(w.base))
	return st
}

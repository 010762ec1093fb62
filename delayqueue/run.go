package delayqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/spillway-go/spillway/internal/lifetime"
)

// RunOptions of one Run. The zero value of a field is its default.
type RunOptions struct {
	// Concurrency is how many handlers run at a time; 32 if 0, at most 65,536.
	Concurrency int
	// Lease is how long a job stays with a worker that is not heard of; 30 s if 0,
	// 100 ms to 24 hours. It is renewed while the handler runs.
	Lease time.Duration
	// MaxRun is after how long a handler's context ends, with cause ErrMaxRun, and its
	// lease is renewed no more; 1 hour if 0, at least 1 ms, checked every eighth of
	// the shorter of MaxRun and Lease.
	MaxRun time.Duration
	// Drain is how long handlers may go on after Run's ctx ended; then their contexts
	// end, with cause ErrDraining, and jobs whose handlers fail are given back. 10 s
	// if 0, -1 for not at all.
	Drain time.Duration
	// MaxSleep is how long an idle worker goes without asking for due jobs, which
	// bounds what a lost wake-up costs, and how long after its lease the job of a dead
	// worker waits for this one; 1 s if 0, 1 ms to 1 minute.
	MaxSleep time.Duration
	// Backoff is how long to wait after the nth failure of a job, n from 1 on. If nil:
	// 1 s, doubled with each failure up to an hour, and half of it random.
	Backoff func(n int) time.Duration
}

func (o RunOptions) withDefaults() (RunOptions, error) {
	if o.Concurrency == 0 {
		o.Concurrency = 32
	}
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.MaxRun == 0 {
		o.MaxRun = time.Hour
	}
	if o.Drain == 0 {
		o.Drain = 10 * time.Second
	}
	if o.MaxSleep == 0 {
		o.MaxSleep = time.Second
	}
	if o.Backoff == nil {
		o.Backoff = backoff
	}
	switch {
	case o.Concurrency < 1 || o.Concurrency > 1<<16:
		return o, fmt.Errorf("%w: RunOptions.Concurrency %d, want 1 to 65536", ErrInvalid, o.Concurrency)
	case o.Lease < 100*time.Millisecond || o.Lease > 24*time.Hour:
		return o, fmt.Errorf("%w: RunOptions.Lease %v, want 100ms to 24h", ErrInvalid, o.Lease)
	case o.MaxRun < time.Millisecond:
		return o, fmt.Errorf("%w: RunOptions.MaxRun %v, want at least 1ms", ErrInvalid, o.MaxRun)
	case o.Drain < 0 && o.Drain != -1:
		return o, fmt.Errorf("%w: RunOptions.Drain %v, want 0 or more, or -1 for not at all", ErrInvalid, o.Drain)
	case o.MaxSleep < time.Millisecond || o.MaxSleep > time.Minute:
		return o, fmt.Errorf("%w: RunOptions.MaxSleep %v, want 1ms to 1m", ErrInvalid, o.MaxSleep)
	}
	return o, nil
}

func backoff(n int) time.Duration {
	d := time.Hour
	if n < 12 { // no overflow of the shift, and past an hour anyway
		d = min(d, time.Second<<(n-1))
	}
	return d/2 + rand.N(d/2)
}

// A runner is one Run.
type runner struct {
	q      *Queue
	handle Handler
	opts   RunOptions
	loops  []*loop
	slots  *semaphore.Weighted // of handlers; first come, first served
	share  int                 // of the slots that one claim may take
	work   sync.WaitGroup      // the handlers

	mu       sync.Mutex
	leases   map[*Delivery]struct{}
	renewing []int // renewals under way, by shard
}

// Run works: it hands due jobs to h until ctx ends, then starts no more, gives the
// handlers RunOptions.Drain to finish, and returns when they have. It returns nil after
// a clean drain, and an error if handlers had to be told to stop. It keeps one
// connection of its own, for wake-ups, beside the client's pool.
//
// Due jobs are taken oldest first, those of dead workers before all others, as many as
// there are free slots: a slow handler never hoards jobs that another worker could do.
//
// One claim a second and shard when idle; one claim and one ack for up to 128
// jobs when busy.
func (q *Queue) Run(ctx context.Context, h Handler, opts RunOptions) error {
	if h == nil {
		return q.wrapQueue(fmt.Errorf("%w: Handler is nil", ErrInvalid))
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return q.wrapQueue(err)
	}
	if q.closed.Load() {
		return q.wrapQueue(ErrClosed)
	}
	r := &runner{
		q: q, handle: h, opts: opts,
		slots:  semaphore.NewWeighted(int64(opts.Concurrency)),
		share:  min(maxClaim, (opts.Concurrency+len(q.shards)-1)/len(q.shards)),
		leases: make(map[*Delivery]struct{}), renewing: make([]int, len(q.shards)),
	}
	consumer := newToken()
	for i := range q.shards {
		r.loops = append(r.loops, newLoop(r, newClaimer(q, &q.shards[i], consumer, opts.Lease)))
	}

	outlive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var background sync.WaitGroup
	background.Go(func() { r.keepLeases(outlive) })
	background.Go(func() { r.listen(ctx) })
	var loops sync.WaitGroup
	for _, l := range r.loops {
		loops.Go(func() { l.run(ctx) })
	}
	loops.Wait()
	err = r.drain(ctx)
	end()
	background.Wait()
	return q.wrapQueue(err)
}

// drain waits for the handlers.
func (r *runner) drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.work.Wait()
		close(done)
	}()
	patience, cancel := lifetime.Within(ctx, max(r.opts.Drain, 0))
	defer cancel()
	select {
	case <-done:
		return nil
	case <-patience.Done():
	}
	stopped := 0
	r.mu.Lock()
	for d := range r.leases {
		if d.ended == nil {
			stopped++
			d.finish(ErrDraining)
		}
	}
	r.mu.Unlock()
	<-done
	if stopped == 0 {
		return nil
	}
	return fmt.Errorf("%d handlers told to stop after %v: %w", stopped, max(r.opts.Drain, 0), ErrDraining)
}

// finish ends the context of d's handler. The caller holds the runner's lock.
func (d *Delivery) finish(cause error) {
	if d.ended == nil {
		d.ended = cause
		d.stop(cause)
	}
}

// start runs d's handler in a goroutine that frees its slot in the end.
func (r *runner) start(ctx context.Context, d *Delivery, sent time.Time) {
	ctx, d.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	d.started = time.Now()
	d.leased(sent, r.opts.Lease)
	r.mu.Lock()
	r.leases[d] = struct{}{}
	r.mu.Unlock()
	r.work.Go(func() {
		defer r.slots.Release(1)
		err := errors.New("delayqueue: the handler ended its goroutine")
		defer func() { r.settle(ctx, d, err) }() // also after runtime.Goexit
		err = r.call(ctx, d)
	})
}

func (r *runner) call(ctx context.Context, d *Delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			r.q.opts.Logger.Error("delayqueue: handler panicked", "queue", r.q.name, "job", d.ID, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return r.handle(ctx, d)
}

// settle tells Redis how d ended, for as long as d's lease may hold.
func (r *runner) settle(ctx context.Context, d *Delivery, err error) {
	cause := context.Cause(ctx)
	op := d.end(err, cause, r.opts.Backoff)
	r.mu.Lock()
	d.telling = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.leases, d)
		r.mu.Unlock()
		d.stop(nil)
	}()
	// The handler's context may have ended; its end is to be told all the same.
	tell := context.WithoutCancel(ctx)
	for {
		code, err := r.q.settle(tell, d.shard, op)
		if err == nil {
			r.count(op, code, cause)
			return
		}
		r.q.stats.failures.Add(1)
		r.q.opts.Logger.Warn("delayqueue: the end of a job is not told yet", "queue", r.q.name, "job", d.ID, "error", err)
		if r.lost(d) {
			r.count(op, settledLost, cause) // it runs again
			return
		}
		if errors.Is(err, ErrClosed) {
			return // its lease runs out, and it runs again
		}
		sleep(tell, 50*time.Millisecond)
	}
}

func (r *runner) count(op *settleOp, code int64, cause error) {
	s := &r.q.stats
	switch {
	case code == settledLost:
		if !errors.Is(cause, ErrLeaseLost) { // else it was counted then
			s.lost.Add(1)
		}
	case code == settledDead || op.verb == "D":
		s.died.Add(1)
	case op.verb == "A":
		s.succeeded.Add(1)
	case op.verb == "R":
		s.retried.Add(1)
	case errors.Is(cause, ErrDraining):
		s.returned.Add(1)
	default:
		s.snoozed.Add(1)
	}
}

// giveBack returns a job that was claimed and is not to run here.
func (r *runner) giveBack(ctx context.Context, d *Delivery) {
	ctx, cancel := lifetime.Within(ctx, r.opts.Lease)
	defer cancel()
	if _, err := r.q.settle(ctx, d.shard, &settleOp{id: d.ID, token: d.token, verb: "S"}); err != nil {
		r.q.stats.failures.Add(1)
		return // its lease runs out
	}
	r.q.stats.returned.Add(1)
}

// troubled reports that background work failed.
func (r *runner) troubled(what string, err error) {
	r.q.stats.failures.Add(1)
	r.q.opts.Logger.Warn("delayqueue: background work failed, trying again", "queue", r.q.name, "work", what, "error", err)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

package delayqueue

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// lateHint is how late a due job may be found before its wake-up counts as lost.
const lateHint = 100 * time.Millisecond

// A loop brings the due jobs of one shard to a runner.
type loop struct {
	r *runner
	c *claimer

	mu     sync.Mutex
	hinted time.Time // when a job is due that the last claim may not have known; zero: none
	hint   chan struct{}
}

func newLoop(r *runner, c *claimer) *loop {
	return &loop{r: r, c: c, hint: make(chan struct{}, 1)}
}

func (l *loop) run(ctx context.Context) {
	polled := false // the last sleep ended for nothing but its length, and nothing was heard since
	for {
		k, err := l.reserve(ctx)
		if err != nil {
			return
		}
		if !l.takeHint().IsZero() { // what was announced by now, the claim will see
			polled = false
		}
		sent := time.Now()
		got, err := l.claim(ctx, k)
		received := time.Now()
		if err != nil { // ctx has ended
			l.r.slots.Release(int64(k))
			return
		}
		if polled {
			l.countLost(got)
		}
		l.hand(ctx, got.jobs, sent)
		l.r.slots.Release(int64(k - len(got.jobs)))
		polled = false
		if len(got.jobs) < k {
			polled = l.sleep(ctx, got, received)
		}
	}
}

// reserve waits for a free slot and takes others that are free, up to the share of one
// shard. Shards wait in a queue, so that none is passed over.
func (l *loop) reserve(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := l.r.slots.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	k := 1
	for k < l.r.share && l.r.slots.TryAcquire(1) {
		k++
	}
	return k, nil
}

// claim claims until it is answered or ctx ends. A claim under way is not given up for
// ctx: the jobs that it brought would wait for the end of their leases.
func (l *loop) claim(ctx context.Context, k int) (claim, error) {
	for {
		got, err := l.c.claim(context.WithoutCancel(ctx), k)
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return claim{}, err
		}
		l.r.troubled("claim", err)
		sleep(ctx, 100*time.Millisecond)
	}
}

// hand starts the handlers of jobs, each on a slot that is reserved.
func (l *loop) hand(ctx context.Context, jobs []*Delivery, sent time.Time) {
	late := time.Since(sent) > l.r.opts.Lease/2 // the reply was long in coming
	if ctx.Err() == nil && !late {
		for _, d := range jobs {
			l.r.start(ctx, d, sent)
		}
		return
	}
	var wg sync.WaitGroup
	for _, d := range jobs {
		wg.Go(func() {
			l.r.giveBack(ctx, d)
			l.r.slots.Release(1)
		})
	}
	wg.Wait()
}

// sleep waits until something is due. It reports whether it slept for as long as it
// may and heard nothing.
func (l *loop) sleep(ctx context.Context, got claim, received time.Time) (polled bool) {
	most := received.Add(l.r.opts.MaxSleep)
	until := most
	for _, t := range []time.Time{got.nextDue, got.nextLease} {
		if t.IsZero() || got.paused {
			continue
		}
		// A minimum, lest a server whose clock stands still be asked without end.
		at := received.Add(max(t.Sub(got.now), time.Millisecond/4))
		if at.Before(until) {
			until = at
		}
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		if at := l.takeHint(); !at.IsZero() && at.Before(until) {
			until = at
			timer.Reset(time.Until(until))
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return until.Equal(most)
		case <-l.hint:
		}
	}
}

// countLost counts a due job that no hint announced.
func (l *loop) countLost(got claim) {
	for _, d := range got.jobs {
		if d.Crashes == 0 && got.now.Sub(d.Due) > lateHint {
			l.r.q.stats.lostHints.Add(1)
			return
		}
	}
}

// wakeAt makes the loop claim at t, if it would sleep longer.
func (l *loop) wakeAt(t time.Time) {
	l.mu.Lock()
	if l.hinted.IsZero() || t.Before(l.hinted) {
		l.hinted = t
	}
	l.mu.Unlock()
	select {
	case l.hint <- struct{}{}:
	default:
	}
}

func (l *loop) takeHint() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.hinted
	l.hinted = time.Time{}
	return t
}

// listen passes wake-ups on to the loops until ctx ends.
func (r *runner) listen(ctx context.Context) {
	byChannel := make(map[string]*loop, len(r.loops))
	channels := make([]string, len(r.loops))
	for i, l := range r.loops {
		channels[i] = l.c.s.wake
		byChannel[l.c.s.wake] = l
	}
	sub := r.q.rdb.Subscribe(ctx, channels...)
	defer func() { _ = sub.Close() }()
	messages := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			switch m := m.(type) {
			case *redis.Message:
				if l := byChannel[m.Channel]; l != nil {
					r.q.stats.hints.Add(1)
					l.wakeAt(time.Now().Add(untilDue(m.Payload)))
				}
			case *redis.Subscription:
				// Connected, perhaps again: what was published meanwhile was missed.
				if l := byChannel[m.Channel]; l != nil && m.Kind == "subscribe" {
					l.wakeAt(time.Now())
				}
			}
		}
	}
}

// untilDue reads "<due ms> <server time us>"; 0 if it is anything else.
func untilDue(payload string) time.Duration {
	a, b, _ := strings.Cut(payload, " ")
	due, err1 := strconv.ParseInt(a, 10, 64)
	now, err2 := strconv.ParseInt(b, 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return max(time.UnixMilli(due).Sub(time.UnixMicro(now)), 0)
}

package delayqueue

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed tick.lua
var tickLua string

var tickScript = script.New(script.Read, tickLua)

const (
	// missedAfter is how late a run may start and still be on time.
	missedAfter = 10 * time.Second
	// maxMissed bounds how many missed times of a Schedule are looked at.
	maxMissed = 100_000
	// resync bounds how long a process trusts its own clock for the server's.
	resync = 10 * time.Minute
)

// A Periodic is a job that is added again and again.
type Periodic struct {
	// Name of the schedule, the same in every process; 1 to 200 bytes. The jobs' ids
	// begin with it.
	Name string
	// Every is the time between two runs, from 100 ms on; they are due at its multiples
	// since the year 1, rounded up to milliseconds. Every and Schedule exclude each other.
	Every time.Duration
	// Schedule tells the first time after t, as the schedules of robfig/cron do, the
	// zero time if there is none. Every process must come to the same times: mind the
	// time zone; t is in UTC. Its times are rounded up to milliseconds too.
	Schedule interface{ Next(t time.Time) time.Time }
	// Body of each job.
	Body []byte
	// MaxAttempts of each job; Options.MaxAttempts if 0.
	MaxAttempts int
	// CatchUp is how many missed runs are made up for when no process was there for
	// more than 10 s, the latest ones; 1 if 0, at most 1,000, -1 for none.
	CatchUp int
}

func (p Periodic) withDefaults(opts *Options) (Periodic, error) {
	if p.CatchUp == 0 {
		p.CatchUp = 1
	}
	switch {
	case p.Name == "" || len(p.Name) > 200:
		return p, fmt.Errorf("%w: Periodic.Name of %d bytes, want 1 to 200", ErrInvalid, len(p.Name))
	case (p.Every == 0) == (p.Schedule == nil):
		return p, fmt.Errorf("%w: Periodic.Every %v and Schedule %v, want one of them", ErrInvalid, p.Every, p.Schedule)
	case p.Schedule == nil && (p.Every < 100*time.Millisecond || p.Every > maxDelay):
		return p, fmt.Errorf("%w: Periodic.Every %v, want 100ms to %v", ErrInvalid, p.Every, maxDelay)
	case p.CatchUp < -1 || p.CatchUp > maxMany:
		return p, fmt.Errorf("%w: Periodic.CatchUp %d, want 1 to %d, or -1 for none", ErrInvalid, p.CatchUp, maxMany)
	}
	return p, (&Job{Body: p.Body, MaxAttempts: p.MaxAttempts}).check(opts)
}

// next returns the first time after t, zero if there is none, in whole milliseconds as
// Redis keeps it. It is rounded up: the time after one that was rounded down is itself.
func (p *Periodic) next(t time.Time) time.Time {
	if p.Schedule != nil {
		t = p.Schedule.Next(t)
	} else {
		t = t.Truncate(p.Every).Add(p.Every)
	}
	if whole := t.Truncate(time.Millisecond); whole.Before(t) {
		return whole.Add(time.Millisecond)
	}
	return t
}

// runs returns the times after last that have come by now and are to be run, the
// oldest first, and the latest of all that have come, zero if none has.
func (p *Periodic) runs(last, now time.Time) (times []time.Time, latest time.Time) {
	keep := max(p.CatchUp, 1)
	if p.Schedule == nil {
		// Those that will not be kept need not be counted.
		if skip := now.Add(-time.Duration(keep+1) * p.Every); skip.After(last) {
			last = skip
		}
	}
	for n := 0; ; n++ {
		if n == maxMissed {
			times, last = nil, now.Add(-missedAfter)
		}
		t := p.next(last)
		if t.IsZero() || t.After(now) || !t.After(last) {
			break
		}
		times, last, latest = append(times, t), t, t
		if len(times) > 2*keep {
			times = slices.Delete(times, 0, len(times)-keep)
		}
	}
	if len(times) > keep {
		times = times[len(times)-keep:]
	}
	if p.CatchUp == -1 && now.Sub(latest) > missedAfter {
		times = nil
	}
	return times, latest
}

// RunPeriodic adds a job at each time of p until ctx ends, and then returns nil. Of
// all processes that do so, one adds it: each job is stored once, with the time as its
// Due and an id made of name and time. Run handles it like any other. When it starts for
// the first time, it begins with the next time.
//
// A schedule without further times ends it with nil as well. Two round trips a time.
func (q *Queue) RunPeriodic(ctx context.Context, p Periodic) error {
	p, err := p.withDefaults(&q.opts)
	if err != nil {
		return q.wrapQueue(err)
	}
	s := q.shardOf(p.Name)
	for ctx.Err() == nil {
		wait, err := q.tick(ctx, s, &p)
		switch {
		case err != nil && ctx.Err() == nil:
			if q.closed.Load() {
				return q.wrapQueue(err)
			}
			q.stats.failures.Add(1)
			q.opts.Logger.Warn("delayqueue: a periodic job waits", "queue", q.name, "name", p.Name, "error", err)
			sleep(ctx, time.Second/2)
		case wait < 0:
			return nil
		default:
			sleep(ctx, wait)
		}
	}
	return nil
}

// tick adds what is due by now, and returns how long to wait; -1: for ever.
func (q *Queue) tick(ctx context.Context, s *shard, p *Periodic) (time.Duration, error) {
	reply, err := q.run(ctx, tickScript, []string{s.space.Key("periodic")}, 0, p.Name)
	if err != nil {
		return 0, err
	}
	r, ok := reply.([]any)
	if !ok || len(r) != 2 {
		return 0, badReply("tick.lua", reply)
	}
	us, _ := r[0].(int64)
	before, _ := r[1].(string)
	now := time.UnixMicro(us).UTC()
	if before == "" {
		return 0, q.moveTick(ctx, s, p, before, now, false)
	}
	ms, err := strconv.ParseInt(before, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("periodic %q: %w", p.Name, errFormat)
	}
	last := time.UnixMilli(ms).UTC()
	times, latest := p.runs(last, now)
	for _, t := range times {
		if err := q.moveTick(ctx, s, p, before, t, true); err != nil {
			return 0, err
		}
		before = strconv.FormatInt(t.UnixMilli(), 10)
	}
	if !latest.IsZero() {
		if len(times) == 0 {
			err = q.moveTick(ctx, s, p, before, latest, false)
		}
		return 0, err
	}
	next := p.next(last)
	if next.IsZero() {
		return -1, nil
	}
	return min(max(next.Sub(now), time.Millisecond), resync), nil
}

// moveTick moves the schedule from the time before to t, in the step that adds the job
// of t if there is to be one. That another process was faster is no error.
func (q *Queue) moveTick(ctx context.Context, s *shard, p *Periodic, before string, t time.Time, add bool) error {
	var batch []*addOp
	if add {
		id := p.Name + "@" + strconv.FormatInt(t.UnixMilli(), 10)
		for n, plain := 1, id; q.shardOf(id) != s; n++ { // the step needs all in one shard
			id = plain + "#" + strconv.Itoa(n)
		}
		op, _, err := q.newOp(&Job{ID: id, Body: p.Body, At: t, MaxAttempts: p.MaxAttempts})
		if err != nil {
			return err
		}
		batch = append(batch, op)
	}
	call := q.addCall(s, batch, tick{p.Name, before, strconv.FormatInt(t.UnixMilli(), 10)})
	reply, err := addScript.Run(ctx, q.rdb, call)
	if err != nil {
		return err
	}
	if r, ok := reply.([]any); !ok || len(r) == 0 {
		return badReply("add.lua", reply)
	} else if len(r) == 2 && r[1] == int64(codeStored) {
		q.stats.added.Add(1)
	}
	return nil
}

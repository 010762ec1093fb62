package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/breaker"
	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed read.lua
	readLua string
	//go:embed take.lua
	takeLua string
	//go:embed giveback.lua
	givebackLua string
	//go:embed reset.lua
	resetLua string

	takeScript     = script.New(script.Bounded, readLua, takeLua)
	givebackScript = script.New(script.State, readLua, givebackLua)
	resetScript    = script.New(script.State, resetLua)
)

// maxBatch bounds the calls of one round trip. Those of one key cost the script
// hardly more than one.
const maxBatch = 512

// An ask is one call on its way to Redis.
type ask struct {
	key string
	run
	probe bool // it is to find out whether Redis is back
}

// take decides one run: from memory, from a lease, by asking Redis or by policy. It
// fills in a rather than return it, as copies would be a good part of a local call.
func (l *Limiter) take(ctx context.Context, key string, q run, a *answer) error {
	switch {
	case q.n < 0:
		return fmt.Errorf("%w: n %d, want 0 or more", ErrInvalid, q.n)
	case q.n > l.burst:
		return fmt.Errorf("%w: n %d, burst %d", ErrExceedsBurst, q.n, l.burst)
	case l.closed.Load():
		return fmt.Errorf("%w: key %.200q", ErrClosed, key)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ratelimit: key %.200q: %w: %w", key, ErrUnavailable, err)
	}
	a.n = q.n
	if l.rdb == nil {
		a.source = FromLocal
		l.local.take(key, q, &a.verdict)
		return nil
	}
	var n *note
	if q.n > 0 {
		if n = l.notes.find(key); n != nil && l.recall(n, q, a) {
			return nil
		}
	}
	err := l.ask(ctx, key, q, a)
	if err == nil && n != nil && q.k > 1 && a.granted == 0 {
		l.rest(n, q, a)
	}
	return err
}

// recall decides a run from what is known of its key, if that is enough.
func (l *Limiter) recall(n *note, q run, a *answer) bool {
	now := l.clock()
	if took, left := n.spend(q.n*q.k, q.n*q.k, now); took > 0 {
		l.stats.fromLease.Add(1)
		a.source, a.granted, a.left = FromLease, q.k, left
		return true
	}
	if q.wait == 0 && n.denied(q.n, now, &a.verdict) {
		if q.k > 1 && l.rest(n, q, a) {
			return true
		}
		l.stats.fromMemory.Add(1)
		a.source = FromMemory
		return true
	}
	return false
}

// ask decides a run together with others, by asking Redis or, if that is down, by
// policy.
func (l *Limiter) ask(ctx context.Context, key string, q run, a *answer) error {
	lane := l.lane(key)
	watch := l.watchOf(lane)
	if !watch.Ready() {
		l.whenDown(key, q, watch, a)
		return nil
	}
	reply, err := l.group.Do(ctx, laneNames[lane], "", ask{key, q, watch.Open()}, 1)
	if err == nil {
		err = reply.err
	}
	switch {
	case err == nil:
		a.verdict = reply.verdict
		return nil
	case errors.Is(err, coalesce.ErrClosed):
		return fmt.Errorf("%w: key %.200q", ErrClosed, key)
	case errors.Is(err, coalesce.ErrOverloaded):
		l.stats.overloaded.Add(1)
		l.whenDown(key, q, watch, a)
		return nil
	case errors.Is(err, coalesce.ErrUnsent):
		return fmt.Errorf("ratelimit: key %.200q: %w: %w", key, ErrUnavailable, err)
	case errors.Is(err, coalesce.ErrUnknown):
		return fmt.Errorf("ratelimit: key %.200q: %w: %w", key, ErrUnknown, err)
	case isDown(err):
		l.whenDown(key, q, watch, a)
		return nil
	}
	return fmt.Errorf("ratelimit: key %.200q: %w", key, err)
}

// A trip is one round trip. It belongs to the goroutine that makes it, since the
// flight that waits for it may give up.
type trip struct {
	calls   []call
	stops   []stop
	answers []reply
	late    atomic.Bool // nobody waits for it any more
}

// A call is an ask in its place: the j-th of the calls in a run of a stop.
type call struct {
	stop, run int
	j, k      int64 // k: how many calls of the run it is, more than 1 for AllowUpTo
}

// A reply is what Redis said of an ask.
type reply struct {
	verdict
	err error
}

// A stop is one key of a trip.
type stop struct {
	key   string
	runs  []run
	whole bool // the last run is one call, which no other may join
	waits bool
	units int64
	note  *note
	extra int64 // units wanted in advance

	verdicts []verdict
}

// flush carries a batch to Redis and waits for the answers, if not for long. Calls that
// had to queue until Redis was found to be down do not go.
func (l *Limiter) flush(_ context.Context, lane string, batch []ask) ([]reply, error) {
	watch := l.watchOf(laneOf(lane))
	if watch.Open() && !slices.ContainsFunc(batch, func(q ask) bool { return q.probe }) {
		return nil, errDown
	}
	t := plan(batch)
	err := l.bounded(nil, func(ctx context.Context) { l.travel(ctx, t, watch) })
	switch {
	case err == nil:
		return t.answers, nil
	case errors.Is(err, errLate):
		t.late.Store(true)
		watch.Done(false)
		l.stats.lost.Add(uint64(len(batch)))
		return nil, err
	}
	return nil, coalesce.ErrClosed
}

// plan sorts a batch by key. Calls of a key for as many units each become one run,
// their order kept.
func plan(batch []ask) *trip {
	t := &trip{calls: make([]call, len(batch)), answers: make([]reply, len(batch))}
	var index map[string]int
	at := 0
	for i := range batch {
		q := &batch[i]
		if i == 0 || t.stops[at].key != q.key {
			known := false
			if i > 0 {
				if index == nil {
					index = map[string]int{t.stops[0].key: 0}
				}
				at, known = index[q.key]
			}
			if !known {
				at = len(t.stops)
				t.stops = append(t.stops, stop{key: q.key, whole: true})
				if index != nil {
					index[q.key] = at
				}
			}
		}
		s := &t.stops[at]
		whole := q.k != 1 || q.wait != 0
		s.units += q.n * q.k
		s.waits = s.waits || q.wait != 0
		if last := len(s.runs) - 1; !whole && !s.whole && s.runs[last].n == q.n {
			t.calls[i] = call{at, last, s.runs[last].k, 1}
			s.runs[last].k++
			continue
		}
		s.whole = whole
		t.calls[i] = call{at, len(s.runs), 0, q.k}
		s.runs = append(s.runs, q.run)
	}
	return t
}

// travel asks Redis, hands out the answers, and notes what they say for later.
func (l *Limiter) travel(ctx context.Context, t *trip, watch *breaker.Breaker) {
	calls := make([]script.Call, len(t.stops))
	keys := make([]string, len(t.stops))
	for i := range t.stops {
		s := &t.stops[i]
		keys[i] = l.key(s.key)
		if l.opts.Lease > 0 && !s.waits && s.units > 0 {
			s.note = l.notes.make(s.key, keys[i], l.clock())
			s.extra = s.note.want(s.units, l.clock(), l.opts.Lease, l.burst)
		}
		calls[i] = script.Call{Keys: keys[i : i+1 : i+1], Args: l.arguments(s)}
	}
	sent := l.clock()
	replies, errs := runAll(ctx, l.rdb, calls)
	now := l.clock()
	ok, failed := false, false
	for i := range t.stops {
		s, err := &t.stops[i], errs[i]
		if err == nil {
			s.verdicts, err = l.unpack(replies[i], s)
		}
		if err != nil {
			errs[i] = err
			failed = failed || isDown(err)
			continue
		}
		ok = true
		l.remember(s, keys[i], sent, now)
	}
	if t.late.Load() {
		return // flush has said so
	}
	if ok || failed {
		watch.Done(ok)
	}
	for i, c := range t.calls {
		if err := errs[c.stop]; err != nil {
			t.answers[i].err = err
			if errors.Is(err, ErrUnknown) {
				l.stats.lost.Add(1)
			}
			continue
		}
		s := &t.stops[c.stop]
		t.answers[i].verdict = s.verdicts[c.run].of(c, s.runs[c.run])
	}
}

// runAll is RunMany, which is dear where there is only one.
func runAll(ctx context.Context, rdb redis.UniversalClient, calls []script.Call) ([]any, []error) {
	if len(calls) > 1 {
		return takeScript.RunMany(ctx, rdb, calls)
	}
	reply, err := takeScript.Run(ctx, rdb, calls[0])
	return []any{reply}, []error{err}
}

// arguments are ARGV of take.lua.
func (l *Limiter) arguments(s *stop) []any {
	args := make([]any, len(l.args), len(l.args)+4+3*len(s.runs))
	copy(args, l.args)
	n := len(s.runs)
	if s.extra > 0 {
		n++
	}
	args = append(args, n)
	for _, r := range s.runs {
		args = append(args, r.n, r.k, r.wait)
	}
	if s.extra > 0 {
		args = append(args, 1, s.extra, -1)
	}
	return args
}

// unpack takes a reply of take.lua apart: a verdict per run, and one for the lease.
func (l *Limiter) unpack(reply any, s *stop) ([]verdict, error) {
	r, ok := reply.([]any)
	n := len(s.runs)
	if s.extra > 0 {
		n++
	}
	if !ok || len(r) < 1+5*n || len(r) > 3+5*n {
		return nil, fmt.Errorf("%w: reply %v of take.lua for %d runs", ErrUnknown, reply, n)
	}
	verdicts := make([]verdict, n)
	var now int64
	parse := func(at int, to *int64) {
		v, is := r[at].(int64)
		*to, ok = v, ok && is && v >= 0
	}
	parse(0, &now)
	for i := range verdicts {
		v, limit := &verdicts[i], int64(0)
		parse(1+5*i, &v.granted)
		parse(2+5*i, &v.left)
		parse(3+5*i, &limit)
		parse(4+5*i, &v.reset)
		parse(5+5*i, &v.us)
		v.limit, v.now = int(limit)-1, now
		ok = ok && limit >= 1 && limit <= int64(len(l.rules))
	}
	if len(r) > 1+5*n {
		state, is := r[1+5*n].(string)
		verdicts[n-1].state, ok = state, ok && is
	}
	if len(r) > 2+5*n {
		state, is := r[2+5*n].(string)
		verdicts[n-1].found, ok = &found{state: state}, ok && is
	}
	if !ok {
		return nil, fmt.Errorf("%w: reply %v of take.lua for %d runs", ErrUnknown, reply, n)
	}
	return verdicts, nil
}

// remember notes denials, and what was taken in advance.
func (l *Limiter) remember(s *stop, key string, sent, now int64) {
	for i, r := range s.runs {
		if v := s.verdicts[i]; r.n > 0 && r.wait == 0 && v.granted < r.k {
			if s.note == nil {
				s.note = l.notes.make(s.key, key, now)
			}
			s.note.deny(r.n, v, sent, now)
		}
	}
	if s.extra > 0 {
		s.note.fill(s.verdicts[len(s.runs)], sent, l.opts.Lease)
	}
}

// of is the part of v, the verdict on a run, that is about one call of it.
func (v verdict) of(c call, r run) verdict {
	granted := max(0, min(c.k, v.granted-c.j))
	if granted > 0 {
		v.left += (v.granted - c.j - granted) * r.n
	}
	if granted == c.k && r.wait == 0 && r.n > 0 {
		v.us = 0
	}
	v.granted = granted
	return v
}

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/breaker"
	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides a Result. That a limit is reached is no error.
var (
	// ErrInvalid is a bad argument, limit or option; the message names it.
	ErrInvalid = errors.New("ratelimit: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("ratelimit: closed")
	// ErrUnavailable is a call that Redis did not decide, because its ctx ended first
	// or because Redis refuses this client: nothing was taken. Redis being down is
	// none: see Options.WhenDown.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a call that left, because its ctx ended, or failed while Redis
	// may have decided it: its units may be taken, once.
	ErrUnknown = script.ErrUnknown

	// ErrExceedsBurst is a call for more units than there can ever be at once.
	ErrExceedsBurst = errors.New("ratelimit: more units than the burst")
)

// A Policy says what happens while Redis is down.
type Policy uint8

const (
	// LocalShare lets every process grant its share of the limits, see
	// Options.Instances.
	LocalShare Policy = iota
	// FailOpen grants everything.
	FailOpen
	// FailClosed denies everything.
	FailClosed
)

// Options of a Limiter. Give every process the same. The zero value of a field is
// its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Name keeps limiters apart that have the same Prefix and the same limits. Limiters
	// with other limits are apart anyway: whoever changes a limit starts it anew.
	Name string
	// Lease lets a process take units in advance, as many as it needs in this time,
	// and grant them without asking Redis; units that are not used within Lease after
	// they were asked for are void. In any t all processes together then grant at
	// most Burst + Rate·(t + Lease)/Period. 0 is off; else 1 ms to 10 s; 50 to 100 ms
	// is usual. For GCRA limits only.
	Lease time.Duration
	// WhenDown is what happens while Redis is down; LocalShare if 0.
	WhenDown Policy
	// Instances is between how many processes LocalShare divides the limits; 1 if
	// 0: every process grants the whole limit.
	Instances int
	// Timeout is how long a call waits for Redis before WhenDown decides it; 250 ms
	// if 0, at least 1 ms.
	Timeout time.Duration
}

func (o Options) withDefaults(rules []rule) (Options, error) {
	if o.Instances == 0 {
		o.Instances = 1
	}
	if o.Timeout == 0 {
		o.Timeout = 250 * time.Millisecond
	}
	switch {
	case o.Lease != 0 && (o.Lease < time.Millisecond || o.Lease > 10*time.Second):
		return o, fmt.Errorf("%w: Options.Lease %v, want 1ms to 10s, or 0 for none", ErrInvalid, o.Lease)
	case o.Lease != 0 && !allGCRA(rules):
		return o, fmt.Errorf("%w: Options.Lease %v with a limit that is not GCRA: its units cannot be taken in advance", ErrInvalid, o.Lease)
	case o.WhenDown > FailClosed:
		return o, fmt.Errorf("%w: Options.WhenDown %d, want LocalShare, FailOpen or FailClosed", ErrInvalid, o.WhenDown)
	case o.Instances < 0 || o.Instances > 1_000_000:
		return o, fmt.Errorf("%w: Options.Instances %d, want 1 to 1000000", ErrInvalid, o.Instances)
	case o.Timeout < time.Millisecond:
		return o, fmt.Errorf("%w: Options.Timeout %v, want at least 1ms", ErrInvalid, o.Timeout)
	}
	return o, nil
}

// A Limiter grants units of its limits, to each key on its own. One limiter serves
// all keys: users, addresses, tenants. Methods may be called from many goroutines.
//
//   - Allow, for requests: yes or no, now.
//   - Wait, for work: blocks until its turn.
//   - Reserve, to be told when, and to wait or cancel oneself.
type Limiter struct {
	rdb    redis.UniversalClient // nil: local
	opts   Options
	limits []Limit
	rules  []rule
	burst  int64 // the smallest
	queue  bool  // waiting calls can be given their turn in advance
	args   []any // of read.lua
	kind   string

	base   time.Time
	watch  []*breaker.Breaker // see watchOf
	local  *local             // all there is, or the share while Redis is down
	notes  notes
	group  *coalesce.Group[ask, reply]
	life   *lifetime.Group
	closed atomic.Bool
	stats  counters
}

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

// New returns a limiter on Redis. A call is granted by all limits or by none.
func New(rdb redis.UniversalClient, limits []Limit, opts Options) (*Limiter, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	l, err := build(limits)
	if err != nil {
		return nil, err
	}
	if l.opts, err = opts.withDefaults(l.rules); err != nil {
		return nil, err
	}
	shares, err := share(limits, l.opts.Instances)
	if err != nil {
		return nil, err
	}
	l.rdb = rdb
	l.local = newLocal(shares)
	l.args = append(l.args, len(l.rules))
	sum := fnv.New64a()
	for i := range l.rules {
		l.args = l.rules[i].args(l.args)
		_, _ = fmt.Fprintln(sum, l.rules[i].args(nil)...) // a hash takes everything
	}
	l.kind = "state-" + strconv.FormatUint(sum.Sum64(), 36)
	if l.opts.Name != "" {
		l.kind += ":" + key.Escape(l.opts.Name)
	}
	servers := 1
	if _, ok := rdb.(*redis.ClusterClient); ok {
		servers = slotLanes
	}
	for range servers {
		l.watch = append(l.watch, breaker.New())
	}
	l.group = coalesce.New(l.flush, coalesce.Options{MaxItems: maxBatch})
	return l, nil
}

// NewLocal returns a limiter of this process alone, without Redis and without a
// goroutine. Its memory is that of the keys whose limits are not full again, some 200
// bytes each; others are forgotten as new ones come, at most a minute later.
func NewLocal(limits []Limit) (*Limiter, error) {
	l, err := build(limits)
	if err != nil {
		return nil, err
	}
	l.local = newLocal(l.rules)
	return l, nil
}

func build(limits []Limit) (*Limiter, error) {
	rules, err := compile(limits)
	if err != nil {
		return nil, err
	}
	l := &Limiter{limits: slices.Clone(limits), rules: rules, burst: rules[0].burst, queue: allGCRA(rules), base: time.Now(), life: lifetime.New()}
	l.notes.seed = maphash.MakeSeed()
	for i, r := range rules {
		l.limits[i].Name = r.name
		l.burst = min(l.burst, r.burst)
	}
	return l, nil
}

func allGCRA(rules []rule) bool {
	for _, r := range rules {
		if r.algorithm != GCRA {
			return false
		}
	}
	return true
}

// Allow takes one unit of key now, if there is one. Any key is legal. One shared round
// trip, O(limits); none for a denial that is remembered or a unit of a lease.
func (l *Limiter) Allow(ctx context.Context, key string) (Result, error) {
	return l.decide(ctx, key, run{n: 1, k: 1})
}

// AllowN takes n units of key now, or none. 0 only looks, as Peek does; more than the
// smallest burst is ErrExceedsBurst, less than 0 ErrInvalid. It costs what Allow does.
func (l *Limiter) AllowN(ctx context.Context, key string, n int64) (Result, error) {
	return l.decide(ctx, key, run{n: n, k: 1})
}

// AllowUpTo takes as many units of key as there are now, n at most: Result.Granted.
func (l *Limiter) AllowUpTo(ctx context.Context, key string, n int64) (Result, error) {
	if n < 0 {
		return Result{}, fmt.Errorf("%w: n %d, want 0 or more", ErrInvalid, n)
	}
	if n == 0 {
		return l.Peek(ctx, key)
	}
	return l.decide(ctx, key, run{n: 1, k: min(n, l.burst)})
}

// Peek tells how key stands without taking anything: Result.Remaining units are
// there; if none is, the next comes after Result.RetryAfter. One shared round trip.
func (l *Limiter) Peek(ctx context.Context, key string) (Result, error) {
	return l.decide(ctx, key, run{k: 1})
}

// Reset makes all units of key available again. Other processes that remember a
// denial may go on denying until its RetryAfter. One round trip of its own.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	if l.closed.Load() {
		return fmt.Errorf("%w: key %.200q", ErrClosed, key)
	}
	l.local.reset(key)
	if l.rdb == nil {
		return nil
	}
	name := l.key(key)
	err := l.alone(ctx, resetScript, script.Call{Keys: []string{name}}, func(any, error) {
		l.notes.reset(key, name, l.clock())
	})
	if err != nil {
		return fmt.Errorf("ratelimit: reset key %.200q: %w", key, err)
	}
	return nil
}

// Limits returns the limits, with the names that Result.Limiting uses.
func (l *Limiter) Limits() []Limit { return slices.Clone(l.limits) }

// Close waits for the calls under way, until ctx ends, refuses later ones with
// ErrClosed, and gives leased units back. The Redis client stays open.
func (l *Limiter) Close(ctx context.Context) error {
	first := !l.closed.Swap(true)
	if l.rdb == nil {
		return nil
	}
	err := l.group.Close(ctx)
	if e := l.life.Drain(ctx); err == nil && e != nil {
		err = fmt.Errorf("ratelimit: close: %w", e)
	}
	if first {
		l.returnLeases(ctx)
	}
	return err
}

// clock is the time that memory of Redis's answers goes by: monotonic, in ns.
func (l *Limiter) clock() int64 { return int64(time.Since(l.base)) }

func (l *Limiter) key(name string) string {
	return key.New(l.opts.Prefix, "ratelimit", layout, name).Key(l.kind)
}

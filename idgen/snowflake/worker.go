package snowflake

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/noevict"
	"github.com/spillway-go/spillway/internal/script"
)

// Options of a lease. Give every process the same. The zero value of a field is its
// default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Name of the set of worker ids, any bytes; "default" if empty. Processes whose ids
	// must differ share one.
	Name string
	// Workers is how many worker ids there are; 64 if 0, 1 to 65,536, and not more than
	// the layout holds.
	Workers int
	// TTL is how long a lease lasts without a renewal, which happens each third of it;
	// 30 s if 0, 1 s to 1 hour. A shorter outage of Redis goes unnoticed.
	TTL time.Duration
	// AllowEviction accepts a Redis that may evict keys (any maxmemory-policy but
	// noeviction). With the evicted key the ceilings are gone.
	AllowEviction bool
	// Logger is told of failing renewals, lost leases, and an epoch that ends within a
	// year; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if o.TTL == 0 {
		o.TTL = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Workers < 1 || o.Workers > 1<<16:
		return o, fmt.Errorf("%w: Options.Workers %d, want 1 to 65536", ErrInvalid, o.Workers)
	case o.TTL < time.Second || o.TTL > time.Hour:
		return o, fmt.Errorf("%w: Options.TTL %v, want 1s to 1h", ErrInvalid, o.TTL)
	}
	return o, nil
}

//go:embed slot.lua
var slotLua string

//go:embed lease.lua
var leaseLua string

//go:embed renew.lua
var renewLua string

//go:embed release.lua
var releaseLua string

var (
	leaseScript   = script.New(script.Token, slotLua, leaseLua)
	renewScript   = script.New(script.State, slotLua, renewLua)
	releaseScript = script.New(script.State, slotLua, releaseLua)
)

const (
	layoutDigit = 1   // of the keys; see internal/key
	page        = 128 // worker ids that one run of lease.lua looks at
)

// A Worker holds a worker id, leased in Redis and renewed in the background until
// Close. If the lease is lost it takes another id, and goes on. Methods may be called
// from many goroutines.
type Worker struct {
	rdb   redis.UniversalClient
	opts  Options
	key   string
	base  time.Time    // what leases are counted from, on the monotonic clock
	began atomic.Int64 // what the wall clock, as last read, was at base: Unix ns
	skew  atomic.Int64 // µs by which tests set the wall clock wrong
	lease atomic.Pointer[lease]
	waits atomic.Uint64
	group *lifetime.Group
	close chan struct{}
	early chan struct{} // holds a token while a renewal should not wait

	mu       sync.Mutex
	flake    *Snowflake    // that uses it, if any yet
	change   chan struct{} // closed when waiters should look again
	failure  error         // of the latest renewal
	closed   bool
	counters Stats
}

// A lease is one holding of one worker id.
type lease struct {
	id    int64
	token string
	floor int64 // µs
	// ceiling is the highest time, in µs, that ids may have: Redis knows it, and
	// lets the next holder begin above it. That alone makes ids unique, whatever
	// clocks do and however long this process is paused at whatever point.
	ceiling atomic.Int64
	until   atomic.Int64 // ns since Worker.base: no id is made after it
	last    atomic.Int64 // time<<SequenceBits | sequence of the last id
}

// spent is a lease.last that no id can follow.
const spent = 1 << 62

// LeaseWorker takes a worker id for this process and keeps it until Close. It waits
// while Redis is out of reach for about a second, then ErrUnavailable. ErrNoWorker
// means that all are taken; those of killed processes are free after TTL. One round
// trip per 128 worker ids that are taken.
func LeaseWorker(ctx context.Context, rdb redis.UniversalClient, opts Options) (*Worker, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if !opts.AllowEviction {
		policy, err := noevict.Check(ctx, rdb)
		if err != nil {
			opts.Logger.Warn("snowflake: it is not known whether the server evicts keys; it must not", "error", err)
		} else if policy != noevict.NoEviction {
			return nil, fmt.Errorf("%w: maxmemory-policy is %s: with an evicted key, worker ids are leased twice; "+
				"set noeviction, or Options.AllowEviction", ErrInvalid, policy)
		}
	}
	w := &Worker{
		rdb: rdb, opts: opts, key: key.New(opts.Prefix, "snowflake", layoutDigit, opts.Name).Key("workers"), base: time.Now(),
		group: lifetime.New(), close: make(chan struct{}), early: make(chan struct{}, 1), change: make(chan struct{}),
	}
	if err := w.acquire(ctx); err != nil {
		return nil, fmt.Errorf("snowflake: lease of %q: %w", opts.Name, err)
	}
	w.group.Go(w.renewals)
	return w, nil
}

// ID returns the worker id. It changes when a lease was lost.
func (w *Worker) ID() int { return int(w.lease.Load().id) }

// Close ends the making of ids, gives the worker id back and waits for that until
// ctx ends. If it cannot be given back, the lease runs out by itself. The Redis
// client stays open.
func (w *Worker) Close(ctx context.Context) error {
	w.mu.Lock()
	first := !w.closed
	if first {
		w.closed = true
		close(w.close)
		w.wake()
	}
	w.mu.Unlock()
	err := w.group.Drain(ctx) // of renewals, which could bring another lease
	l := w.lease.Load()
	l.until.Store(0)
	if !first {
		return nil
	}
	// An id may be in the making: the swap decides whether it is before or too late.
	last, used := l.last.Swap(spent), l.floor
	if w.flake != nil && last >= 0 {
		used = max(used, w.flake.used(last))
	}
	if err != nil {
		return fmt.Errorf("snowflake: close worker %d: %w", l.id, err)
	}
	_, err = releaseScript.Run(ctx, w.rdb, script.Call{Keys: []string{w.key}, Args: []any{l.token, l.id, used}})
	if err != nil {
		return fmt.Errorf("snowflake: give back worker %d: %w", l.id, err)
	}
	return nil
}

// attach makes s the one Snowflake of w.
func (w *Worker) attach(s *Snowflake) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flake != nil {
		return false
	}
	w.flake = s
	l := w.lease.Load()
	l.last.Store(s.first(l.floor))
	return true
}

// acquire leases a worker id, asking for page after page from a random one on.
func (w *Worker) acquire(ctx context.Context) error {
	token := newToken()
	start := mathrand.IntN(w.opts.Workers)
	for seen := 0; seen < w.opts.Workers; seen += page {
		sent, wanted := time.Now(), w.wanted()
		reply, err := leaseScript.Run(ctx, w.rdb, script.Call{Keys: []string{w.key}, Args: []any{
			token, (start + seen) % w.opts.Workers, min(page, w.opts.Workers-seen), w.opts.Workers,
			w.opts.TTL.Milliseconds(), w.wall().UnixMicro(), wanted,
		}})
		if err != nil {
			return w.explain(err)
		}
		id, floor, ceiling, err := parseLease(reply)
		if err != nil {
			return err
		}
		if id >= 0 {
			w.adopt(&lease{id: id, token: token, floor: floor}, ceiling, sent)
			return nil
		}
	}
	return fmt.Errorf("%w: %d", ErrNoWorker, w.opts.Workers)
}

// adopt puts a lease in the place of the one before. The clock is read for it: its floor
// may be above the time of the last reading.
func (w *Worker) adopt(l *lease, ceiling int64, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.ceiling.Store(ceiling)
	l.until.Store(w.validity(sent))
	l.last.Store(spent) // until a Snowflake is attached
	if w.flake != nil {
		last := w.flake.first(l.floor)
		if old := w.lease.Load(); old != nil {
			// Ids go on increasing: one that is being made under the old lease is either
			// seen here or comes too late.
			old.until.Store(0)
			was := old.last.Swap(spent)
			last = max(last, w.flake.first(w.flake.used(was)))
		}
		l.last.Store(last)
	}
	w.readClock()
	w.lease.Store(l)
	w.wake()
}

// validity returns until when a lease holds that was asked for at sent, with a
// margin for clocks that run at different speeds.
func (w *Worker) validity(sent time.Time) int64 {
	ttl := w.opts.TTL
	return int64(sent.Sub(w.base) + ttl - ttl/100 - 2*time.Millisecond)
}

// wanted is the ceiling to ask for: what a process can use until its lease ends.
func (w *Worker) wanted() int64 { return w.wall().Add(w.opts.TTL + lead).UnixMicro() }

// readClock sees a wall clock that was set. Between two readings ids follow the
// monotonic clock, which no one sets.
func (w *Worker) readClock() {
	w.began.Store(w.wall().UnixNano() - int64(time.Since(w.base)))
}

func (w *Worker) wall() time.Time {
	return time.Now().Add(time.Duration(w.skew.Load()) * time.Microsecond)
}

// explain gives a refusal of a script its name.
func (w *Worker) explain(err error) error {
	refused := new(script.Refused)
	if !errors.As(err, &refused) {
		return err
	}
	if refused.Code == "CLOCK" {
		us, _ := strconv.ParseInt(refused.Detail, 10, 64)
		return fmt.Errorf("%w: it differs from that of Redis by %v", ErrClock, time.Duration(us)*time.Microsecond)
	}
	return err
}

func newToken() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func parseLease(reply any) (id, floor, ceiling int64, err error) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		return 0, 0, 0, fmt.Errorf("lease.lua answered %v", reply)
	}
	id, _ = parts[0].(int64)
	f, _ := parts[1].(string)
	c, _ := parts[2].(string)
	floor, err = strconv.ParseInt(f, 10, 64)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("lease.lua answered %v: %w", reply, err)
	}
	ceiling, err = strconv.ParseInt(c, 10, 64)
	return id, floor, ceiling, err
}

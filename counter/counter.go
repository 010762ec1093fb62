package counter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/noevict"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success. Only after ErrUnknown may something have
// changed.
var (
	// ErrInvalid is a bad argument or option, or a total that would leave its range;
	// the message names it.
	ErrInvalid = errors.New("counter: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("counter: closed")
	// ErrUnavailable is Redis out of reach or out of memory: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply that could not be found out in time.
	ErrUnknown = script.ErrUnknown

	// ErrBacklog is an Add while nothing could be stored for Options.MaxOutage. The
	// increment was not counted.
	ErrBacklog = errors.New("counter: backlog: redis has been down too long")
	// ErrLost is a block that should be in Redis by what Options.Cold knows and is not.
	ErrLost = errors.New("counter: totals lost from redis")
)

// Limits of one call, and of one script: Redis does nothing else while it runs.
const (
	maxFields  = 32
	maxName    = 64      // bytes of the schema's name or a field's
	maxMember  = 256     // bytes
	maxDelta   = 1 << 32 // in one Add
	maxPending = 1 << 53 // of one counter, not yet sent
	maxSpread  = 64
	maxMany    = 10_000 // ids in one GetMany
	batchSize  = 200    // objects in one script
	shardCount = 64     // part of the layout: it decides where an object is
	seqTTL     = 24 * time.Hour
	resendFor  = 23 * time.Hour // less than seqTTL: see Counter.failed
	answerTTL  = time.Minute    // of AddSync's and Toggle's tokens; internal/script resends for 5 s
)

// A Schema says what is counted of one kind of object, such as posts. Give every
// process the same. Fields may be added later; what is stored of a field that is
// gone stays.
type Schema struct {
	Name   string  // of the kind: 1 to 64 letters, digits, '-', '_' or '.'
	Fields []Field // 1 to 32
	// Packed keeps 256 objects with neighbouring ids in one value, 4 bytes a counter, for
	// objects that are many, small and numbered without gaps: some 20 bytes for one with
	// four counters, against 150, but as much for the 256 when only one of them was
	// counted. A counter that needs more than 4 bytes moves into a hash beside it. The
	// order of the fields is then part of what is stored: add others at the end,
	// remove none. No field may spread. The choice is for ever.
	Packed bool
}

// A Field is one counter of an object.
type Field struct {
	Name string // as Schema.Name; stored with every object, so keep it short
	// Signed fields may be read as negative. Others read as 0 while their total is
	// below it, which happens when a decrement of one process is stored before the
	// increment of another; the total itself is kept, so that nothing is lost.
	Signed bool
	// Spread is over how many keys, in as many Cluster slots, the increments of
	// different processes go, for fields that many processes count at once; 1 if 0, at
	// most 64. It may grow but not shrink. A read asks for all of them in one pipeline.
	Spread int
}

// Options of a Counter. The zero value of a field is its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Interval is how long increments gather before they are sent, and what a killed
	// process loses; 200 ms if 0, from 1 ms to 1 minute.
	Interval time.Duration
	// MaxOutage is how long nothing may be stored before Add refuses more with
	// ErrBacklog; 30 s if 0, from 1 s to 1 hour.
	MaxOutage time.Duration
	// Cold takes in the blocks of a Packed schema that have not changed for ColdAfter;
	// they come back with the next call that is about them. nil keeps all in Redis. Every
	// process of the schema has to be given the same, from the beginning.
	Cold ColdStore
	// ColdAfter is how long a block may be idle; a day if 0, from 1 s.
	ColdAfter time.Duration
	// AllowEviction accepts a Redis that may evict keys (any maxmemory-policy but
	// noeviction). An evicted counter starts again from 0.
	AllowEviction bool
	// Logger is told of failing flushes; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Interval == 0 {
		o.Interval = 200 * time.Millisecond
	}
	if o.MaxOutage == 0 {
		o.MaxOutage = 30 * time.Second
	}
	if o.ColdAfter == 0 {
		o.ColdAfter = 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Interval < time.Millisecond || o.Interval > time.Minute:
		return o, fmt.Errorf("%w: Options.Interval %v, want 1ms to 1m", ErrInvalid, o.Interval)
	case o.MaxOutage < time.Second || o.MaxOutage > time.Hour:
		return o, fmt.Errorf("%w: Options.MaxOutage %v, want 1s to 1h", ErrInvalid, o.MaxOutage)
	case o.ColdAfter < time.Second:
		return o, fmt.Errorf("%w: Options.ColdAfter %v, want at least 1s", ErrInvalid, o.ColdAfter)
	}
	return o, nil
}

func (s Schema) check() error {
	if !goodName(s.Name) {
		return fmt.Errorf("%w: Schema.Name %q, want 1 to %d letters, digits, '-', '_' or '.'", ErrInvalid, s.Name, maxName)
	}
	if len(s.Fields) == 0 || len(s.Fields) > maxFields {
		return fmt.Errorf("%w: %d Schema.Fields, want 1 to %d", ErrInvalid, len(s.Fields), maxFields)
	}
	for i, f := range s.Fields {
		if !goodName(f.Name) {
			return fmt.Errorf("%w: Schema.Fields[%d].Name %q, want 1 to %d letters, digits, '-', '_' or '.'", ErrInvalid, i, f.Name, maxName)
		}
		if f.Spread < 0 || f.Spread > maxSpread {
			return fmt.Errorf("%w: Schema.Fields[%d].Spread %d of %q, want 0 to %d", ErrInvalid, i, f.Spread, f.Name, maxSpread)
		}
		if s.Packed && f.Spread > 1 {
			return fmt.Errorf("%w: Schema.Fields[%d].Spread %d of %q, want none in a Packed schema", ErrInvalid, i, f.Spread, f.Name)
		}
		for _, before := range s.Fields[:i] {
			if before.Name == f.Name {
				return fmt.Errorf("%w: Schema.Fields[%d].Name %q is there twice", ErrInvalid, i, f.Name)
			}
		}
	}
	return nil
}

func goodName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// A Counter counts what happens to the objects of one schema, each named by an
// int64. Methods may be called from many goroutines.
//
//   - Add gathers increments in memory and sends them in batches: for likes, views,
//     anything of which a killed process may lose the last Options.Interval.
//   - AddSync stores one increment before it returns.
//   - Toggle counts each member once: the like that can be taken back.
type Counter struct {
	rdb     redis.UniversalClient
	schema  Schema
	opts    Options
	scripts *scripts // of the schema's layout
	nonce   string   // of this process, in the names of its tokens
	place   uint32   // of this process, among the keys that a field spreads over
	shards  [shardCount]shard
	calls   atomic.Uint64 // AddSync and Toggle, in their tokens

	syncs, toggles, togglesAt *group

	closed   atomic.Bool
	turn     chan struct{} // held by whoever flushes
	failing  bool          // the last flush; belongs to whoever has the turn
	stop     chan struct{} // closed by Close: the flusher ends
	lifetime *lifetime.Group
	stats    counters
}

// New returns the counter of a schema, with a goroutine that flushes until Close. It
// makes one call to Redis, bounded by a second, to refuse a server that may evict
// keys; a policy that cannot be read is logged and accepted.
func New(rdb redis.UniversalClient, schema Schema, opts Options) (*Counter, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	if err := schema.check(); err != nil {
		return nil, err
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if opts.Cold != nil && !schema.Packed {
		return nil, fmt.Errorf("%w: Options.Cold is for schemas that are Packed, %q is not", ErrInvalid, schema.Name)
	}
	if err := checkServer(rdb, opts); err != nil {
		return nil, fmt.Errorf("counter: schema %q: %w", schema.Name, err)
	}
	c := &Counter{
		rdb: rdb, schema: schema, opts: opts, scripts: plain, nonce: rand.Text()[:16], place: mathrand.Uint32(),
		turn: make(chan struct{}, 1), stop: make(chan struct{}), lifetime: lifetime.New(),
	}
	if schema.Packed {
		c.scripts = packed
	}
	if opts.Cold != nil {
		c.scripts = cold
	}
	c.syncs, c.toggles, c.togglesAt = newGroup(rdb, c.scripts.sync), newGroup(rdb, c.scripts.toggle), newGroup(rdb, c.scripts.toggleAt)
	for i := range c.shards {
		c.shards[i].init(c, i)
	}
	c.lifetime.Go(c.flushUntilClosed)
	if opts.Cold != nil {
		c.lifetime.Go(c.moveUntilClosed)
	}
	return c, nil
}

func checkServer(rdb redis.UniversalClient, opts Options) error {
	if opts.AllowEviction {
		return nil
	}
	ctx, cancel := lifetime.ForNew(time.Second)
	defer cancel()
	policy, err := noevict.Check(ctx, rdb)
	if err != nil {
		opts.Logger.Warn("counter: it is not known whether the server evicts keys; it must not", "error", err)
		return nil
	}
	if policy != noevict.NoEviction {
		return fmt.Errorf("%w: maxmemory-policy is %s: an evicted counter starts again from 0; "+
			"set noeviction, or Options.AllowEviction", ErrInvalid, policy)
	}
	return nil
}

// field returns the index of a field.
func (c *Counter) field(name string) (int, error) {
	for i := range c.schema.Fields {
		if c.schema.Fields[i].Name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: schema %q has no field %q", ErrInvalid, c.schema.Name, name)
}

// Close refuses further calls with ErrClosed, sends what is pending, waits for the
// calls in flight, and ends the flusher. If ctx ends first, the error says how many
// objects had increments that are not known to be stored; they are lost, or stored if
// their last attempt was. The Redis client stays open.
func (c *Counter) Close(ctx context.Context) error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(c.stop)
	for i := range c.shards {
		c.shards[i].poison()
	}
	err := c.drain(ctx)
	for _, g := range []*group{c.syncs, c.toggles, c.togglesAt} {
		if e := g.Close(ctx); err == nil {
			err = e
		}
	}
	c.lifetime.Stop()
	if err != nil {
		return fmt.Errorf("counter: schema %q: closed with %d objects pending: %w", c.schema.Name, c.Pending(), err)
	}
	return nil
}

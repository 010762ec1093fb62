package delayqueue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/noevict"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success. Only ErrUnknown means that something may
// have changed.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("delayqueue: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("delayqueue: closed")
	// ErrUnavailable is Redis out of reach, out of memory or overloaded: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply that could not be found out in time. An Add with an
	// ID may be made again: it is stored once.
	ErrUnknown = script.ErrUnknown

	// ErrDuplicate is an id that a job has, or had within Options.ReplayWindow. A
	// producer that repeats an Add after a crash takes it for success.
	ErrDuplicate = errors.New("delayqueue: id already used")
	// ErrNotUnique is a job refused for one with the same unique key.
	ErrNotUnique = errors.New("delayqueue: unique key already used")
	// ErrNotFound is a job that is not there: never added, or gone for long.
	ErrNotFound = errors.New("delayqueue: job not found")
	// ErrActive is a change of a job that is running.
	ErrActive = errors.New("delayqueue: job is running")
	// ErrFinished and ErrCancelled are a change of a job that ended, within
	// Options.ReplayWindow; later it is ErrNotFound.
	ErrFinished  = errors.New("delayqueue: job has finished")
	ErrCancelled = errors.New("delayqueue: job was cancelled")
	// ErrDead is a change of a job among the dead letters: Redrive or Cancel it.
	ErrDead = errors.New("delayqueue: job is dead")
	// ErrLeaseLost is the cause of a handler's ended context when another worker may
	// have the job by now. What the handler returns then changes nothing.
	ErrLeaseLost = errors.New("delayqueue: lease lost")
	// ErrMaxRun is the cause of a handler's ended context after RunOptions.MaxRun.
	ErrMaxRun = errors.New("delayqueue: handler ran for too long")
	// ErrDraining is the cause of a handler's ended context when Run ends and
	// RunOptions.Drain is over: the job goes back into the queue as it was.
	ErrDraining = errors.New("delayqueue: worker is shutting down")
)

// Options of a Queue. Give every process the same. The zero value of a field is
// its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Shards is over how many slots of a Cluster the queue is spread; 1 if 0, at most
	// 256. It is fixed when the queue is first used; New refuses another number.
	Shards int
	// MaxAttempts is how often a handler may fail before a job is dead; 25 if 0, at
	// most 1,000,000. Job.MaxAttempts overrides it.
	MaxAttempts int
	// MaxCrashes is how many workers a job may outlive before it is dead; 3 if 0.
	MaxCrashes int
	// MaxBody is the largest body in bytes; 64 KiB if 0, at most 1 MiB.
	MaxBody int
	// ReplayWindow is how long the end of a job is remembered, so that a call
	// repeated after it is told the first answer; 60 s if 0, 10 s to 24 hours. It
	// costs about 130 B a job that ended, for one to two windows.
	ReplayWindow time.Duration
	// DeadRetention is how long dead jobs are kept; 7 days if 0, at least a second.
	DeadRetention time.Duration
	// AllowEviction accepts a Redis that may evict keys (any maxmemory-policy but
	// noeviction): jobs may then vanish.
	AllowEviction bool
	// Logger is told of failing background work; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Shards == 0 {
		o.Shards = 1
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 25
	}
	if o.MaxCrashes == 0 {
		o.MaxCrashes = 3
	}
	if o.MaxBody == 0 {
		o.MaxBody = 64 << 10
	}
	if o.ReplayWindow == 0 {
		o.ReplayWindow = time.Minute
	}
	if o.DeadRetention == 0 {
		o.DeadRetention = 7 * 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Shards < 1 || o.Shards > 256:
		return o, fmt.Errorf("%w: Options.Shards %d, want 1 to 256", ErrInvalid, o.Shards)
	case o.MaxAttempts < 1 || o.MaxAttempts > maxMaxAttempts:
		return o, fmt.Errorf("%w: Options.MaxAttempts %d, want 1 to %d", ErrInvalid, o.MaxAttempts, maxMaxAttempts)
	case o.MaxCrashes < 1 || o.MaxCrashes > maxMaxAttempts:
		return o, fmt.Errorf("%w: Options.MaxCrashes %d, want 1 to %d", ErrInvalid, o.MaxCrashes, maxMaxAttempts)
	case o.MaxBody < 1 || o.MaxBody > 1<<20:
		return o, fmt.Errorf("%w: Options.MaxBody %d, want 1 to %d", ErrInvalid, o.MaxBody, 1<<20)
	case o.ReplayWindow < 10*time.Second || o.ReplayWindow > 24*time.Hour:
		return o, fmt.Errorf("%w: Options.ReplayWindow %v, want 10s to 24h: a call is repeated for some 5s", ErrInvalid, o.ReplayWindow)
	case o.DeadRetention < time.Second || o.DeadRetention > maxDelay:
		return o, fmt.Errorf("%w: Options.DeadRetention %v, want 1s to %v", ErrInvalid, o.DeadRetention, maxDelay)
	}
	return o, nil
}

// A Queue holds jobs until they are due, and hands each to a worker. Methods may be
// called from many goroutines.
//
//   - Producers Add; Cancel, Reschedule and Get work by id.
//   - Workers Run a Handler. Every process with a Run is a worker.
//   - Operators look at Dead and Redrive, Pause and Resume, Inspect.
type Queue struct {
	rdb     redis.UniversalClient
	name    string
	opts    Options
	shards  []shard
	adds    *coalesce.Group[*addOp, addOut]
	settles *coalesce.Group[*settleOp, int64]
	closed  atomic.Bool
	stats   counters
}

// A shard is what one hash tag holds of a queue.
type shard struct {
	index    int
	lane     string
	space    key.Space
	keys     []string // as read.lua has them
	paused   []string // and the paused key
	periodic []string // and the periodic hash
	wake     string
}

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

//go:embed read.lua
var readLua string

//go:embed open.lua
var openLua string

var openScript = script.New(script.State, openLua)

// openWithin bounds New's wait for the number of shards, without which there is no queue:
// a reply that is late is worth more than a service that does not start.
const openWithin = 5 * time.Second

// New returns the queue of that name, any bytes. It makes two calls to Redis: one, bounded
// by a second, refuses a server that may evict keys (a policy that cannot be read is logged
// and accepted), one fixes or compares the number of shards. For that it waits about a
// second if nothing can run, and five for a reply. It starts nothing.
func New(rdb redis.UniversalClient, name string, opts Options) (*Queue, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	if name == "" {
		return nil, fmt.Errorf("%w: queue name is empty", ErrInvalid)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	q := &Queue{rdb: rdb, name: name, opts: opts, shards: make([]shard, opts.Shards)}
	for i := range q.shards {
		q.shards[i] = newShard(opts.Prefix, name, i)
	}
	if err := q.checkServer(); err != nil {
		return nil, fmt.Errorf("delayqueue: queue %q: %w", name, err)
	}
	q.adds = coalesce.New(q.flushAdds, coalesce.Options{MaxBytes: 256 << 10})
	q.settles = coalesce.New(q.flushSettles, coalesce.Options{})
	return q, nil
}

func newShard(prefix, name string, i int) shard {
	// The number comes last, so that no two queues share a tag whatever their names.
	space := key.New(prefix, "delayqueue", layout, name+"#"+strconv.Itoa(i))
	s := shard{index: i, lane: strconv.Itoa(i), space: space, wake: space.Key("wake")}
	for _, kind := range []string{"due", "run", "jobs", "state", "dead", "unique", "done", "wake"} {
		s.keys = append(s.keys, space.Key(kind))
	}
	s.paused = append(s.keys[:8:8], space.Key("paused"))
	s.periodic = append(s.keys[:8:8], space.Key("periodic"))
	return s
}

func (q *Queue) checkServer() error {
	ctx, cancel := lifetime.ForNew(time.Second)
	defer cancel()
	if !q.opts.AllowEviction {
		policy, err := noevict.Check(ctx, q.rdb)
		if err != nil {
			q.opts.Logger.Warn("delayqueue: it is not known whether the server evicts keys; it must not", "error", err)
		} else if policy != noevict.NoEviction {
			return fmt.Errorf("%w: maxmemory-policy is %s: the server may evict jobs; set noeviction, or Options.AllowEviction", ErrInvalid, policy)
		}
	}
	ctx, cancel = lifetime.ForNew(openWithin)
	defer cancel()
	reply, err := openScript.Run(ctx, q.rdb, script.Call{
		Keys: []string{q.shards[0].space.Key("shards")}, Args: []any{q.opts.Shards},
	})
	if err != nil {
		return err
	}
	if n, ok := reply.(int64); !ok || n != int64(q.opts.Shards) {
		return fmt.Errorf("%w: Options.Shards %d, but the queue was first used with %v", ErrInvalid, q.opts.Shards, reply)
	}
	return nil
}

// Close waits for the calls under way, until ctx ends, and refuses later ones with
// ErrClosed. End every Run first: their acks would be refused too. The Redis client
// stays open.
func (q *Queue) Close(ctx context.Context) error {
	q.closed.Store(true)
	err := q.adds.Close(ctx)
	return errors.Join(err, q.settles.Close(ctx))
}

// shardOf returns the shard of a job: the hash of its id, for ever.
func (q *Queue) shardOf(id string) *shard {
	return &q.shards[xxhash.Sum64String(id)%uint64(len(q.shards))]
}

// run runs a script on a shard, outside the groups.
func (q *Queue) run(ctx context.Context, s *script.Script, keys []string, resend int, args ...any) (any, error) {
	if q.closed.Load() {
		return nil, ErrClosed
	}
	return s.Run(ctx, q.rdb, script.Call{Keys: keys, Args: args, Resend: resend})
}

func (q *Queue) wrap(id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("delayqueue: queue %q, job %.300q: %w", q.name, id, err)
}

func (q *Queue) wrapQueue(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("delayqueue: queue %q: %w", q.name, err)
}

// merged names what happened to a call that a group did not answer.
func merged(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, coalesce.ErrClosed):
		return ErrClosed
	case errors.Is(err, coalesce.ErrUnsent):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, coalesce.ErrUnknown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// newToken returns 8 bytes that no call beside this one has. Tokens only tell apart
// what was done to one job.
func newToken() string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var b [8]byte
	r := rand.Uint64()
	for i := range b {
		b[i] = digits[r&63]
		r >>= 6
	}
	return string(b[:])
}

// badReply is a reply that no version of the script gives.
func badReply(what string, reply any) error {
	return fmt.Errorf("%w: reply %.200v of %s", ErrUnknown, fmt.Sprint(reply), what)
}

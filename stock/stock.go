package stock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/noevict"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success. ErrInvalid, the refusals (from
// ErrConflict on) and ErrUnavailable mean that nothing changed; only ErrUnknown
// means that it may have.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("stock: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("stock: closed")
	// ErrUnavailable is Redis out of reach, out of memory or overloaded: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply that could not be found out in time. Make the same
	// call again, ask Lookup, or Cancel the order: a Cancel also forbids an attempt
	// that is still on its way.
	ErrUnknown = script.ErrUnknown

	// ErrConflict is an id that was used before with other content.
	ErrConflict = errors.New("stock: id already used with other content")
	// ErrHalted is an order while the activity is halted.
	ErrHalted = errors.New("stock: activity halted")
	// ErrNotOpen is an order before OpensAt, ErrEnded one after ClosesAt.
	ErrNotOpen = errors.New("stock: activity not open yet")
	ErrEnded   = errors.New("stock: activity ended")
	// ErrNotEligible is an order of a user whom Allow did not name.
	ErrNotEligible = errors.New("stock: user not eligible")
	// ErrNoSKU is a SKU that was never loaded.
	ErrNoSKU = errors.New("stock: no such sku")
	// ErrInsufficient is not enough stock; errors.As finds an *InsufficientError.
	ErrInsufficient = errors.New("stock: insufficient")
	// ErrLimit is a limit per user; errors.As finds a *LimitError.
	ErrLimit = errors.New("stock: limit per user reached")
	// ErrJournalFull is an order while a sink of the journal is more than Options.MaxLag
	// behind.
	ErrJournalFull = errors.New("stock: journal full: its sinks are behind")
	// ErrNotFound is an order that does not exist, or whose record expired.
	ErrNotFound = errors.New("stock: order not found")
	// ErrCancelled, ErrExpired and ErrConfirmed tell which end an order had met
	// before the call: the three exclude each other.
	ErrCancelled = errors.New("stock: order was cancelled")
	ErrExpired   = errors.New("stock: hold expired")
	ErrConfirmed = errors.New("stock: order was confirmed")
	// ErrContended is an order in an activity with buckets while the last units moved
	// between them all the time: nothing happened, and it is not sold out. Try again.
	ErrContended = errors.New("stock: contended")

	// ErrForked is a journal that does not continue what a sink has: something that the
	// sink holds was lost here. Orders get ErrHalted until Rebuild.
	ErrForked = errors.New("stock: journal forked")
	// ErrMoved is what Sink.Apply answers when the checkpoint is not where the batch begins.
	ErrMoved = errors.New("stock: checkpoint moved")
	// ErrTrimmed is a sink that lacks entries which are not kept any more.
	ErrTrimmed = errors.New("stock: journal trimmed beyond the sink")
)

// Limits of one call. They keep a script short, since Redis does nothing else
// while it runs.
const (
	maxItems   = 100     // SKUs in an order or a restock
	maxID      = 256     // bytes of an order id, user, restock id or cancel reason
	maxSKU     = 128     // bytes
	maxQty     = 1 << 52 // units of one SKU in all, as in settle.lua
	batchBytes = 16 << 10
)

// Options of an Activity. Give every process the same. The zero value of a field
// is its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Hold is how long Reserve keeps units for an order; 15 minutes if 0, at least
	// 100 ms. When it is changed while holds are open, a hold made under a longer
	// one keeps later, shorter ones from being released by Run before it; Confirm
	// and Cancel see the right time at once.
	Hold time.Duration
	// Retention is how long an id's outcome is remembered after its last change;
	// 24 hours if 0, and at least Hold + 10 minutes. A call retried later than that
	// is a new call. A record is kept for at most twice as long.
	Retention time.Duration
	// OpensAt and ClosesAt bound the time, on Redis's clock, in which new orders
	// are taken; zero means no bound.
	OpensAt, ClosesAt time.Time
	// UserLimit is how many units a user may hold and have bought in the whole
	// activity, UserSKULimit how many of one SKU; 0 means no limit. A limit that is
	// switched on later counts only what is ordered from then on.
	UserLimit, UserSKULimit int64
	// EligibleOnly refuses orders of users whom Allow did not name.
	EligibleOnly bool
	// SoldOutFor is how long a process may answer "sold out" from memory after Redis
	// said so; 100 ms if 0, at most 1 s, -1 to ask Redis every time.
	SoldOutFor time.Duration
	// Linger is how long RunJournal lets a batch for a sink fill up; 50 ms if 0, at most
	// 10 s.
	Linger time.Duration
	// MaxLag is how far, in time, a sink of the journal may be behind before new orders
	// get ErrJournalFull; confirms, cancels and restocks go on. 0 means any. Where it is
	// set and no RunJournal ever ran, orders stop MaxLag after Load.
	MaxLag time.Duration
	// WaitReplicas is how many replicas a call waits for, 100 ms at most, before it
	// answers; Result.Durable says whether they had what it did. It narrows what a
	// failover can lose and does not close it. 0 means that nobody waits.
	WaitReplicas int
	// Buckets, 2 to 64, divides a hot activity over as many hash tags, so that a
	// Cluster shares its load; 0 and 1 mean one tag. It is fixed by the first Load. A
	// user's orders are all settled in one bucket, and stock moves there when it runs
	// out. See the package comment for what differs.
	Buckets int
	// Unmerged sends every call in a round trip of its own. Merging costs a lone
	// caller nothing; this exists to measure it.
	Unmerged bool
	// OnEvent is told, at most once each in this process, when a SKU sells out or
	// comes back. It is called by Run, one event at a time, and must not block long.
	// What was sold out before Run began is in Stock, with its version.
	OnEvent func(Event)
	// AllowEviction accepts a Redis that may evict keys (any maxmemory-policy but
	// noeviction). An evicted order record lets the retry of that order sell twice.
	AllowEviction bool
	// Logger is told of failing background work; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Hold == 0 {
		o.Hold = 15 * time.Minute
	}
	if o.Retention == 0 {
		o.Retention = max(24*time.Hour, o.Hold+retryHorizon)
	}
	if o.SoldOutFor == 0 {
		o.SoldOutFor = 100 * time.Millisecond
	}
	if o.Linger == 0 {
		o.Linger = 50 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Hold < 100*time.Millisecond || o.Hold > 10*365*24*time.Hour {
		return o, fmt.Errorf("%w: Options.Hold %v, want 100ms to 10 years", ErrInvalid, o.Hold)
	}
	o.Hold = o.Hold.Truncate(time.Millisecond) // as the server counts
	switch {
	case o.Retention < o.Hold+retryHorizon:
		return o, fmt.Errorf("%w: Options.Retention %v, want at least Hold + %v = %v, so that a late retry finds its first outcome",
			ErrInvalid, o.Retention, retryHorizon, o.Hold+retryHorizon)
	case !o.ClosesAt.IsZero() && !o.ClosesAt.After(o.OpensAt):
		return o, fmt.Errorf("%w: Options.ClosesAt %v is not after OpensAt %v", ErrInvalid, o.ClosesAt, o.OpensAt)
	case o.UserLimit < 0 || o.UserLimit > maxQty:
		return o, fmt.Errorf("%w: Options.UserLimit %d, want 0 to 2^52", ErrInvalid, o.UserLimit)
	case o.UserSKULimit < 0 || o.UserSKULimit > maxQty:
		return o, fmt.Errorf("%w: Options.UserSKULimit %d, want 0 to 2^52", ErrInvalid, o.UserSKULimit)
	case o.Linger < time.Millisecond || o.Linger > 10*time.Second:
		return o, fmt.Errorf("%w: Options.Linger %v, want 1ms to 10s", ErrInvalid, o.Linger)
	case o.MaxLag != 0 && o.MaxLag < 2*o.Linger:
		return o, fmt.Errorf("%w: Options.MaxLag %v, want 0 or at least twice Options.Linger, %v", ErrInvalid, o.MaxLag, o.Linger)
	case o.WaitReplicas < 0 || o.WaitReplicas > 100:
		return o, fmt.Errorf("%w: Options.WaitReplicas %d, want 0 to 100", ErrInvalid, o.WaitReplicas)
	case o.Buckets < 0 || o.Buckets > maxBuckets:
		return o, fmt.Errorf("%w: Options.Buckets %d, want 0 to %d", ErrInvalid, o.Buckets, maxBuckets)
	case o.SoldOutFor > time.Second || o.SoldOutFor < 0 && o.SoldOutFor != -1:
		return o, fmt.Errorf("%w: Options.SoldOutFor %v, want up to 1s, or -1 for never", ErrInvalid, o.SoldOutFor)
	}
	return o, nil
}

// Journals returns the names under which a Sink is given the journals of the activity of
// that name with these options: its own name, or, of each of its buckets in turn,
// <activity>%b<buckets>.<bucket>, as in sale%b3.0.
func (o Options) Journals(activity string) []string {
	if o.Buckets < 2 {
		return []string{activity}
	}
	names := make([]string, o.Buckets)
	for i := range names {
		names[i] = fmt.Sprintf("%s%%b%d.%d", activity, o.Buckets, i)
	}
	return names
}

// replicaPatience is how long a call waits for replicas. A batch that waits in vain
// keeps those behind it waiting.
const replicaPatience = 100 * time.Millisecond

// retryHorizon is how long clients may go on retrying a call after its hold ended.
const retryHorizon = 10 * time.Minute

// An Activity is the stock of one sale: its SKUs, orders, limits per user, and the
// journal of all that happened to them. All of it lives under one hash tag, so
// that one script settles an order. Methods may be called from many goroutines.
//
//   - Deduct sells at once: at order, or when a payment arrived.
//   - Reserve holds units until Confirm sells them, Cancel gives them back, or
//     Options.Hold is over.
//
// Every process that sells should also have one Run going.
type Activity struct {
	rdb    redis.UniversalClient
	name   string
	opts   Options
	keys   keys
	args   []any // the arguments of settle.lua that Options fix
	group  *coalesce.Group[*op, outcome]
	memory memory
	doubts doubts
	seq    atomic.Uint64
	nonce  string
	events events
	undone undone
	stats  counters
	closed atomic.Bool // for answers from memory, which the group does not see

	buckets []*Activity // see bucket.go; nil: this is the only one
	looks   *coalesce.Group[[]Item, []look]
	bucket  int    // number of this one
	journal string // what sinks call its journal
}

// The kinds of an activity's keys.
type keys struct {
	all    []string // as settle.lua takes them
	levels string
	stream string
	events string
	holds  string
	limits string
	users  string
	orders string
}

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

// bucketJournal is how the name of a bucket's journal ends.
var bucketJournal = regexp.MustCompile(`%b\d+\.\d+$`)

// New returns the activity of that name: any bytes, but not at the end what journals
// of buckets have there, as %b3.0. It makes one call to Redis,
// bounded by a second, to refuse a server that may evict keys; a policy that
// cannot be read is logged and accepted. It starts nothing: the activity exists
// once Load was called, by any process.
func New(rdb redis.UniversalClient, activity string, opts Options) (*Activity, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	if activity == "" {
		return nil, fmt.Errorf("%w: activity name is empty", ErrInvalid)
	}
	if bucketJournal.MatchString(activity) {
		return nil, fmt.Errorf("%w: activity name %q ends as the journals of buckets do", ErrInvalid, activity)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkServer(rdb, opts); err != nil {
		return nil, fmt.Errorf("stock: activity %q: %w", activity, err)
	}
	a := newActivity(rdb, activity, opts, key.New(opts.Prefix, "stock", layout, activity))
	if opts.Buckets > 1 {
		a.divide()
	}
	return a, nil
}

func newActivity(rdb redis.UniversalClient, activity string, opts Options, space key.Space) *Activity {
	k := keys{
		levels: space.Key("levels"), stream: space.Key("journal"), events: space.Key("events"),
		holds: space.Key("holds"), limits: space.Key("limits"), users: space.Key("eligible"),
		orders: space.Key("orders"),
	}
	k.all = []string{k.levels, k.stream, k.events, k.holds, k.limits, k.users, k.orders}
	a := &Activity{rdb: rdb, name: activity, journal: activity, opts: opts, keys: k, nonce: newNonce()}
	a.args = a.fixedArgs()
	a.memory.ttl = opts.SoldOutFor
	a.group = coalesce.New(a.flush, coalesce.Options{MaxBytes: batchBytes})
	return a
}

func checkServer(rdb redis.UniversalClient, opts Options) error {
	if n := poolSize(rdb); n > 0 && n < 4 {
		return fmt.Errorf("%w: PoolSize %d of the Redis client, want at least 4: Run keeps one connection", ErrInvalid, n)
	}
	if opts.AllowEviction {
		return nil
	}
	ctx, cancel := lifetime.ForNew(time.Second)
	defer cancel()
	policy, err := noevict.Check(ctx, rdb)
	if err != nil {
		opts.Logger.Warn("stock: it is not known whether the server evicts keys; it must not", "error", err)
		return nil
	}
	if policy != noevict.NoEviction {
		return fmt.Errorf("%w: maxmemory-policy is %s: an evicted order record lets a retry sell twice; "+
			"set noeviction, or Options.AllowEviction", ErrInvalid, policy)
	}
	return nil
}

// poolSize returns the connections that rdb may open to a server, 0 if unknown.
func poolSize(rdb redis.UniversalClient) int {
	switch c := rdb.(type) {
	case *redis.Client:
		return c.Options().PoolSize
	case *redis.ClusterClient:
		return c.Options().PoolSize
	}
	return 0
}

// Close waits for the calls under way, until ctx ends; later orders, confirms,
// cancels, lookups, loads and restocks get ErrClosed. What only reads or
// administers goes on, and the Redis client stays open.
func (a *Activity) Close(ctx context.Context) error {
	a.closed.Store(true)
	if a.buckets != nil {
		err := together(a.buckets, func(b *Activity) error { return b.Close(ctx) })
		return errors.Join(err, a.looks.Close(ctx))
	}
	return a.group.Close(ctx)
}

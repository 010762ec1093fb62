package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/bus"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/script"
)

var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("lock: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("lock: closed")
	// ErrUnavailable is Redis out of reach: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply that could not be found out in time: the lease may
	// have been taken, or given back. It ends by itself within a TTL; Unlock may be
	// called again.
	ErrUnknown = script.ErrUnknown

	// ErrNotAcquired is a TryLock of something that is held.
	ErrNotAcquired = errors.New("lock: held by another")
	// ErrLost is a lease that ended before it was given back: Redis could not be
	// reached in time, the process was stopped for too long, somebody forced it.
	ErrLost = errors.New("lock: lease lost")
	// ErrMaxHold is a lease that was held for longer than Options.MaxHold.
	ErrMaxHold = errors.New("lock: held for longer than MaxHold")
	// ErrSize is a semaphore that is in use with another size.
	ErrSize = errors.New("lock: semaphore in use with another size")
	// ErrNotHeld is an Unlock of a lease that was given back before, or a
	// ForceUnlock of a lock that is free.
	ErrNotHeld = errors.New("lock: not held")
)

const (
	minTTL = 10 * time.Millisecond
	maxTTL = 24 * time.Hour

	// handOvers and handOverFor bound how often, and for how long, a lease is
	// passed on inside a process before other processes get their turn. The count
	// alone would keep them out for 0.3 s where the lock is held for 10 ms.
	handOvers   = 64
	handOverFor = 30 * time.Millisecond

	// tryFor is how long TryLock waits for a server that cannot be reached.
	tryFor = 100 * time.Millisecond
	// endFor bounds how long a release is tried.
	endFor = 6 * time.Second
)

// Options of a Locker or a Quorum. Give every process the same. The zero value
// of a field is its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// TTL is how long a lease outlives a holder that is gone; 10 s if 0, 10 ms to 24
	// hours. A living holder's lease is renewed every third of it.
	TTL time.Duration
	// MaxHold ends leases that are held for longer: their ctx ends with ErrMaxHold
	// and they are no longer renewed, so that others get the lock at most a TTL
	// later. 0 sets no bound.
	MaxHold time.Duration
	// Fair serves processes in the order in which they came, as goroutines inside a
	// process always are. Every process that waits asks twice a second; one that is
	// gone costs the others half a second once.
	Fair bool
	// Linger keeps a lease for this long after an Unlock for which nobody waits, so
	// that the process's own next Lock needs no round trip; 0 is off, at most a
	// third of TTL. Another process that asks for the lock ends it at once. The
	// price: a process that is stopped, or cut off, while it lingers makes the others
	// wait for the TTL, although nobody holds the lock; and their TryLock fails
	// meanwhile.
	Linger time.Duration
	// Logger is told of failing background work; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.TTL == 0 {
		o.TTL = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.TTL < minTTL || o.TTL > maxTTL:
		return o, fmt.Errorf("%w: Options.TTL %v, want %v to %v", ErrInvalid, o.TTL, minTTL, maxTTL)
	case o.MaxHold < 0:
		return o, fmt.Errorf("%w: Options.MaxHold %v, want 0 (no bound) or more", ErrInvalid, o.MaxHold)
	case o.Linger < 0 || o.Linger > o.TTL/3:
		return o, fmt.Errorf("%w: Options.Linger %v, want 0 (off) to a third of TTL = %v", ErrInvalid, o.Linger, o.TTL/3)
	}
	return o, nil
}

// A Locker takes locks on one Redis. Make one per process and client. Methods
// may be called from many goroutines, which queue inside it, first come, first served.
//
//   - Do runs a function under a lock: the usual choice.
//   - Lock waits, TryLock does not; both return a context that ends when the lease
//     is lost, for all work that needs the lock.
//   - RW and Semaphore are for several holders.
type Locker struct {
	rdb   redis.UniversalClient
	opts  Options
	id    string // random: the beginning of this process's tokens
	seq   atomic.Uint64
	group *lifetime.Group
	bus   *bus.Bus
	wheel *wheel
	stats counters

	mu     sync.Mutex
	gates  map[string]*gate
	rooms  map[string]*room
	terms  int           // granted and not over
	closed bool          // no new ones
	idle   chan struct{} // closed when closed and terms is 0
}

// New returns a Locker. It makes no call to Redis and starts nothing; the first
// lock starts a goroutine for renewals, the first wait a connection for
// notifications, outside the client's pool. Close ends both.
func New(rdb redis.UniversalClient, opts Options) (*Locker, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	if _, ok := rdb.(*redis.Ring); ok {
		return nil, fmt.Errorf("%w: rdb is a Ring, which has no one server for all subscriptions; want a Client or a ClusterClient", ErrInvalid)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Locker{
		rdb: rdb, opts: opts, id: rand.Text()[:16], group: lifetime.New(), bus: bus.New(rdb),
		gates: map[string]*gate{}, rooms: map[string]*room{}, idle: make(chan struct{}),
	}
	l.wheel = newWheel(l)
	return l, nil
}

// Lock waits until it holds the lock of that name, any bytes but none, or until
// ctx ends; while Redis is down it waits too, and the error then says so. The
// context it returns is ctx's child and ends when the lease does, with cause
// ErrLost or ErrMaxHold: a twentieth of the TTL (at most 100 ms) before anybody else may
// hold the lock.
//
// Alone, one round trip; passed on inside the process, none.
func (l *Locker) Lock(ctx context.Context, name string) (context.Context, *Lease, error) {
	return l.lock(ctx, name, false)
}

// TryLock is Lock without waiting: ErrNotAcquired if anybody holds the lock, this
// process included. Where Redis cannot be reached it fails after a tenth of a
// second, or, with a connection that hangs, after the client's timeout.
func (l *Locker) TryLock(ctx context.Context, name string) (context.Context, *Lease, error) {
	return l.lock(ctx, name, true)
}

// Do calls f under the lock, with a context that ends when the lease does. Its
// error is f's, joined with ErrLost or ErrMaxHold if the lease ended before f
// returned, also when f returned nil: part of f's work may have run beside another
// holder's.
func (l *Locker) Do(ctx context.Context, name string, f func(context.Context, *Lease) error) error {
	if f == nil {
		return fmt.Errorf("%w: Do of lock %.200q without a function", ErrInvalid, name)
	}
	ctx, lease, err := l.Lock(ctx, name)
	if err != nil {
		return err
	}
	return lease.do(ctx, f)
}

func (l *Locker) lock(ctx context.Context, name string, try bool) (context.Context, *Lease, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: lock name is empty", ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock: %.200q: %w", name, err)
	}
	leaseCtx, cancel := context.WithCancelCause(ctx)
	lease, err := l.enter(ctx, cancel, name, try)
	if err != nil {
		cancel(nil)
		return nil, nil, fmt.Errorf("lock: %.200q: %w", name, err)
	}
	return leaseCtx, lease, nil
}

// Holder tells who holds the lock of that name. One round trip.
func (l *Locker) Holder(ctx context.Context, name string) (Holder, error) {
	if name == "" {
		return Holder{}, fmt.Errorf("%w: lock name is empty", ErrInvalid)
	}
	h, _, err := l.holder(ctx, l.keysOf(name))
	if err != nil {
		return Holder{}, fmt.Errorf("lock: %.200q: %w", name, err)
	}
	return h, nil
}

// A Holder is what Redis knows of the holder of a lock.
type Holder struct {
	Held bool
	// Fence is the holder's, or less: a process that passes a lease on among its
	// goroutines raises the fence without telling Redis. Of a lock that is not held it
	// is the last one.
	Fence   int64
	Left    time.Duration // until the lease ends, if it is not renewed
	Waiting bool          // another process waits
	Mine    bool          // this Locker has it
}

// ForceUnlock takes the lock away from whoever holds it at the time of the call:
// their context ends with ErrLost at their next renewal, a third of a TTL later at
// most, and until then only the fence keeps them out. ErrNotHeld if nobody does.
// Two round trips.
func (l *Locker) ForceUnlock(ctx context.Context, name string) error {
	if name == "" {
		return fmt.Errorf("%w: lock name is empty", ErrInvalid)
	}
	k := l.keysOf(name)
	h, token, err := l.holder(ctx, k)
	if err == nil {
		if !h.Held {
			err = ErrNotHeld
		} else {
			err = l.force(ctx, k, token)
		}
	}
	if err != nil {
		return fmt.Errorf("lock: force unlock %.200q: %w", name, err)
	}
	return nil
}

// Close refuses new calls, fails those that wait with ErrClosed, and waits until
// the leases that are held have been given back. When ctx ends first, their
// contexts end with ErrLost, nobody renews them any more, and ctx's error is
// returned. Afterwards no goroutine or subscription is left. An Unlock after Close
// still tells Redis, once, and Holder and ForceUnlock go on. The Redis client stays
// open.
func (l *Locker) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		if l.terms == 0 {
			close(l.idle)
		}
	}
	lines := make([]interface{ shut() }, 0, len(l.gates)+len(l.rooms))
	for _, g := range l.gates {
		lines = append(lines, g)
	}
	for _, r := range l.rooms {
		lines = append(lines, r)
	}
	l.mu.Unlock()
	for _, n := range lines {
		n.shut()
	}
	var err error
	select {
	case <-l.idle:
	case <-ctx.Done():
		err = fmt.Errorf("lock: close: %w", ctx.Err())
		l.wheel.abandon(fmt.Errorf("%w: %w", ErrLost, ErrClosed))
	}
	l.group.Stop()
	l.bus.Close()
	return err
}

// took counts a term that was granted; after Close it does not, and says false.
func (l *Locker) took() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.terms++
	return true
}

func (l *Locker) gaveBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.terms--
	if l.closed && l.terms == 0 {
		close(l.idle)
	}
}

func (l *Locker) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Locker) newToken() string {
	return l.id + "." + strconv.FormatUint(l.seq.Add(1), 36)
}

// mine reports whether newToken returned token.
func (l *Locker) mine(token string) bool { return strings.HasPrefix(token, l.id+".") }

package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides a value.
var (
	// ErrInvalid is a bad argument, option or value; the message names it.
	ErrInvalid = errors.New("cache: invalid argument")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("cache: closed")
	// ErrUnavailable is Redis out of reach: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply: the write or the delete may have happened. A delete
	// that ends so is tried again in the background.
	ErrUnknown = script.ErrUnknown

	// ErrNotFound means that the source said so: there is no such thing. A loader
	// returns it, wrapped or not, and Get does.
	ErrNotFound = errors.New("cache: not found")
	// ErrLoad is a load that failed, now or so recently that it is not tried again
	// yet. In the process in which it failed it wraps the loader's error.
	ErrLoad = errors.New("cache: load failed")
	// ErrOverloaded is more than Options.MaxWaiters callers for one key, more loads
	// than Options.OutageLoads while Redis is down, or a full queue of writes.
	ErrOverloaded = errors.New("cache: overloaded")
)

// A Cache keeps what a source of truth said, in this process and in Redis. Use
// New. Methods may be called from many goroutines.
//
//   - Get and GetMany read, and load what is nowhere.
//   - Delete is for who has changed the source. Set is for who knows the new value.
//   - Peek looks without loading.
//
// Values are shared between all who get them from the local level: they must not
// be changed, unless Source.Clone is set.
type Cache[K comparable, V any] struct {
	name    string
	src     Source[K, V]
	keyName func(K) string
	opts    Options

	group   *lifetime.Group
	local   *local[V]
	remote  *remote // nil without Redis
	flights *flights[K, V]
	outage  *bucket
	bus     *invalidations // nil without Redis
	redo    *redo          // nil without Redis
	behind  behind[K, V]
	guard   guard
	twice   atomic.Int64 // second deletes that wait in this process

	stats   counters
	closed  atomic.Bool
	closing chan struct{}
}

// New returns the cache of that name over src. Caches with equal prefixes and
// names share their entries. rdb may be nil: then there is only the local level;
// with Options.Local -1 there is only Redis. New makes no call to Redis. It starts
// goroutines that Close ends.
func New[K comparable, V any](rdb redis.UniversalClient, name string, src Source[K, V], opts Options) (*Cache[K, V], error) {
	if name == "" {
		return nil, fmt.Errorf("%w: cache name is empty", ErrInvalid)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	keyName, err := src.complete()
	if err != nil {
		return nil, err
	}
	if rdb != nil && script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is a nil %T; nil itself means no Redis", ErrInvalid, rdb)
	}
	if rdb == nil && opts.Local < 0 {
		return nil, fmt.Errorf("%w: rdb is nil and Options.Local is -1: there is nowhere to keep anything", ErrInvalid)
	}
	if _, ok := rdb.(*redis.Ring); ok {
		return nil, fmt.Errorf("%w: rdb is a Ring, which has no one server for all subscriptions; want a Client or a ClusterClient", ErrInvalid)
	}
	if opts.RefreshAfter > 0 && src.Load == nil {
		return nil, fmt.Errorf("%w: Options.RefreshAfter %v, but Source.Load is nil", ErrInvalid, opts.RefreshAfter)
	}
	if n := poolSize(rdb); n > 0 && n < 4 {
		return nil, fmt.Errorf("%w: PoolSize %d of the Redis client, want at least 4: one connection listens for deletes", ErrInvalid, n)
	}
	c := &Cache[K, V]{
		name: name, src: src, keyName: keyName, opts: opts,
		group: lifetime.New(), closing: make(chan struct{}), outage: newBucket(opts.OutageLoads),
	}
	c.behind.init()
	if c.local, err = newLocal[V](opts.Local); err != nil {
		return nil, fmt.Errorf("%w: Options.Local %d: %w", ErrInvalid, opts.Local, err)
	}
	c.flights = newFlights[K, V](opts.MaxWaiters, c.local.unchanged)
	if rdb != nil {
		c.remote = newRemote(rdb, opts, name)
		c.redo = newRedo(c.group, c.dropNames, opts.Logger)
		c.bus = newInvalidations(rdb, c.remote.channel, c.heard, c.gap)
		c.remote.sequence = c.bus
		c.group.Go(c.bus.run)
	}
	return c, nil
}

// Close waits until the loads under way have ended and what they found is
// stored, or cancels them when ctx ends. What waits to be deleted again, or
// written behind, is lost: it is what RunWriteBehind drains. Later calls get
// ErrClosed; the Redis client stays open.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	if c.closed.Swap(true) {
		return nil
	}
	close(c.closing)
	if c.bus != nil {
		c.bus.stop()
	}
	if c.redo != nil {
		c.redo.stop()
	}
	err := c.group.Drain(ctx)
	if c.remote != nil {
		if e := c.remote.close(ctx); err == nil {
			err = e
		}
	}
	c.local.close()
	if err != nil {
		return fmt.Errorf("cache: close %q: %w", c.name, err)
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

// open returns ErrClosed after Close.
func (c *Cache[K, V]) open() error {
	if c.closed.Load() {
		return fmt.Errorf("%w: %q", ErrClosed, c.name)
	}
	return nil
}

// wrap says which key an error is about.
func (c *Cache[K, V]) wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cache: %q, key %.200q: %w", c.name, name, err)
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
)

const (
	behindBatch = 500
	behindPause = 50 * time.Millisecond // in which writes gather
	minBehind   = 100 * time.Millisecond
	maxBehind   = 5 * time.Second
)

// A Write is a value on its way to the store.
type Write[K comparable, V any] struct {
	Key   K
	Value V
}

// A Sink stores writes: all of a batch, or an error, after which the batch comes
// again, perhaps with newer values. A batch has each key once.
type Sink[K comparable, V any] interface {
	Store(ctx context.Context, batch []Write[K, V]) error
}

// behind holds what waits to be stored: the newest value of each key.
type behind[K comparable, V any] struct {
	order [64]chan struct{} // by key: the cache and the store see writes in one order

	mu      sync.Mutex
	values  map[string]*waiting[K, V]
	seq     uint64
	writing map[string]struct{} // names that are on their way into values
	wake    chan struct{}       // holds a token while something waits
	running bool
}

type waiting[K comparable, V any] struct {
	write Write[K, V]
	seq   uint64
}

func (b *behind[K, V]) init() {
	for i := range b.order {
		b.order[i] = make(chan struct{}, 1)
	}
	b.values = make(map[string]*waiting[K, V])
	b.writing = make(map[string]struct{})
	b.wake = make(chan struct{}, 1)
}

func (b *behind[K, V]) get(name string) (v V, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w, ok := b.values[name]
	if ok {
		v = w.write.Value
	}
	return v, ok
}

// names returns those that wait, or are about to.
func (b *behind[K, V]) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make([]string, 0, len(b.values)+len(b.writing))
	for name := range b.values {
		names = append(names, name)
	}
	for name := range b.writing {
		names = append(names, name)
	}
	return names
}

func (b *behind[K, V]) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.values)
}

// room reports whether a write of name can wait. If so, done must be called.
func (b *behind[K, V]) room(name string, most int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.values[name]; ok {
		return true
	}
	if len(b.values)+len(b.writing) >= most {
		return false
	}
	b.writing[name] = struct{}{}
	return true
}

func (b *behind[K, V]) done(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.writing, name)
}

func (b *behind[K, V]) put(name string, w Write[K, V]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	b.values[name] = &waiting[K, V]{w, b.seq}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// WriteBehind is Set now, and in the store soon: RunWriteBehind of this process
// gives the newest value of each key to its Sink, in batches.
//
// What waits is in this process alone: it is lost if the process dies, which is the
// price; Redis has it until its TTL ends. That is what was written in the last 50 ms
// and since the batch began that is being stored, and more while the Sink fails.
// ErrOverloaded means that Options.Pending keys wait; after any error nothing was taken
// to be stored.
//
// Until it is stored this process loads it from what waits, and another one loads the old
// value: where it finds it neither in Redis nor locally, and where it loads again what it
// has (Options.RefreshAfter and EarlyRefresh, Refresh, RunWarm). That replaces the newer
// one in Redis, for all, until the newer one is stored: what was loaded before is then
// deleted, which is one more round trip for a batch.
func (c *Cache[K, V]) WriteBehind(ctx context.Context, key K, value V) error {
	name := c.keyName(key)
	order := c.behind.order[c.local.hash(name)%64]
	select {
	case order <- struct{}{}:
		defer func() { <-order }()
	case <-ctx.Done():
		return c.wrap(name, ctx.Err())
	}
	if !c.behind.room(name, c.opts.Pending) {
		return fmt.Errorf("%w: %d keys wait to be stored in cache %q", ErrOverloaded, c.opts.Pending, c.name)
	}
	defer c.behind.done(name)
	if err := c.Set(ctx, key, value); err != nil {
		return err
	}
	c.behind.put(name, Write[K, V]{key, value})
	return nil
}

// RunWriteBehind gives what WriteBehind took to sink until ctx ends, and then what
// is left, for as long as Options.LoadTimeout; it returns nil if all was stored,
// or an error that tells how many keys were not. A batch that fails comes again
// after a pause of 100 ms that doubles up to 5 s. One of them runs at a time in a
// process (ErrInvalid); after Close it is ErrClosed.
func (c *Cache[K, V]) RunWriteBehind(ctx context.Context, sink Sink[K, V]) error {
	if sink == nil {
		return fmt.Errorf("%w: RunWriteBehind of cache %q without a sink", ErrInvalid, c.name)
	}
	if err := c.open(); err != nil {
		return err
	}
	b := &c.behind
	b.mu.Lock()
	if b.running {
		b.mu.Unlock()
		return fmt.Errorf("%w: RunWriteBehind of cache %q runs already", ErrInvalid, c.name)
	}
	b.running = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.running = false
		b.mu.Unlock()
	}()

	retry := minBehind
	for ctx.Err() == nil {
		if b.waiting() == 0 {
			select {
			case <-b.wake:
			case <-ctx.Done():
				continue
			}
			sleep(ctx, behindPause)
		}
		if err := c.storeSome(ctx, sink); err != nil && ctx.Err() == nil {
			c.opts.Logger.Warn("cache: writes not stored yet", "cache", c.name, "error", err)
			sleep(ctx, retry)
			retry = min(2*retry, maxBehind)
			continue
		}
		retry = minBehind
	}
	return c.drain(ctx, sink)
}

// drain stores what is left.
func (c *Cache[K, V]) drain(ctx context.Context, sink Sink[K, V]) error {
	ctx, cancel := lifetime.Within(ctx, c.opts.LoadTimeout)
	defer cancel()
	for c.behind.waiting() > 0 {
		err := c.storeSome(ctx, sink)
		if err != nil && !sleep(ctx, minBehind) {
			return fmt.Errorf("cache: %q: %d keys were not stored: %w", c.name, c.behind.waiting(), errors.Join(err, ctx.Err()))
		}
	}
	return nil
}

// storeSome gives one batch to the sink. What was written again meanwhile stays, and what
// another process loaded before it was stored goes.
func (c *Cache[K, V]) storeSome(ctx context.Context, sink Sink[K, V]) error {
	b := &c.behind
	var batch []Write[K, V]
	taken := map[string]uint64{}
	b.mu.Lock()
	for name, w := range b.values {
		if len(batch) == behindBatch {
			break
		}
		batch = append(batch, w.write)
		taken[name] = w.seq
	}
	b.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := sink.Store(ctx, batch); err != nil {
		return err
	}
	if c.remote != nil {
		names := slices.Collect(maps.Keys(taken))
		for i, err := range c.remote.drop(context.WithoutCancel(ctx), names, true) {
			if err != nil {
				c.redo.add(names[i])
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, seq := range taken {
		if w := b.values[name]; w != nil && w.seq == seq {
			delete(b.values, name)
		}
	}
	return nil
}

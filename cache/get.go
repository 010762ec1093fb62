package cache

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A Level is where an entry was found.
type Level int

// The levels.
const (
	Local Level = iota + 1
	Redis
)

// An Entry is what Peek found.
type Entry[V any] struct {
	Value    V
	NotFound bool          // the source said that there is no such thing
	Stale    bool          // its TTL is over: Get would load it
	Level    Level         // where it was found
	Version  int64         // grows with every write to Redis; 0 if it is not there
	Left     time.Duration // of its TTL; negative if it is stale
}

// A missError is ErrNotFound with the key's name. It is made for every caller,
// and so writes its text only when asked.
type missError struct{ cache, name string }

func (e *missError) Error() string {
	return fmt.Sprintf("%v: cache %q, key %.200q", ErrNotFound, e.cache, e.name)
}

func (e *missError) Is(target error) bool { return target == ErrNotFound }

// Get returns the value of key: from the local level, from Redis, or loaded. All
// who ask for a key at the same time, in all processes, wait for one load.
//
// ErrNotFound means that the source said so. ErrLoad is a load that failed;
// further calls get that error, without a load, until a cool-down of 100 ms is
// over, which each failure doubles up to 5 s. ErrOverloaded and ErrUnavailable
// are told of in Options.MaxWaiters and Options.WhenDown. In all these cases but
// the first a stale value is answered instead, if Options.StaleFor allows.
//
// A caller whose ctx ends leaves at once; the load goes on for the others. A
// local hit makes no round trip and no allocation.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	name := c.keyName(key)
	hash := c.local.hash(name)
	if it := c.local.get(name, hash); it != nil {
		if now := c.local.now(); c.local.fresh(it, now) && !c.closed.Load() {
			if c.local.hits.add(hash) && c.local.heat.sample(name, hash) {
				c.local.pinHot()
			}
			c.early(ctx, key, it, hash, now)
			return c.answer(it)
		}
	}
	it, err := c.find(ctx, key, name, hash)
	if err != nil {
		var none V
		return none, c.wrap(name, err)
	}
	return c.answer(it)
}

// answer hands out what an item says.
func (c *Cache[K, V]) answer(it *item[V]) (v V, err error) {
	switch {
	case it.flags&flagNull != 0:
		return v, &missError{c.name, it.name}
	case c.src.Clone != nil:
		return c.src.Clone(it.value), nil
	}
	return it.value, nil
}

// find gets what the local level does not have.
func (c *Cache[K, V]) find(ctx context.Context, key K, name string, hash uint64) (*item[V], error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.guard.excludes(name) && !c.bus.cut() {
		c.stats.guarded.Add(1)
		return &item[V]{name: name, flags: flagNull}, nil
	}
	f, lead, old, err := c.flights.join(key, name, hash)
	if err != nil {
		return c.orStale(name, hash, old, err)
	}
	if lead {
		c.lead(ctx, f)
	}
	return c.await(ctx, f)
}

// await waits for f for as long as ctx lasts.
func (c *Cache[K, V]) await(ctx context.Context, f *flight[K, V]) (*item[V], error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		c.flights.leave(f, c.opts.CancelAbandoned)
		return nil, ctx.Err()
	}
	if f.err != nil {
		return c.orStale(f.name, f.hash, f.old, f.err)
	}
	return f.it, nil
}

// orStale returns what is known although its time is over, or err.
func (c *Cache[K, V]) orStale(name string, hash uint64, old *item[V], err error) (*item[V], error) {
	if it := c.stale(name, hash, old); it != nil {
		return it, nil
	}
	return nil, err
}

func (c *Cache[K, V]) stale(name string, hash uint64, old *item[V]) *item[V] {
	if c.opts.StaleFor == 0 {
		return nil
	}
	it := c.local.get(name, hash)
	if it == nil || old != nil && old.version > it.version {
		it = old
	}
	if it == nil || c.local.now() >= it.hard+instant(c.opts.StaleFor) {
		return nil
	}
	c.stats.stale.Add(1)
	return it
}

// lead flies f: here, as long as Redis has the answer, which spares a goroutine
// a hit, and in a goroutine from the load on.
func (c *Cache[K, V]) lead(ctx context.Context, f *flight[K, V]) {
	// The flight before this one may have ended between the look into the local
	// level and the join. Without this second look a key would be loaded twice.
	if it := c.local.get(f.name, f.hash); it != nil && c.local.fresh(it, c.local.now()) {
		c.flights.end(f, it, nil)
		return
	}
	if c.remote == nil {
		c.fly(ctx, f, nil)
		return
	}
	m := c.local.mark(f.hash)
	e, err := c.remote.read(ctx, f.name)
	switch {
	case err == nil:
		if it := c.take(f, e, m); it != nil {
			c.stats.redis.Add(1)
			c.flights.end(f, it, nil)
			c.early(ctx, f.key, it, f.hash, c.local.now())
			return
		}
	case ctx.Err() != nil:
		if c.flights.alone(f) {
			c.flights.end(f, nil, ctx.Err())
			return
		}
		err = nil // this caller leaves; Redis may be well
	}
	c.fly(ctx, f, err)
}

// take reads what Redis had for f's key, keeps it in the local level under m,
// and returns it if it is fresh. Otherwise f knows it as the entry to replace.
func (c *Cache[K, V]) take(f *flight[K, V], e entry, m mark) *item[V] {
	f.seen, f.old = entryName(e.raw), nil
	it := c.unpack(f.name, e, m.at)
	if it == nil {
		return nil
	}
	if it.hard <= m.at {
		f.old, f.oldAt = it, m
		return nil
	}
	if c.bus.cut() {
		it.expires = min(it.expires, m.at+instant(cutTTL))
	}
	c.local.put(f.hash, it, m)
	return it
}

// unpack reads an entry that was asked for at the moment at; nil if there is
// none, or none that this release and its codec understand.
func (c *Cache[K, V]) unpack(name string, e entry, at instant) *item[V] {
	if e.raw == "" {
		return nil
	}
	h, b, err := unseal(e.raw)
	it := &item[V]{name: name, flags: h.flags, version: h.version, took: h.took}
	if err == nil && h.flags&flagNull == 0 {
		it.value, err = c.decode(b)
	}
	if err != nil {
		c.stats.undecodable.Add(1)
		return nil
	}
	// A server clock that was set back makes no entry live longer.
	age := max(0, time.Duration(e.us-h.version)*time.Microsecond)
	c.date(it, at, h.fresh-age, h.soft-age, h.soft != 0)
	return it
}

// date gives an item its times: fresh for so long from at on, and due for a
// refresh after soft, if there is one.
func (c *Cache[K, V]) date(it *item[V], at instant, fresh, soft time.Duration, hasSoft bool) {
	it.hard = at + instant(fresh)
	it.expires = it.hard
	if c.remote != nil {
		it.expires = min(it.hard, at+instant(c.opts.shorten(c.opts.LocalTTL)))
	}
	if hasSoft {
		it.soft = max(1, at+instant(soft))
	}
}

// early loads a fresh item again in the background, if it is time to: after its
// soft TTL, or when the dice of XFetch say so. They are rarely thrown, as with a
// probability of e^-20 they would say so more than 20 load times before the end.
func (c *Cache[K, V]) early(ctx context.Context, key K, it *item[V], hash uint64, now instant) {
	if it.soft == 0 || now < it.soft {
		beta := c.opts.EarlyRefresh
		if beta < 0 || it.flags&flagNull != 0 {
			return
		}
		span := float64(it.took) * beta
		if left := float64(it.hard - now); left >= 20*span || left > -math.Log(1-rand.Float64())*span {
			return
		}
	}
	c.refresh(ctx, key, it, hash)
}

// Peek returns what the levels have for key, fresh or not, and whether they have
// anything. It loads nothing and keeps nothing. It costs a shared round trip if
// the local level has nothing fresh.
func (c *Cache[K, V]) Peek(ctx context.Context, key K) (Entry[V], bool, error) {
	if err := c.open(); err != nil {
		return Entry[V]{}, false, err
	}
	name := c.keyName(key)
	hash := c.local.hash(name)
	now := c.local.now()
	it := c.local.get(name, hash)
	if it != nil && (c.remote == nil || c.local.fresh(it, now)) {
		return c.entry(it, Local), true, nil
	}
	if c.remote == nil {
		return Entry[V]{}, false, nil
	}
	e, err := c.remote.read(ctx, name)
	if err != nil {
		return Entry[V]{}, false, c.wrap(name, err)
	}
	if it = c.unpack(name, e, now); it == nil {
		return Entry[V]{}, false, nil
	}
	return c.entry(it, Redis), true, nil
}

func (c *Cache[K, V]) entry(it *item[V], level Level) Entry[V] {
	left := time.Duration(it.hard - c.local.now())
	v, _ := c.answer(it)
	return Entry[V]{
		Value: v, NotFound: it.flags&flagNull != 0, Stale: left <= 0,
		Level: level, Version: it.version, Left: left,
	}
}

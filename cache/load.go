package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// How often a process asks for a key that another one loads.
const (
	minPoll = 4 * time.Millisecond
	maxPoll = 64 * time.Millisecond
)

// maxRefreshing bounds the loads in the background.
const maxRefreshing = 64

// spawn runs do in a goroutine with a ctx that keeps the values of the caller's and
// ends with the cache. It reports false if the cache is closed.
func (c *Cache[K, V]) spawn(ctx context.Context, do func(context.Context)) bool {
	ctx = context.WithoutCancel(ctx)
	return c.group.Go(func(closing context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(closing, cancel)
		defer stop()
		do(ctx)
	})
}

// fly flies f in a goroutine of its own. down is why Redis could not be asked, if
// it could not.
func (c *Cache[K, V]) fly(ctx context.Context, f *flight[K, V], down error) {
	ok := c.spawn(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		c.flights.takeOff(f, cancel, c.opts.CancelAbandoned)
		it, err := c.fetch(ctx, f, down)
		c.flights.end(f, it, err)
	})
	if !ok {
		c.flights.end(f, nil, c.open())
	}
}

// fetch loads f's key, or waits for the process that does.
func (c *Cache[K, V]) fetch(ctx context.Context, f *flight[K, V], down error) (*item[V], error) {
	m := c.local.mark(f.hash)
	switch {
	case c.remote == nil:
		return c.load(ctx, f, "", m)
	case down != nil:
		return c.without(ctx, f, down, m)
	}
	token := c.remote.token()
	if c.opts.Mode == AddRefill && f.force { // it may replace what is there now
		e, err := c.remote.read(ctx, f.name)
		if err != nil {
			return c.without(ctx, f, err, m)
		}
		f.seen = entryName(e.raw)
	}
	if c.opts.Mode != Lease {
		return c.load(ctx, f, token, m)
	}
	for poll := minPoll; ; poll = min(2*poll, maxPoll) {
		m := c.local.mark(f.hash)
		// The answer is waited for whoever leaves: a lease that nobody knows he has
		// makes all wait for its end.
		g, err := c.remote.lease(context.WithoutCancel(ctx), c.remote.leaseCall(f.name, token, f.seen, f.force))
		if errors.Is(err, ErrUnknown) {
			c.giveBackLate(ctx, claim[K, V]{f: f, token: token})
		}
		switch {
		case ctx.Err() != nil:
			if err == nil && g.kind == granted {
				c.giveBack(ctx, f.name, token)
			}
			return nil, ctx.Err()
		case err != nil:
			return c.without(ctx, f, err, m)
		}
		it, err := c.obey(ctx, f, token, g, m)
		if it != nil || err != nil || f.quiet && g.kind == held {
			return it, err
		}
		if g.kind == changed {
			continue // it was unreadable or too old; the next lease is for what it is now
		}
		if !sleep(ctx, min(g.left, poll/2+rand.N(poll/2))) {
			return nil, ctx.Err()
		}
	}
}

// obey does what the answer of lease.lua says. If it returns neither an item nor
// an error, f has to ask again.
func (c *Cache[K, V]) obey(ctx context.Context, f *flight[K, V], token string, g grant, m mark) (*item[V], error) {
	switch g.kind {
	case granted:
		return c.load(ctx, f, token, m)
	case changed:
		it := c.take(f, g.entry, m)
		if it != nil {
			c.stats.redis.Add(1)
		}
		return it, nil
	case cooling:
		err := fmt.Errorf("%w in another process: %s", ErrLoad, g.text)
		if g.text == "" {
			err = fmt.Errorf("%w in another process", ErrLoad)
		}
		c.flights.chill(f, max(g.left, time.Millisecond), err)
		return nil, err
	}
	return nil, nil // held
}

// sleep reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// load asks the source, stores what it says, and returns it. An empty token is
// of a load that Redis is not to know of.
func (c *Cache[K, V]) load(ctx context.Context, f *flight[K, V], token string, m mark) (*item[V], error) {
	begun := c.local.now()
	if v, ok := c.behind.get(f.name); ok { // the source does not have it yet
		return c.keep(ctx, f, token, m, v, false, begun), nil
	}
	var v V
	err := ErrNotFound
	if c.src.Load != nil {
		err = c.ask(ctx, func(ctx context.Context) (err error) {
			v, err = c.src.Load(ctx, f.key)
			return err
		}, func(err error) {
			c.flights.end(f, nil, c.failed(ctx, f, token, err))
		})
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, c.failed(ctx, f, token, err)
	}
	return c.keep(ctx, f, token, m, v, err != nil, begun), nil
}

// ask calls a loader. If it panics, that is its error. If it ends the goroutine
// (runtime.Goexit), nothing runs any more but what was deferred: exit is called.
func (c *Cache[K, V]) ask(ctx context.Context, loader func(context.Context) error, exit func(error)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.LoadTimeout)
	defer cancel()
	c.stats.loads.Add(1)
	returned := false
	defer func() {
		if returned {
			return
		}
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: the loader panicked: %v\n%s", ErrLoad, cause, debug.Stack())
			return
		}
		exit(fmt.Errorf("%w: the loader called runtime.Goexit", ErrLoad))
	}()
	err = loader(ctx)
	returned = true
	return err
}

// failed ends the lease of a load that failed, begins the cool-down, and returns
// what all who waited are told. Whoever cancelled a load says nothing about the
// source: there is no cool-down then.
func (c *Cache[K, V]) failed(ctx context.Context, f *flight[K, V], token string, cause error) error {
	c.stats.failures.Add(1)
	err := cause
	if !errors.Is(cause, ErrLoad) {
		err = fmt.Errorf("%w: %w", ErrLoad, cause)
	}
	cool := !errors.Is(cause, context.Canceled)
	var left time.Duration
	if token != "" && c.opts.Mode == Lease {
		// Without an answer the lease ends by itself, and this process cools down by
		// its own count.
		left, _ = c.remote.fail(context.WithoutCancel(ctx), f.name, token, cool, cause.Error())
	}
	if cool {
		c.flights.chill(f, left, err)
	}
	return err
}

// keep stores what was loaded, or that there is nothing, in all levels, as far
// as they take it, and returns it.
func (c *Cache[K, V]) keep(ctx context.Context, f *flight[K, V], token string, m mark, v V, null bool, begun instant) *item[V] {
	it := &item[V]{name: f.name, value: v, took: max(1, time.Duration(c.local.now()-begun))}
	if null {
		it.flags = flagNull
	}
	c.flights.thaw(f.name, f.hash)
	s, err := c.seal(it, token)
	at := c.local.now()
	c.date(it, at, s.fresh, s.soft, s.soft != 0)
	ttl := it.expires
	switch {
	case null && c.opts.NotFoundTTL < 0 && !c.replaces(f):
		c.giveBack(ctx, f.name, token)
		return it
	case token == "" && c.remote != nil: // Redis is down: nobody would hear of a delete
		ttl = at + instant(cutTTL)
	case token != "" && err != nil: // too large for Redis, or not to be written down
		c.opts.Logger.Warn("cache: value not kept in Redis", "cache", c.name, "key", f.name, "error", err)
		c.giveBack(ctx, f.name, token)
		ttl = at + instant(cutTTL)
	case token != "":
		// Also if nobody waits any more: the next one would wait for the lease.
		it.version, err = c.remote.fill(context.WithoutCancel(ctx), f.name, token, f.seen, s)
		if err == nil && it.version == 0 {
			c.stats.refused.Add(1)
			return it // deleted or written meanwhile, or the lease was over
		}
		if saidNo(err) { // out of memory
			c.giveBack(ctx, f.name, token)
		}
		if err != nil || c.bus.cut() {
			ttl = at + instant(cutTTL)
		}
	}
	it.expires = min(it.expires, ttl)
	if f.force && c.remote == nil { // no lease keeps out what was being loaded before
		c.local.write(f.hash, it, m)
	} else {
		c.local.put(f.hash, it, m)
	}
	c.stats.took.add(time.Duration(c.local.now() - begun))
	return it
}

// replaces reports whether there may be a value that f's load replaces.
func (c *Cache[K, V]) replaces(f *flight[K, V]) bool {
	was := c.local.get(f.name, f.hash)
	return f.force || f.seen != "" || was != nil && was.flags&flagNull == 0
}

// giveBack ends a lease under which nothing is stored.
func (c *Cache[K, V]) giveBack(ctx context.Context, name, token string) {
	if token != "" && c.opts.Mode == Lease {
		_, _ = c.remote.fail(context.WithoutCancel(ctx), name, token, false, "") // or it ends by itself
	}
}

// giveBackLate ends leases whose grants were not heard, but may have happened or may
// still be on their way: all other processes would wait for their end.
func (c *Cache[K, V]) giveBackLate(ctx context.Context, claims ...claim[K, V]) {
	c.spawn(ctx, func(context.Context) {
		t := time.NewTimer(c.opts.Timeout)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.closing:
		}
		c.each(claims, func(cl claim[K, V]) { c.giveBack(ctx, cl.f.name, cl.token) })
	})
}

// seal writes an item down for Redis. fresh and soft of the result are right
// also beside an error.
func (c *Cache[K, V]) seal(it *item[V], token string) (s sealed, err error) {
	ttl := c.opts.TTL
	if it.flags&flagNull != 0 {
		ttl = max(c.opts.NotFoundTTL, 0)
	} else if c.opts.RefreshAfter > 0 {
		s.soft = c.opts.shorten(c.opts.RefreshAfter)
	}
	if ttl > 0 { // "not found" that is not remembered still takes a value's place
		s.fresh = c.opts.shorten(ttl)
	}
	s.keep = max(s.fresh+c.opts.StaleFor, time.Millisecond)
	if token == "" {
		return s, nil
	}
	s.head = sealHead(it.flags)
	b := appendTail(make([]byte, 0, 256), s.fresh, s.soft, it.took, token)
	if it.flags&flagNull == 0 {
		if b, err = c.encode(b, it.value); err != nil {
			return s, fmt.Errorf("%w: the codec: %w", ErrInvalid, err)
		}
		if n := len(b) - tailSize; n > c.opts.MaxValue {
			return s, fmt.Errorf("%w: value of %d bytes, more than Options.MaxValue %d", ErrInvalid, n, c.opts.MaxValue)
		}
	}
	s.tail = asString(b)
	return s, nil
}

// encode and decode make an error of a codec's panic, which would otherwise end
// the process: they run in goroutines that are nobody's.
func (c *Cache[K, V]) encode(dst []byte, v V) (b []byte, err error) {
	defer caught(&err)
	return c.src.Codec.Append(dst, v)
}

func (c *Cache[K, V]) decode(src []byte) (v V, err error) {
	defer caught(&err)
	return c.src.Codec.Decode(src)
}

func caught(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("%w: panic: %v\n%s", ErrInvalid, cause, debug.Stack())
	}
}

// without answers while Redis is down. What it loads nobody else hears of, and
// it hears of no delete: it is kept for a moment.
func (c *Cache[K, V]) without(ctx context.Context, f *flight[K, V], down error, m mark) (*item[V], error) {
	c.stats.outages.Add(1)
	if errors.Is(down, ErrUnknown) {
		down = fmt.Errorf("%w: %w", ErrUnavailable, errors.New(down.Error()))
	}
	switch {
	case c.opts.WhenDown == OutageFail, f.quiet: // what is not waited for may not take others' turn
		return nil, down
	case c.opts.WhenDown == OutageStale:
		if it := c.stale(f.name, f.hash, f.old); it != nil {
			return it, nil
		}
	}
	if !c.outage.take() {
		return nil, c.overloaded(down)
	}
	return c.load(ctx, f, "", m)
}

func (c *Cache[K, V]) overloaded(down error) error {
	return fmt.Errorf("%w: %d loads a second while Redis is down: %w", ErrOverloaded, c.opts.OutageLoads, down)
}

// refresh loads an item again in the background, unless somebody does.
func (c *Cache[K, V]) refresh(ctx context.Context, key K, it *item[V], hash uint64) {
	if c.src.Load == nil || !c.flights.refresh(it.name, hash) {
		return
	}
	done := func() { c.flights.refreshed(it.name, hash) }
	if c.stats.refreshing.Add(1) > maxRefreshing {
		c.stats.refreshing.Add(-1)
		done()
		return
	}
	f := &flight[K, V]{key: key, name: it.name, hash: hash, seen: it.entryName(), quiet: true, done: make(chan struct{})}
	ok := c.spawn(ctx, func(ctx context.Context) {
		defer done()
		defer c.stats.refreshing.Add(-1)
		_, _ = c.fetch(ctx, f, nil) // a failure has begun its cool-down
	})
	if !ok {
		c.stats.refreshing.Add(-1)
		done()
	}
}

// entryName is how Redis knows the item; see entryName.
func (it *item[V]) entryName() string {
	if it.version == 0 {
		return ""
	}
	return sealHead(it.flags) + fmt.Sprintf("%016d", it.version)
}

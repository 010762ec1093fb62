package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Set stores what the caller knows to be the value of key now, for Options.TTL,
// and tells the other processes. A load that began earlier does not replace it.
// A Get in this process that begins afterwards sees it, or a later write.
//
// After an error the value is in no level of this process, and the key is
// deleted from Redis in the background: the old value would be wrong. A value
// that cannot be written down, or is larger than Options.MaxValue, is ErrInvalid.
// One shared round trip.
func (c *Cache[K, V]) Set(ctx context.Context, key K, value V) error {
	_, err := c.write(ctx, key, value, false)
	return err
}

// Add is Set if there is no fresh value, and reports whether it stored one: so it
// never replaces what a writer has put there. "Not found" is replaced.
func (c *Cache[K, V]) Add(ctx context.Context, key K, value V) (added bool, err error) {
	return c.write(ctx, key, value, true)
}

func (c *Cache[K, V]) write(ctx context.Context, key K, value V, add bool) (bool, error) {
	if err := c.open(); err != nil {
		return false, err
	}
	name := c.keyName(key)
	hash := c.local.hash(name)
	it := &item[V]{name: name, value: value, flags: flagWritten}
	if c.src.Clone != nil {
		it.value = c.src.Clone(value)
	}
	if c.remote == nil {
		return c.writeLocal(it, hash, add), nil
	}
	token := c.remote.token()
	s, err := c.seal(it, token)
	if err != nil {
		return false, c.wrap(name, err)
	}
	c.guard.add(name)
	m := c.local.bump(hash)
	it.version, err = c.remote.write(ctx, name, s, token, add)
	if err != nil {
		c.forget(name, hash)
		if !add || errors.Is(err, ErrUnknown) {
			c.redo.add(name)
		}
		return false, c.wrap(name, err)
	}
	if it.version == 0 { // Add found something
		return false, nil
	}
	c.redo.done(name)
	c.date(it, m.at, s.fresh, s.soft, s.soft != 0)
	if c.bus.cut() {
		it.expires = min(it.expires, m.at+instant(cutTTL))
	}
	c.local.write(hash, it, m)
	c.flights.detach(name, hash)
	c.flights.thaw(name, hash)
	return true, nil
}

// writeLocal is write without Redis.
func (c *Cache[K, V]) writeLocal(it *item[V], hash uint64, add bool) bool {
	c.guard.add(it.name)
	s, _ := c.seal(it, "") // nothing is written down
	now := c.local.now()
	c.date(it, now, s.fresh, s.soft, s.soft != 0)
	if !c.local.set(hash, it, add) {
		return false
	}
	c.flights.detach(it.name, hash)
	c.flights.thaw(it.name, hash)
	return true
}

// forget removes a name from this process. What is being read or loaded now is
// answered to those who asked before, and kept nowhere here.
func (c *Cache[K, V]) forget(name string, hash uint64) {
	c.local.clear(name, hash)
	c.flights.detach(name, hash)
}

// Delete removes keys from all levels, after the source was changed: call it when
// that is committed. It may be called any number of times, by a consumer of the
// database's log for example.
//
// Once it returns nil, no load that began earlier enters Redis or the local level of
// this process (Options.Mode Lease; without Redis too), and no Get that begins then is
// answered from one. Other processes hear of it within a round trip; one that is cut
// off from Redis may answer the old value for four seconds.
//
// After an error, which is a *BatchError where there were several keys, this
// process has forgotten the keys all the same, and tries in the background to
// delete them from Redis until that succeeds. One shared round trip.
func (c *Cache[K, V]) Delete(ctx context.Context, keys ...K) error {
	if err := c.open(); err != nil {
		return err
	}
	if len(keys) == 0 {
		return nil
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = c.keyName(key)
	}
	errs := c.dropNames(ctx, names)
	failed := &BatchError[K]{Errors: map[K]error{}}
	for i, err := range errs {
		if err != nil {
			c.redo.add(names[i])
			failed.Errors[keys[i]] = c.wrap(names[i], err)
		}
	}
	switch {
	case len(failed.Errors) == 0:
		return nil
	case len(keys) == 1:
		return failed.Errors[keys[0]]
	}
	return failed
}

// dropNames deletes names from all levels and returns an error for each.
//
// The order is what Delete's promise rests on. A read or load that was under way
// took its mark before the first step, or before the second had happened in
// Redis: in both cases the third makes it old. With the local level cleared
// first, a reader in between would bring the old value back for its whole TTL.
func (c *Cache[K, V]) dropNames(ctx context.Context, names []string) []error {
	for _, name := range names {
		c.guard.add(name) // whoever made it says so by deleting it
		c.local.bump(c.local.hash(name))
	}
	errs := make([]error, len(names))
	if c.remote != nil {
		errs = c.remote.drop(ctx, names, false)
	}
	for i, name := range names {
		c.forget(name, c.local.hash(name))
		if errs[i] == nil && c.redo != nil {
			c.redo.done(name)
		}
	}
	c.stats.deletes.Add(uint64(len(names)))
	return errs
}

// DeleteTwice is Delete, and again after that time: for what a single one cannot
// exclude. A loader that reads from a lagging replica, or a Delete that was sent
// before the database committed, can bring the old value back; the second one
// removes it. Stats.LoadP99 tells how long a load takes until it is stored: the
// time should be the replica's lag and a few times that.
//
// The second delete is given to Source.Later. If that is nil, a timer of this process
// does it, at most Options.Pending at a time (ErrOverloaded), and Close does it at
// once.
func (c *Cache[K, V]) DeleteTwice(ctx context.Context, after time.Duration, keys ...K) error {
	if after <= 0 {
		return fmt.Errorf("%w: DeleteTwice after %v, want more than 0", ErrInvalid, after)
	}
	return errors.Join(c.Delete(ctx, keys...), c.later(ctx, after, keys))
}

func (c *Cache[K, V]) later(ctx context.Context, after time.Duration, keys []K) error {
	keys = append([]K(nil), keys...) // the caller may change its slice
	if c.src.Later != nil {
		if err := c.src.Later(ctx, after, keys); err != nil {
			return fmt.Errorf("cache: %q: second delete: %w", c.name, err)
		}
		return nil
	}
	n := int64(len(keys))
	if c.twice.Add(n) > int64(c.opts.Pending) {
		c.twice.Add(-n)
		return fmt.Errorf("%w: %d keys wait for their second delete in cache %q", ErrOverloaded, c.opts.Pending, c.name)
	}
	names := make([]string, n)
	for i, key := range keys {
		names[i] = c.keyName(key)
	}
	ok := c.group.Go(func(ctx context.Context) {
		defer c.twice.Add(-n)
		t := time.NewTimer(after)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.closing:
		}
		for i, err := range c.dropNames(ctx, names) {
			if err != nil {
				c.redo.add(names[i])
			}
		}
	})
	if !ok {
		c.twice.Add(-n)
		return c.open()
	}
	return nil
}

// Refresh loads key now, whatever is there, stores it, and returns it. A load of
// the key that is under way is not stored. An error leaves what is there, but for
// ErrNotFound. Without a loader it is ErrInvalid.
func (c *Cache[K, V]) Refresh(ctx context.Context, key K) (v V, err error) {
	if err := c.open(); err != nil {
		return v, err
	}
	if c.src.Load == nil {
		return v, fmt.Errorf("%w: Refresh of cache %q, whose Source.Load is nil", ErrInvalid, c.name)
	}
	name := c.keyName(key)
	f := &flight[K, V]{key: key, name: name, hash: c.local.hash(name), force: true, done: make(chan struct{}), waiters: 1}
	c.fly(ctx, f, nil)
	select {
	case <-f.done:
	case <-ctx.Done():
		c.flights.leave(f, c.opts.CancelAbandoned)
		return v, c.wrap(name, ctx.Err())
	}
	if f.err != nil {
		return v, c.wrap(name, f.err)
	}
	return c.answer(f.it)
}

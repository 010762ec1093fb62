package cache

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// warmBatch is how many keys are warmed at a time.
const warmBatch = 500

// RunWarm keeps keys warm that must never miss: every so often, at most TTL/2, it
// brings what Redis has into the local level, and loads again what would expire
// before the next time. What it loads never replaces what was written or deleted
// meanwhile. It returns nil when ctx ends.
//
// Every process that serves the keys runs it; they load each key once together.
// A key that fails is tried again the next time. Its entry expires if it fails for so long.
func (c *Cache[K, V]) RunWarm(ctx context.Context, every time.Duration, keys func(context.Context) ([]K, error)) error {
	if c.src.Load == nil {
		return fmt.Errorf("%w: RunWarm of cache %q, whose Source.Load is nil", ErrInvalid, c.name)
	}
	if every < time.Millisecond || every > c.opts.TTL/2 {
		return fmt.Errorf("%w: RunWarm every %v, want 1ms to TTL/2 = %v", ErrInvalid, every, c.opts.TTL/2)
	}
	if keys == nil {
		return fmt.Errorf("%w: RunWarm of cache %q without keys", ErrInvalid, c.name)
	}
	for {
		if err := c.open(); err != nil {
			return err
		}
		list, err := keys(ctx)
		if err != nil && ctx.Err() == nil {
			c.opts.Logger.Warn("cache: no keys to warm", "cache", c.name, "error", err)
		}
		for batch := range slices.Chunk(list, warmBatch) {
			if ctx.Err() == nil {
				c.warm(ctx, batch, every)
			}
		}
		if !sleep(ctx, every) {
			return nil
		}
	}
}

// warm does one batch. A key that lasts until some time after the next round is
// left as it is.
func (c *Cache[K, V]) warm(ctx context.Context, keys []K, every time.Duration) {
	enough := every + every/4
	var claims []claim[K, V]
	var names []string
	for _, key := range keys {
		name := c.keyName(key)
		f := &flight[K, V]{key: key, name: name, hash: c.local.hash(name), quiet: true, done: make(chan struct{})}
		cl := claim[K, V]{f: f, m: c.local.mark(f.hash)}
		if c.remote == nil {
			if it := c.local.get(name, f.hash); it != nil && it.hard-cl.m.at >= instant(enough) {
				continue
			}
		}
		claims, names = append(claims, cl), append(names, name)
	}
	if c.remote == nil {
		c.loadMany(ctx, claims)
		return
	}
	entries, err := c.remote.readMany(ctx, names)
	if err != nil {
		c.opts.Logger.Warn("cache: not warmed", "cache", c.name, "keys", len(keys), "error", err)
		return
	}
	var short []claim[K, V]
	for i, cl := range claims {
		it := c.take(cl.f, entries[i], cl.m)
		if it == nil || it.hard-cl.m.at < instant(enough) {
			short = append(short, cl)
		}
	}
	if len(short) == 0 {
		return
	}
	c.claimMany(ctx, short)
	for _, cl := range short {
		select {
		case <-cl.f.done:
		case <-ctx.Done():
			return
		}
		if cl.f.err != nil {
			c.opts.Logger.Warn("cache: not warmed", "cache", c.name, "key", cl.f.name, "error", cl.f.err)
		}
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bits-and-blooms/bloom/v3"
)

// falseGuard is the part of the keys which do not exist that the guard lets pass.
const falseGuard = 0.01

// errDistrusted ends a rebuild during which a key may have been missed.
var errDistrusted = errors.New("deletes of other processes may have been missed meanwhile")

// A guard knows which keys may exist. It is a Bloom filter: it never excludes a
// key that it was told. It excludes nothing as long as it cannot know: before it
// was filled, and after a key that another process made may have been missed.
type guard struct {
	ready atomic.Bool

	mu         sync.RWMutex
	now        *bloom.BloomFilter // what is asked; nil: not filled
	next       *bloom.BloomFilter // what is being filled
	distrusted bool               // next is worthless
}

func (g *guard) excludes(name string) bool {
	if !g.ready.Load() {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.now != nil && !g.now.TestString(name)
}

// add takes in a key that may be new. It must be called before anybody can find
// the key in Redis.
func (g *guard) add(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now != nil {
		g.now.AddString(name)
	}
	if g.next != nil {
		g.next.AddString(name)
	}
}

func (g *guard) distrust() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready.Store(false)
	g.now, g.distrusted = nil, true
}

// rebuild fills a second filter while the first one serves, and puts it in its
// place. What is added meanwhile goes into both. It returns how many names it took.
func (g *guard) rebuild(size int, names iter.Seq2[string, error]) (n int, err error) {
	g.mu.Lock()
	g.next, g.distrusted = bloom.NewWithEstimates(uint(size), falseGuard), false
	g.mu.Unlock()
	for name, e := range names {
		if err = e; err != nil {
			break
		}
		n++
		g.mu.Lock()
		g.next.AddString(name)
		g.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.distrusted && err == nil {
		err = errDistrusted
	}
	if err == nil {
		g.now = g.next
		g.ready.Store(true)
	}
	g.next = nil
	return n, err
}

// RunGuard keeps a Bloom filter of the keys that the source has, and builds it anew
// every so often, so that keys which do not exist are ErrNotFound without a question to
// Redis or the source. It returns nil when ctx ends. keys goes through all keys of the
// source.
//
// Whoever makes a key in the source tells the cache: Set, Add and Delete, in any
// process, let it pass. Until the filter is full for the first time, and whenever
// another process's message may have been missed, everything passes; the filter is then
// built anew at once. That a message was missed is known after three seconds: until
// then a key that another process made may be ErrNotFound. About one in a hundred keys
// that do not exist passes.
//
// A key that waits to be written behind passes in the process that wrote it. Another one
// that builds its filter before the key is stored takes it for ErrNotFound until it builds
// the next one, or hears of the key again.
func (c *Cache[K, V]) RunGuard(ctx context.Context, every time.Duration, keys func(context.Context) iter.Seq2[K, error]) error {
	if every < time.Millisecond {
		return fmt.Errorf("%w: RunGuard every %v, want at least 1ms", ErrInvalid, every)
	}
	if keys == nil {
		return fmt.Errorf("%w: RunGuard of cache %q without keys", ErrInvalid, c.name)
	}
	size := c.opts.Guard
	for {
		if err := c.open(); err != nil {
			return err
		}
		err := errDistrusted
		if !c.bus.cut() {
			var n int
			n, err = c.guard.rebuild(size, c.names(ctx, keys))
			size = max(size, n+n/5) // the next one has room for what there is
		}
		pause := every
		if err != nil {
			pause = min(every, time.Second)
			if ctx.Err() == nil && !errors.Is(err, errDistrusted) {
				c.opts.Logger.Warn("cache: the guard was not rebuilt", "cache", c.name, "error", err)
			}
		}
		for begun := time.Now(); time.Since(begun) < pause; {
			if !sleep(ctx, min(time.Second, pause-time.Since(begun))) {
				return nil
			}
			if !c.guard.ready.Load() {
				break
			}
		}
	}
}

// names returns what a rebuild takes in: first what waits to be written behind, which
// the source may not have yet. Both are asked for only when the rebuild goes through
// them, and so takes note of what is added from then on.
func (c *Cache[K, V]) names(ctx context.Context, keys func(context.Context) iter.Seq2[K, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range c.behind.names() {
			if !yield(name, nil) {
				return
			}
		}
		for key, err := range keys(ctx) {
			name := ""
			if err == nil {
				name = c.keyName(key)
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

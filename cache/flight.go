package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A flight finds out one key for all who ask for it at the same time. It is
// ended by whoever flies it; the fields above done are its own until then, and
// everybody's afterwards.
type flight[K, V any] struct {
	key  K
	name string
	hash uint64

	seen  string   // which entry Redis had; see entryName
	old   *item[V] // it, if it is stale
	oldAt mark     // when that was read
	force bool     // load whatever Redis has
	quiet bool     // nobody waits: give up where another process loads

	it  *item[V]
	err error

	done chan struct{}

	// Guarded by the shard's lock.
	waiters int
	cancel  context.CancelFunc // nil until it flies by itself
}

// flights holds the flights under way, at most one a key, and the keys whose
// last load failed.
type flights[K, V any] struct {
	shards    [64]shard[K, V]
	most      int                                // waiters of one flight
	unchanged func(hash uint64, since mark) bool // nothing was deleted since
}

type shard[K, V any] struct {
	mu         sync.Mutex
	flights    map[string]*flight[K, V]
	refreshing map[string]struct{}
	cool       map[string]*cooldown[V]
}

// A cooldown is the time in which a key is not loaded again.
type cooldown[V any] struct {
	until, forget time.Time
	failures      int
	err           error
	old           *item[V] // what Redis had, if it is stale
}

// maxCooling bounds the cool-downs of a shard.
const maxCooling = 1024

func newFlights[K, V any](most int, unchanged func(hash uint64, since mark) bool) *flights[K, V] {
	fs := &flights[K, V]{most: most, unchanged: unchanged}
	for i := range fs.shards {
		s := &fs.shards[i]
		s.flights = make(map[string]*flight[K, V])
		s.refreshing = make(map[string]struct{})
		s.cool = make(map[string]*cooldown[V])
	}
	return fs
}

// The local level takes the lowest bits of the hash for its stripes.
func (fs *flights[K, V]) shard(hash uint64) *shard[K, V] { return &fs.shards[hash>>32%64] }

// join returns the flight of name, and whether the caller has to fly it. The
// error is that of a load that failed a moment ago, with what was stale then, or
// ErrOverloaded.
func (fs *flights[K, V]) join(key K, name string, hash uint64) (f *flight[K, V], lead bool, old *item[V], err error) {
	s := fs.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[name]; f != nil {
		if f.waiters >= fs.most {
			return nil, false, nil, fmt.Errorf("%w: %d callers wait for this key", ErrOverloaded, f.waiters)
		}
		f.waiters++
		return f, false, nil, nil
	}
	if c := s.cooling(name); c != nil {
		return nil, false, c.old, c.err
	}
	f = &flight[K, V]{key: key, name: name, hash: hash, done: make(chan struct{}), waiters: 1}
	s.flights[name] = f
	return f, true, nil, nil
}

// leave takes one waiter out. If it was the last, and stop is set, the flight
// is cancelled and forgotten.
func (fs *flights[K, V]) leave(f *flight[K, V], stop bool) {
	s := fs.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.waiters--
	if f.waiters == 0 && stop && f.cancel != nil {
		s.forget(f)
		f.cancel()
	}
}

// alone reports whether nobody but its leader waits for f, which is then
// forgotten.
func (fs *flights[K, V]) alone(f *flight[K, V]) bool {
	s := fs.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters > 1 {
		return false
	}
	s.forget(f)
	return true
}

// takeOff says how to cancel f, which happens at once if stop is set and all have
// left by now.
func (fs *flights[K, V]) takeOff(f *flight[K, V], cancel context.CancelFunc, stop bool) {
	s := fs.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.cancel = cancel
	if f.waiters == 0 && stop {
		s.forget(f)
		cancel()
	}
}

// end wakes all who wait. What f found must be in the local level before: who
// comes next does not find f, and looks there.
func (fs *flights[K, V]) end(f *flight[K, V], it *item[V], err error) {
	f.it, f.err = it, err
	s := fs.shard(f.hash)
	s.mu.Lock()
	s.forget(f)
	s.mu.Unlock()
	close(f.done)
}

func (s *shard[K, V]) forget(f *flight[K, V]) {
	if s.flights[f.name] == f {
		delete(s.flights, f.name)
	}
}

// detach lets the flight of name end without anybody joining it any more: what
// it found may be what was just deleted. What is kept for a cool-down may be too.
func (fs *flights[K, V]) detach(name string, hash uint64) {
	s := fs.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, name)
	if c := s.cool[name]; c != nil {
		c.old = nil
	}
}

// refresh reports whether the caller shall load name in the background, and has
// to call refreshed then.
func (fs *flights[K, V]) refresh(name string, hash uint64) bool {
	s := fs.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.refreshing[name]; ok || s.cooling(name) != nil {
		return false
	}
	s.refreshing[name] = struct{}{}
	return true
}

func (fs *flights[K, V]) refreshed(name string, hash uint64) {
	s := fs.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refreshing, name)
}

// cooling returns why name is not loaded now, or nil.
func (s *shard[K, V]) cooling(name string) *cooldown[V] {
	if len(s.cool) == 0 {
		return nil
	}
	if c := s.cool[name]; c != nil && time.Now().Before(c.until) {
		return c
	}
	return nil
}

// chill begins a cool-down of f's key: as long as left, or if that is 0, twice as
// long as the last one, less up to a fifth.
func (fs *flights[K, V]) chill(f *flight[K, V], left time.Duration, err error) {
	s := fs.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	c := s.cool[f.name]
	if c == nil {
		if len(s.cool) >= maxCooling {
			s.sweep(now)
		}
		c = &cooldown[V]{}
		s.cool[f.name] = c
	} else if now.After(c.forget) {
		c.failures = 0
	}
	if left == 0 {
		left = min(maxCool, firstCool<<min(c.failures, 10))
		left -= rand.N(left / 5)
	}
	c.failures++
	c.until, c.forget, c.err = now.Add(left), now.Add(2*left+maxCool), err
	// A delete bumps the generation first and comes by here, at detach, after
	// that: whichever of the two is first, what was deleted does not stay.
	c.old = nil
	if f.old != nil && fs.unchanged(f.hash, f.oldAt) {
		c.old = f.old
	}
}

// sweep makes room: what is over goes, or else anything.
func (s *shard[K, V]) sweep(now time.Time) {
	for name, c := range s.cool {
		if now.After(c.forget) {
			delete(s.cool, name)
		}
	}
	for name := range s.cool {
		if len(s.cool) < maxCooling {
			return
		}
		delete(s.cool, name)
	}
}

// thaw ends the cool-down of name: a load succeeded, or a writer came.
func (fs *flights[K, V]) thaw(name string, hash uint64) {
	s := fs.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cool, name)
}

package cache

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spillway-go/spillway/internal/topk"
)

const (
	hotKeys = 32
	// hotShare is the part of the samples from which a key is hot.
	hotShare = 0.005
	// hotRound is after how many samples it is decided again what is hot, and what
	// was counted counts half.
	hotRound = 2048
	// One Get in so many is a sample, a power of two.
	sampleEvery = 64
)

// heat finds the keys that are asked for most. They are pinned in the local
// level: a store that is full of other hot keys must not refuse or evict what a
// hundredth of all callers asks for.
type heat struct {
	names atomic.Pointer[map[string]struct{}] // those that are hot

	mu      sync.Mutex
	sketch  *topk.Sketch
	samples int
}

// sample counts one Get, and reports whether it was decided anew what is hot.
func (h *heat) sample(name string, hash uint64) bool {
	if !h.mu.TryLock() {
		return false // a sample more or less
	}
	defer h.mu.Unlock()
	if h.sketch == nil {
		h.sketch = topk.New(hotKeys, rand.Uint64()|1)
	}
	h.sketch.Add(name, hash)
	if h.samples++; h.samples < hotRound {
		return false
	}
	h.samples = 0
	hot := map[string]struct{}{}
	for i := range h.sketch.Len() {
		if key, _, count := h.sketch.At(i); float64(count) >= hotShare*h.sketch.Total() {
			hot[string(key)] = struct{}{}
		}
	}
	h.sketch.Halve()
	h.names.Store(&hot)
	return true
}

func (h *heat) has(name string) bool {
	names := h.names.Load()
	if names == nil {
		return false
	}
	_, ok := (*names)[name]
	return ok
}

func (h *heat) list() []string {
	var out []string
	if names := h.names.Load(); names != nil {
		for name := range *names {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Hot returns the names of the keys that this process is asked for most, in
// alphabetical order: those of at least one Get in 200, at most 32. They stay in the
// local level until their TTL, however full it is.
func (c *Cache[K, V]) Hot() []string { return c.local.heat.list() }

// pinHot pins what is hot now, and nothing else.
func (l *local[V]) pinHot() {
	l.overlay.unpin(l.heat.has)
	for _, name := range l.heat.list() {
		hash := l.hash(name)
		s := l.stripe(hash)
		s.mu.Lock() // no delete may come between
		if it := l.get(name, hash); it != nil {
			l.overlay.keepPinned(it)
		}
		s.mu.Unlock()
	}
}

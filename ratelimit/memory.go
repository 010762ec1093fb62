package ratelimit

import (
	"crypto/sha256"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	noteShards = 64
	maxNotes   = 1024 // of a shard
	maxDenials = 4    // of a key
	maxKept    = 200  // bytes of a key; longer ones are kept as a hash

	// keepReset is how long, in ns, a note remembers that units came back: longer than
	// any answer can be on its way.
	keepReset = int64(30e9)
)

// Notes are what this process knows of keys on Redis: denials that still hold, and
// leases. There are 65,536 at most; where more are needed some are forgotten, which
// costs round trips and, of a lease, the units left in it.
type notes struct {
	seed   maphash.Seed
	shards [noteShards]noteShard
}

type noteShard struct {
	mu    sync.RWMutex
	notes map[string]*note
	_     [24]byte // two shards do not share a cache line
}

type note struct {
	key     string // in Redis
	denials atomic.Pointer[[]denial]
	lease   atomic.Pointer[lease]
	leases  leasing

	mu      sync.Mutex
	resetAt int64 // answers to what was sent before say nothing any more
}

// A denial holds for n units and more.
type denial struct {
	verdict

	n, until int64
	resetBy  int64
}

func (s *notes) shard(key string) *noteShard {
	return &s.shards[maphash.String(s.seed, key)%noteShards]
}

// kept is the name under which a key is remembered.
func kept(key string) string {
	if len(key) <= maxKept {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return strings.Repeat("#", maxKept) + string(sum[:]) // longer than any that is kept as it is
}

// find returns the note of a key, nil if there is none. It does not allocate.
func (s *notes) find(key string) *note {
	key = kept(key)
	h := s.shard(key)
	h.mu.RLock()
	n := h.notes[key]
	h.mu.RUnlock()
	return n
}

// make returns the note of a key, a new one if there is none.
func (s *notes) make(key, redisKey string, now int64) *note {
	if n := s.find(key); n != nil {
		return n
	}
	key = kept(key)
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.notes[key]; n != nil {
		return n
	}
	if len(h.notes) >= maxNotes {
		h.sweep(now)
	}
	if h.notes == nil {
		h.notes = make(map[string]*note)
	}
	n := &note{key: redisKey, resetAt: -keepReset, leases: leasing{asked: -keepReset}}
	h.notes[strings.Clone(key)] = n
	return n
}

func (s *notes) each(f func(*note)) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.RLock()
		for _, n := range h.notes {
			f(n)
		}
		h.mu.RUnlock()
	}
}

// sweep forgets what is over, and if that is little, a quarter of the rest.
func (h *noteShard) sweep(now int64) {
	for key, n := range h.notes {
		if n.over(now) {
			delete(h.notes, key)
		}
	}
	for key := range h.notes {
		if len(h.notes) <= maxNotes*3/4 {
			return
		}
		delete(h.notes, key)
	}
}

func (n *note) over(now int64) bool {
	if d := n.denials.Load(); d != nil {
		for i := range *d {
			if (*d)[i].until > now {
				return false
			}
		}
	}
	if le := n.lease.Load(); le != nil && le.until > now {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.resetAt+keepReset < now && n.leases.asked+keepReset < now
}

// denied fills in v if a denial holds for a call for units.
func (n *note) denied(units, now int64, v *verdict) bool {
	d := n.denials.Load()
	if d == nil {
		return false
	}
	for i := len(*d) - 1; i >= 0; i-- { // the largest cost tells most
		if e := &(*d)[i]; e.n <= units && e.until > now {
			*v = e.verdict
			v.us = (e.until - now + 999) / 1000
			v.reset = max(0, e.resetBy-now) / 1000
			return true
		}
	}
	return false
}

// deny remembers v, with which a call for units was denied that was sent then.
func (n *note) deny(units int64, v verdict, sent, now int64) {
	until := sent + v.us*1000
	if until <= now {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if sent <= n.resetAt {
		return
	}
	v.granted, v.state = 0, ""
	fresh := denial{verdict: v, n: units, until: until, resetBy: sent + v.reset*1000}
	list := make([]denial, 0, maxDenials)
	if old := n.denials.Load(); old != nil {
		for _, e := range *old {
			// One that a smaller cost outlasts says nothing any more.
			if e.until > now && e.n != units && (e.n < units || e.until > until) {
				list = append(list, e)
			}
		}
	}
	at := len(list)
	for at > 0 && list[at-1].n > units {
		at--
	}
	if len(list) == maxDenials {
		list = list[:maxDenials-1] // the largest is the rarest
		at = min(at, len(list))
	}
	list = append(list, denial{})
	copy(list[at+1:], list[at:])
	list[at] = fresh
	n.denials.Store(&list)
}

// reset forgets all that was known of key before now.
func (s *notes) reset(key, redisKey string, now int64) {
	n := s.make(key, redisKey, now)
	n.forget(now)
	n.lease.Store(nil)
}

// forget forgets the denials before now, as units came back. What was leased stays taken.
func (n *note) forget(now int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resetAt = now
	n.denials.Store(nil)
}

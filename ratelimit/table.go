package ratelimit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tableShards = 64
	minSlots    = 64 // of a shard, twice as many as the buckets that are kept without asking

	// sweepEvery is how long, in µs, buckets that are over stay at most in a shard to
	// which new ones come, so that a flood of keys is forgotten when it is over.
	sweepEvery = int64(time.Minute / time.Microsecond)
)

// A table finds the bucket of a key without a lock: a hash table with open addressing,
// in shards. Nothing is ever taken out of an array: what is over is left behind when
// the next one is made, and says of itself that it is gone. A map would need a lock for
// readers, which all processors write to, and would hash each key again.
type table struct {
	seed   maphash.Seed
	shards [tableShards]tableShard
}

type tableShard struct {
	slots atomic.Pointer[slots] // nil: none was needed yet

	mu    sync.Mutex // of those who add
	n     int
	swept int64    // µs, when last
	takes int64    // more than any bucket had that is gone
	_     [24]byte // two shards do not share a cache line
}

// slots are a power of two, at least half of them nil.
type slots []atomic.Pointer[bucket]

func (t *table) hash(key string) uint64 { return maphash.String(t.seed, key) }

func (t *table) shard(hash uint64) *tableShard { return &t.shards[hash%tableShards] }

// find returns the bucket of a key, nil if there is none. It does not allocate. The
// bucket may be gone by the time it is locked.
func (s *tableShard) find(key string, hash uint64) *bucket {
	p := s.slots.Load()
	if p == nil {
		return nil
	}
	b, _ := p.find(key, hash)
	return b
}

func (p slots) find(key string, hash uint64) (b *bucket, slot uint64) {
	mask := uint64(len(p) - 1)
	for slot = hash >> 32 & mask; ; slot = (slot + 1) & mask { // the low bits chose the shard
		b = p[slot].Load()
		if b == nil || b.hash == hash && b.key == key {
			return b, slot
		}
	}
}

// add returns the bucket of a key, a new one if there is none. It waits for a sweep to
// end, so that nobody spins on a bucket that is gone.
func (s *tableShard) add(l *local, key string, hash uint64) *bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.find(key, hash); b != nil {
		return b
	}
	now := l.now()
	if p := s.slots.Load(); p == nil || 2*(s.n+1) > len(*p) || now-s.swept > sweepEvery {
		s.sweep(l.rules, now)
	}
	b := newBucket(len(l.rules))
	b.key, b.hash, b.takes = key, hash, s.takes
	p := *s.slots.Load()
	_, slot := p.find(key, hash)
	p[slot].Store(b)
	s.n++
	return b
}

// sweep makes a new array, without the buckets in which everything is there again: they
// are like new ones. A quarter of it is used then, so that it costs each bucket that
// is added no more than looking at a few.
func (s *tableShard) sweep(rules []rule, now int64) {
	var kept []*bucket
	if p := s.slots.Load(); p != nil {
		for i := range *p {
			b := (*p)[i].Load()
			if b == nil {
				continue
			}
			if b.forget(rules, now) {
				s.takes = max(s.takes, b.takes+1)
			} else {
				kept = append(kept, b)
			}
		}
	}
	size := minSlots
	for size < 4*len(kept) {
		size *= 2
	}
	p := make(slots, size)
	for _, b := range kept {
		_, slot := p.find(b.key, b.hash)
		p[slot].Store(b)
	}
	s.n, s.swept = len(kept), now
	s.slots.Store(&p)
}

package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

// A local limits within the process. Its clock is monotonic and starts with it, so
// that no step of the machine's clock reaches it.
type local struct {
	rules []rule
	base  time.Time
	table table
}

// A bucket is the state of one key: a meter per limit. What a call needs of it under one
// GCRA limit, the usual case, is in its first 64 bytes: one cache line, since Go aligns
// what has 128 bytes to as many.
type bucket struct {
	hash  uint64
	key   string
	mu    sync.Mutex
	takes int64 // the number of the last one, which no earlier bucket of the key had
	gone  bool  // the table has forgotten it, for ever

	one  [1]meter // where there is one limit
	more *meters  // where there are several
}

func newLocal(rules []rule) *local {
	return &local{rules: rules, base: time.Now(), table: table{seed: maphash.MakeSeed()}}
}

func newBucket(limits int) *bucket {
	b := &bucket{}
	if limits > 1 {
		m := make(meters, limits)
		b.more = &m
	}
	return b
}

// meters returns one for each limit. The bucket is locked.
func (b *bucket) meters(rules []rule) meters {
	if len(rules) == 1 {
		return b.one[:]
	}
	return *b.more
}

func (l *local) now() int64 { return time.Since(l.base).Microseconds() }

// take decides one run.
func (l *local) take(key string, q run, v *verdict) {
	if len(key) > maxKept { // before the call, which is not inlined
		key = kept(key)
	}
	hash := l.table.hash(key)
	s := l.table.shard(hash)
	b := s.find(key, hash)
	for b == nil || !b.take(l, q, v) {
		if q.n == 0 {
			b = newBucket(len(l.rules)) // a look leaves nothing behind
		} else {
			b = s.add(l, key, hash)
		}
	}
}

// take decides one run, unless the bucket is gone.
func (b *bucket) take(l *local, q run, v *verdict) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return false
	}
	now := l.now() // under the lock: it must not go backwards
	if b.meters(l.rules).decide(l.rules, q, now, v) {
		b.takes++
	}
	v.takes = b.takes
	return true
}

// bucket returns that of a key, nil if there is none.
func (l *local) bucket(key string) *bucket {
	key = kept(key)
	hash := l.table.hash(key)
	return l.table.shard(hash).find(key, hash)
}

// forget marks the bucket as gone if everything is there again.
func (b *bucket) forget(rules []rule, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = b.meters(rules).ready(rules, now) <= now
	return b.gone
}

// reset makes everything of key available again. Turns given before cannot be given
// back afterwards.
func (l *local) reset(key string) {
	b := l.bucket(key)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gone {
		clear(b.meters(l.rules))
		b.takes++
	}
}

// giveBack undoes a taking of n units, as giveback.lua does: if it was the last.
func (l *local) giveBack(key string, n, takes int64, f *found) {
	b := l.bucket(key)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone || b.takes != takes {
		return
	}
	b.takes++
	if m := b.meters(l.rules); f != nil {
		copy(m, f.meters)
	} else {
		m.giveBack(l.rules, n)
	}
}

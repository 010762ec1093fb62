package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	localShards = 64
	minSweep    = 256 // buckets of a shard that are kept without asking
)

// A local limits within the process. Its clock is monotonic and starts with it, so
// that no step of the machine's clock reaches it.
type local struct {
	rules  []rule
	base   time.Time
	seed   maphash.Seed
	shards [localShards]localShard
}

type localShard struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	sweepAt int
	takes   int64    // so far
	_       [32]byte // two shards do not share a cache line
}

// A bucket is the state of one key: a meter per limit.
type bucket struct {
	meters []meter
	takes  int64    // the number of the last one in the shard
	one    [1]meter // where the only one is
}

func newLocal(rules []rule) *local {
	l := &local{rules: rules, base: time.Now(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].buckets = make(map[string]*bucket)
		l.shards[i].sweepAt = minSweep
	}
	return l
}

func (l *local) shard(key string) *localShard {
	return &l.shards[maphash.String(l.seed, key)%localShards]
}

// take decides one run.
func (l *local) take(key string, q run, v *verdict) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(l.base).Microseconds() // under the lock: it must not go backwards
	b := s.buckets[key]
	if b == nil {
		if q.n == 0 {
			b = l.newBucket() // a look leaves nothing behind
		} else {
			b = s.create(l, key, now)
		}
	}
	for i := range b.meters {
		b.meters[i].advance(&l.rules[i], now)
	}
	if b.decide(l.rules, q, now, v) {
		s.takes++
		b.takes = s.takes
	}
	v.takes = b.takes
}

func (l *local) newBucket() *bucket {
	b := &bucket{}
	b.meters = b.one[:]
	if len(l.rules) > 1 {
		b.meters = make([]meter, len(l.rules))
	}
	return b
}

// create makes a bucket and, whenever their number has doubled, forgets those in
// which everything is there again: they are like new ones.
func (s *localShard) create(l *local, key string, now int64) *bucket {
	if len(s.buckets) >= s.sweepAt {
		for k, b := range s.buckets {
			if b.ready(l.rules, now) <= now {
				delete(s.buckets, k)
			}
		}
		s.sweepAt = max(minSweep, 2*len(s.buckets))
	}
	b := l.newBucket()
	s.buckets[key] = b
	return b
}

func (b *bucket) ready(rules []rule, now int64) int64 {
	last := now
	for i := range b.meters {
		b.meters[i].advance(&rules[i], now)
		last = max(last, b.meters[i].ready(&rules[i], now))
	}
	return last
}

// decide is the loop of take.lua. It reports whether anything was taken.
func (b *bucket) decide(rules []rule, q run, now int64, v *verdict) (taken bool) {
	v.granted, v.now = q.k, now
	v.left, v.limit = b.available(rules, now)
	if q.n == 0 {
		if v.left == 0 {
			v.us, _ = b.delay(rules, now, 1)
		}
	} else {
		v.granted = min(q.k, v.left/q.n)
		taken = v.granted > 0
		if taken {
			b.charge(rules, now, v.granted*q.n)
		}
		v.left -= v.granted * q.n
		if v.granted < q.k {
			v.us, v.limit = b.delay(rules, now, q.n)
			if q.wait > 0 && v.us <= q.wait {
				b.charge(rules, now+v.us, q.n)
				v.granted, taken = 1, true
				v.left, v.limit = b.available(rules, now)
			}
		}
	}
	v.reset = max(0, b.meters[v.limit].ready(&rules[v.limit], now)-now)
	return taken
}

func (b *bucket) available(rules []rule, now int64) (least int64, limit int) {
	for i := range b.meters {
		if n := b.meters[i].available(&rules[i], now); i == 0 || n < least {
			least, limit = n, i
		}
	}
	return least, limit
}

func (b *bucket) delay(rules []rule, now, n int64) (longest int64, limit int) {
	for i := range b.meters {
		if us := b.meters[i].delay(&rules[i], now, n); us > longest {
			longest, limit = us, i
		}
	}
	return longest, limit
}

func (b *bucket) charge(rules []rule, at, n int64) {
	for i := range b.meters {
		b.meters[i].charge(&rules[i], at, n)
	}
}

func (l *local) reset(key string) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets, key)
}

// giveBack undoes a taking of n units, as giveback.lua does: if it was the last.
func (l *local) giveBack(key string, n, takes int64) {
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[key]
	if b == nil || b.takes != takes {
		return
	}
	s.takes++
	b.takes = s.takes
	for i := range b.meters {
		r, m := &l.rules[i], &b.meters[i]
		us, part := r.costs(n)
		if m.part < part {
			m.tat, m.part = m.tat-1, m.part+r.c
		}
		m.tat, m.part = m.tat-us, m.part-part
	}
}

package cache

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
)

// Stats are counters of this process since New, and the state of the moment. They are
// read one by one.
type Stats struct {
	LocalHits, RedisHits uint64 // "not found" is a hit too
	Loads, LoadFailures  uint64
	Stale                uint64 // answers whose TTL was over
	Guarded              uint64 // answers of the guard: no such key
	Refused              uint64 // loads that were not kept: deleted or written meanwhile, or too slow
	Undecodable          uint64 // entries that this release or the codec did not understand
	Outages              uint64 // questions that Redis did not answer
	Deletes              uint64 // keys that were deleted here
	Heard                uint64 // keys that other processes deleted or wrote
	Gaps                 uint64 // times when the local level was flushed, as some may have been missed; 1 when it first hears
	CutOff               bool   // deletes of others are not heard now
	DeletesWaiting       int    // keys that failed to be deleted, and are tried again
	DeletesLost          uint64 // keys for which that was given up
	WritesWaiting        int    // keys that wait to be written behind
	Refreshing           int    // loads in the background now

	// LoadP99 is how long 99 of 100 loads took until they were stored, to a quarter.
	LoadP99 time.Duration
}

// Stats returns the counters. It does no I/O.
func (c *Cache[K, V]) Stats() Stats {
	s := &c.stats
	waiting, lost := c.redo.waiting()
	return Stats{
		LocalHits: c.local.hits.sum(), RedisHits: s.redis.Load(),
		Loads: s.loads.Load(), LoadFailures: s.failures.Load(),
		Stale: s.stale.Load(), Guarded: s.guarded.Load(), Refused: s.refused.Load(),
		Undecodable: s.undecodable.Load(), Outages: s.outages.Load(),
		Deletes: s.deletes.Load(), Heard: s.heard.Load(), Gaps: s.gaps.Load(), CutOff: c.bus.cut(),
		DeletesWaiting: waiting, DeletesLost: lost, WritesWaiting: c.behind.waiting(),
		Refreshing: int(s.refreshing.Load()), LoadP99: s.took.quantile(0.99),
	}
}

type counters struct {
	redis, loads, failures, stale, guarded, refused atomic.Uint64
	undecodable, outages, deletes, heard, gaps      atomic.Uint64
	refreshing                                      atomic.Int64
	took                                            histogram
}

// spread counts hits, and those who read at this moment, in many cache lines: one would
// be what all processors wait for at every hit.
type spread [64]struct {
	n       atomic.Uint64
	readers atomic.Int64 // much less than 0: shut
	_       [48]byte
}

const shut = -1 << 32

// enter reports whether to read. If so, leave must be called.
func (s *spread) enter(hash uint64) bool {
	if s[hash%64].readers.Add(1) > 0 {
		return true
	}
	s.leave(hash)
	return false
}

func (s *spread) leave(hash uint64) { s[hash%64].readers.Add(-1) }

// shut lets nobody read any more, and returns when all have left.
func (s *spread) shut() {
	for i := range s {
		s[i].readers.Add(shut)
		for s[i].readers.Load() != shut { // they never wait
			runtime.Gosched()
		}
	}
}

// add reports whether this is one of the few to look at.
func (s *spread) add(hash uint64) (sample bool) { return s[hash%64].n.Add(1)%sampleEvery == 0 }

func (s *spread) sum() (n uint64) {
	for i := range s {
		n += s[i].n.Load()
	}
	return n
}

// A histogram has four buckets for each power of two of microseconds.
type histogram [160]atomic.Uint64

func (h *histogram) add(d time.Duration) {
	us := uint64(max(4, d.Microseconds()))
	exp := bits.Len64(us) - 1
	h[min(len(h)-1, (exp-2)*4+int(us>>(exp-2)&3))].Add(1)
}

// quantile returns the upper end of the bucket in which the q-th part lies.
func (h *histogram) quantile(q float64) time.Duration {
	var total, sum uint64
	for i := range h {
		total += h[i].Load()
	}
	if total == 0 {
		return 0
	}
	for i := range h {
		if sum += h[i].Load(); float64(sum) >= q*float64(total) {
			return time.Duration(uint64(i%4+5)<<(i/4)) * time.Microsecond
		}
	}
	return 0
}

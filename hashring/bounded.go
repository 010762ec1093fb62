package hashring

import "github.com/cespare/xxhash/v2"

// maxRounds is how often Acquire goes round the ring for a place that others take
// before it can.
const maxRounds = 8

// Acquire returns the node that is to do the work for key now, and counts it there
// until done is called, which must happen exactly once. It is the node that has the
// key unless that would have more than ceil(Options.LoadFactor · average · weight)
// under way, then the next one clockwise that would not. It reports false, with a
// done that does nothing, only if the ring is empty.
//
// Work that is under way on nodes that went down or left counts towards the average.
//
// The algorithm is that of "Consistent Hashing with Bounded Loads" (Mirrokni,
// Thorup, Zadimoghaddam, 2016). No allocations: done was made with the node.
func (r *Ring) Acquire(key string) (n Node, done func(), ok bool) {
	x := r.index.Load()
	if len(x.members) == 0 {
		return Node{}, func() {}, false
	}
	// Counted before it is placed: the sum of the loads stays below the sum of the
	// bounds, so that there is always a node with room.
	total := r.underWay.Add(1)
	h := xxhash.Sum64String(key)
	m := x.owner(h)
	if !x.take(m, r.bound(x, m, total)) {
		m = r.displace(x, h)
		r.displaced.Add(1)
	}
	return x.nodes[m], x.members[m].done, true
}

// bound returns how much a member may have under way when all have total, in
// integers, which round the same everywhere.
func (r *Ring) bound(x *index, m int, total int64) int64 {
	all := 1000 * x.weight
	return (r.permill*total*int64(x.nodes[m].Weight) + all - 1) / all
}

// take counts one more unit on a member, if that keeps to its bound.
func (x *index) take(m int, bound int64) bool {
	load := &x.members[m].load
	for {
		now := load.Load()
		if now >= bound {
			return false
		}
		if load.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

// displace finds a member for a unit whose owner is full. Without concurrent calls
// the first round succeeds.
func (r *Ring) displace(x *index, h uint64) int {
	for range maxRounds {
		total := r.underWay.Load()
		for w := x.walk(h); ; {
			m, ok := w.next()
			if !ok {
				break
			}
			if x.take(m, r.bound(x, m, total)) {
				return m
			}
		}
	}
	least, best := 0, 0.0
	for i, w := 0, x.walk(h); ; i++ {
		m, ok := w.next()
		if !ok {
			break
		}
		if filled := float64(x.members[m].load.Load()) / float64(x.nodes[m].Weight); i == 0 || filled < best {
			least, best = m, filled
		}
	}
	x.members[least].load.Add(1)
	r.fallbacks.Add(1)
	return least
}

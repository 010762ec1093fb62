package hashring

// Stats are counters of this process since New, and the state of the moment.
type Stats struct {
	Nodes []NodeStats // by id
	// Points is how many points of the ring belong to nodes that are up.
	Points int
	// UnderWay is what was acquired and is not done, on nodes that have left too.
	UnderWay int64
	// Displaced counts the Acquires that did not get the node that has the key, and
	// Fallbacks those that took the least loaded node without regard to the bound.
	Displaced, Fallbacks uint64
}

// NodeStats are those of one node.
type NodeStats struct {
	ID    string
	Down  bool
	Share float64 // of all keys, 0 to 1
	Load  int64   // acquired and not done
}

// Stats returns the counters and how evenly the ring is spread. O(points): for
// dashboards, not for every request.
func (r *Ring) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.index.Load()
	s := Stats{Points: max(len(x.owners)-1, 0), UnderWay: r.underWay.Load(), Displaced: r.displaced.Load(), Fallbacks: r.fallbacks.Load()}
	shares := x.shares()
	for i, m := range r.members {
		s.Nodes = append(s.Nodes, NodeStats{ID: m.node.ID, Down: m.down, Share: shares[i], Load: m.load.Load()})
	}
	return s
}

package im

import (
	"testing"
)

// What it costs to hand a frame to a room of 10,000 sockets, without writing it.
func BenchmarkHand(b *testing.B) {
	const sockets = 10_000
	h := &Hub{policy: keepReliable, budget: newBucket(perServer)}
	r := &room{members: map[*socket]bool{}, budget: newBucket(perRoom)}
	for range sockets {
		r.members[newSocket(h, nil, ticket{})] = true
	}
	b.ReportAllocs()
	for b.Loop() {
		h.mu.Lock()
		h.hand(r, direct(reliable, "gift", "id", 1, 1, said{1, "name", "text"}))
		h.mu.Unlock()
		for s := range r.members {
			s.queue = s.queue[:0]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sockets, "ns/socket")
}

package im

import (
	"strconv"
	"strings"
	"time"
)

const (
	perRoom   = 100    // barrages a second that a room's sockets get; nobody reads more
	perServer = 50_000 // barrages a second that a server hands to sockets, all rooms together
)

// hand puts a frame into the queues of a room's sockets. It waits for none of them.
// The caller holds the lock.
func (h *Hub) hand(r *room, f *frame) {
	sampledOut := false
	if f.kind == barrage {
		// The price of a frame is its sockets, but never more than a tenth of what the
		// server can: the largest room, too, sees some.
		price := float64(min(len(r.members), perServer/10))
		t := time.Now()
		sampledOut = !r.budget.take(t, 1) || !h.budget.take(t, price)
	}
	r.seq = max(r.seq, f.seq)
	for s := range r.members {
		if f.seq > 0 && f.seq <= s.after {
			continue // it came with hello, or before
		}
		h.counts.Fanout++
		s.offer(f, f.from == s.uid && f.from != 0, sampledOut)
	}
	for s := range r.joining {
		s.early = append(s.early, f)
	}
}

// send puts a frame into the queue of one socket. The caller holds the lock.
func (h *Hub) send(s *socket, f *frame) {
	h.counts.Fanout++
	s.offer(f, true, false)
}

// deliver hands a frame to the sockets of a user: "user <uid>", and its line.
func (h *Hub) deliver(text string) error {
	first, rest, _ := strings.Cut(text[len("user "):], "\n")
	uid, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return err
	}
	f, err := line(rest)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.users[uid] {
		h.send(s, f)
	}
	return nil
}

// A bucket holds as many tokens as it gets in a second.
type bucket struct {
	perSecond, tokens float64
	at                time.Time
}

func newBucket(perSecond float64) bucket {
	return bucket{perSecond: perSecond, tokens: perSecond}
}

// take takes n tokens, if there are so many.
func (b *bucket) take(t time.Time, n float64) bool {
	if !b.at.IsZero() {
		b.tokens = min(b.perSecond, b.tokens+b.perSecond*t.Sub(b.at).Seconds())
	}
	b.at = t
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

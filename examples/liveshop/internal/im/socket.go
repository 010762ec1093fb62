package im

import (
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// writeTimeout is how long one frame may take into the connection of a slow client.
const writeTimeout = 10 * time.Second

// A socket is one user's connection to one room. Two goroutines belong to it: the
// handler that reads, and write.
type socket struct {
	hub  *Hub
	conn *websocket.Conn
	uid  int64
	name string
	room int64

	after int64    // numbered frames up to here are not for it; guarded by the hub's lock
	early []*frame // that came while it was joining; guarded by the hub's lock

	asks   bucket // frames that are no acknowledgements; of the reading goroutine
	talk   bucket // barrages; likewise
	reads  bucket // likewise
	read   int64  // marked read up to here; likewise
	wake   chan struct{}
	closed chan struct{}

	mu      sync.Mutex
	queue   []item
	limit   int // of the queue
	writing int // of those that the writer took, not yet written
	owed    []debt
	ending  bool // close when the queue is empty
	dead    bool // nothing more is written
	counts  Counts
	missed  int64 // sampled out since the client was told
}

// A debt is a reliable frame that the client has not acknowledged.
type debt struct {
	f     *frame
	due   time.Time
	tried bool // sent twice
}

func newSocket(h *Hub, conn *websocket.Conn, t ticket) *socket {
	return &socket{
		hub: h, conn: conn, uid: t.UID, name: t.Name, room: t.Room, asks: newBucket(20), talk: newBucket(2), reads: newBucket(1), limit: backlog,
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

// offer puts a frame into the queue, or does with it what the policy says.
func (s *socket) offer(f *frame, own, sampledOut bool) {
	it := item{f, own || f.kind == reliable}
	f.message() // encoded here, under the hub's lock, and shared by all
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		s.counts.Left++
		return
	}
	o, removed := dropped, 0
	if it.keep || !sampledOut {
		s.queue, removed, o = s.hub.policy(s.queue, len(s.queue)+s.writing, s.limit, it)
	}
	s.counts.Sampled += int64(removed)
	s.missed += int64(removed)
	switch o {
	case dropped:
		s.counts.Sampled++
		s.missed++
	case full:
		s.counts.Left++
		s.counts.Evicted++
		s.die()
	}
	s.signal()
}

func (s *socket) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// finish ends the socket once it has taken what is queued.
func (s *socket) finish() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.signal()
}

// evict ends the socket now, whatever its client does. It never waits.
func (s *socket) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.die()
}

// die is evict for who holds the lock. What was queued is left behind: the client, if
// there is one, resumes.
func (s *socket) die() {
	if s.dead {
		return
	}
	s.dead = true
	s.counts.Left += int64(len(s.queue))
	s.queue = nil
	_ = s.conn.NetConn().Close() // also ends a write that hangs
	close(s.closed)
}

// allow lets n more frames wait.
func (s *socket) allow(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit += n
}

// takeMissed returns how many frames were sampled out since the last call.
func (s *socket) takeMissed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.missed
	s.missed = 0
	return n
}

// write sends what is queued, pings, and what was not acknowledged, until the socket
// dies or has been finished.
func (s *socket) write() {
	ping := time.NewTicker(heartbeat)
	defer ping.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	var batch []item
	for {
		var ok bool
		batch, ok = s.flush(batch)
		var next time.Duration
		if ok {
			next, ok = s.remind()
		}
		if !ok {
			s.evict()
			return
		}
		again.Reset(next)
		select {
		case <-s.wake:
		case <-again.C:
		case <-ping.C:
			if s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)) != nil {
				s.evict()
				return
			}
		case <-s.closed:
			return
		}
	}
}

// flush writes the queue and returns the batch to be used again; false is the end.
func (s *socket) flush(batch []item) ([]item, bool) {
	for {
		s.mu.Lock()
		batch, s.queue = s.queue, batch[:0]
		s.writing = len(batch)
		done := s.ending && len(batch) == 0
		s.mu.Unlock()
		if done {
			text := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "server stops")
			_ = s.conn.WriteControl(websocket.CloseMessage, text, time.Now().Add(time.Second))
			// The client answers, and the reader ends; to close now might take from the
			// client what it has not read.
			_ = s.conn.NetConn().SetReadDeadline(time.Now().Add(time.Second))
			<-s.closed
			return batch, false
		}
		if len(batch) == 0 {
			return batch, true
		}
		for i, it := range batch {
			s.owe(it.f)
			err := s.put(it.f)
			s.mu.Lock()
			s.writing--
			if err != nil {
				s.counts.Left += int64(len(batch) - i) // this one, and those behind it
				s.writing = 0
				s.mu.Unlock()
				return batch, false
			}
			s.counts.Delivered++
			s.mu.Unlock()
		}
	}
}

// owe comes before put: the acknowledgement may be here before put returns.
func (s *socket) owe(f *frame) {
	if f.kind != reliable {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed = append(s.owed, debt{f, time.Now().Add(retry), false})
}

func (s *socket) put(f *frame) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.conn.WritePreparedMessage(f.prepared)
}

// remind sends once more what was not acknowledged in time, and returns when to look
// again. False is the end: an error, or a client that owes too much.
func (s *socket) remind() (time.Duration, bool) {
	var late []*frame
	s.mu.Lock()
	t, n := time.Now(), 0
	for n < len(s.owed) && !s.owed[n].due.After(t) {
		n++
	}
	for _, d := range s.owed[:n] {
		if d.tried {
			s.counts.Unacked++
			continue
		}
		s.counts.Retried++
		late = append(late, d.f)
		s.owed = append(s.owed, debt{d.f, t.Add(retry), true})
	}
	s.owed = s.owed[n:]
	next := time.Hour
	if len(s.owed) > 0 {
		next = s.owed[0].due.Sub(t)
	}
	ok := len(s.owed) <= s.limit
	if !ok {
		s.counts.Evicted++
	}
	s.mu.Unlock()
	for _, f := range late {
		ok = ok && s.put(f) == nil
	}
	return next, ok
}

// acked takes an acknowledgement: of a frame, and of all that were sent before it.
func (s *socket) acked(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.owed {
		if d.f.id == id {
			s.owed = s.owed[i+1:]
			return
		}
	}
}

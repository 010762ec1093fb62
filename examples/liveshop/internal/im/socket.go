package im

import (
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	writeTimeout = 10 * time.Second // for one frame, into the connection of a slow client
	reminders    = 16               // frames that are sent again at a time, to one client,
	allReminders = 2000             // and in a second, to all
)

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
	limit   int       // of the queue
	writing int       // of those that the writer took, not yet written
	owed    []debt    // in the order in which they were sent
	heard   time.Time // the last acknowledgement
	ending  bool      // close when the queue is empty
	dead    bool      // nothing more is written
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
	defer s.evict()
	ping := time.NewTicker(heartbeat)
	defer ping.Stop()
	debts := time.NewTimer(retry) // when to look at them again
	defer debts.Stop()
	looking := true
	var batch []item
	for {
		var ok bool
		if batch, ok = s.flush(batch); !ok {
			return
		}
		if !looking && s.owes() {
			debts.Reset(retry)
			looking = true
		}
		select {
		case <-s.wake:
		case <-debts.C:
			next, ok := s.remind()
			if !ok {
				return
			}
			if looking = next > 0; looking {
				debts.Reset(next)
			}
		case <-ping.C:
			if s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)) != nil {
				return
			}
		case <-s.closed:
			return
		}
	}
}

func (s *socket) owes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.owed) > 0
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
			text := websocket.FormatCloseMessage(websocket.CloseServiceRestart, serverStops)
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
	if len(s.owed) >= s.limit { // from who acknowledges nothing: the older half is forgiven
		half := len(s.owed) / 2
		s.counts.Unacked += int64(half)
		s.owed = append(s.owed[:0], s.owed[half:]...)
	}
	s.owed = append(s.owed, debt{f, time.Now().Add(retry), false})
}

func (s *socket) put(f *frame) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.conn.WritePreparedMessage(f.prepared)
}

// remind sends once more what was not acknowledged in time, and returns when to look
// again; 0 if nothing is owed. False is the end.
//
// A client that acknowledges something now and then is only behind: to send it
// everything twice would put it further behind. Of one that is silent, a few frames will
// do: an acknowledgement of any covers those before it. And where all clients are late
// it is the server that is behind: so there is a limit for all together.
func (s *socket) remind() (time.Duration, bool) {
	var late []*frame
	s.mu.Lock()
	t, next := time.Now(), time.Duration(0)
	owed := s.owed[:0]
	for _, d := range s.owed {
		if behind := s.heard.Add(retry); d.due.Before(behind) {
			d.due = behind
		}
		switch {
		case d.due.After(t):
		case d.tried:
			s.counts.Unacked++
			continue
		default:
			if d.due = t.Add(retry); len(late) < reminders && s.hub.mayRemind(t) {
				d.tried = true
				late = append(late, d.f)
			}
		}
		if wait := d.due.Sub(t); next == 0 || wait < next {
			next = wait
		}
		owed = append(owed, d)
	}
	s.owed = owed
	s.counts.Retried += int64(len(late))
	s.mu.Unlock()
	for _, f := range late {
		if s.put(f) != nil {
			return 0, false
		}
	}
	return next, true
}

func (h *Hub) mayRemind(t time.Time) bool {
	h.reminding.Lock()
	defer h.reminding.Unlock()
	return h.reminding.take(t, 1)
}

// acked takes an acknowledgement: of a frame, and of all that were sent before it.
func (s *socket) acked(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.owed {
		if d.f.id == id {
			s.heard = time.Now()
			s.owed = s.owed[i+1:]
			return
		}
	}
}

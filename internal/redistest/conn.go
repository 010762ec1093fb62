package redistest

import (
	"net"
	"sync"
	"time"
)

// A bufferedConn is a net.Pipe whose writes return at once, as those on a
// socket do, on either side. On a bare pipe a pipeline of more than 4 KiB hangs:
// miniredis waits with its first reply for a client that is still writing. And
// while it waits with a reply for a subscriber that pauses, it holds a lock for
// which its next message waits, so that the time of a bubble stands still.
type bufferedConn struct {
	net.Conn // where what the other side has written is read
	out      *queue
	close    func() error
}

func newBufferedConn(pipe net.Conn) *bufferedConn {
	near, far := net.Pipe()
	done := make(chan struct{})
	c := &bufferedConn{Conn: near, out: newQueue()}
	c.close = sync.OnceValue(func() error {
		close(done)
		_, _ = near.Close(), far.Close() // never fail
		return pipe.Close()
	})
	in := newQueue()
	go c.out.pump(pipe, done)
	go in.pump(far, done)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := pipe.Read(buf)
			_, _ = in.Write(buf[:n])
			if err != nil {
				in.end()
				return
			}
		}
	}()
	return c
}

func (c *bufferedConn) Write(b []byte) (int, error) { return c.out.Write(b) }

// Close drops what the other side has not read.
func (c *bufferedConn) Close() error { return c.close() }

// A write never waits, so that only reads have a deadline.
func (c *bufferedConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

// A queue takes what is written, and pump passes it on.
type queue struct {
	wake chan struct{} // holds a token while there may be something to do

	mu      sync.Mutex
	pending []byte
	ended   bool
	err     error // of an earlier write
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	q.pending = append(q.pending, b...)
	q.kick()
	return len(b), nil
}

// end lets pump close the connection behind what was written.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.kick()
}

func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) pump(to net.Conn, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-q.wake:
		}
		q.mu.Lock()
		b, ended := q.pending, q.ended
		q.pending = nil
		q.mu.Unlock()
		_, err := to.Write(b)
		if ended {
			_ = to.Close()
		}
		if ended || err != nil {
			q.mu.Lock()
			q.err = err
			q.mu.Unlock()
			return
		}
	}
}

package redistest

import (
	"net"
	"sync"
	"time"
)

// A bufferedConn is a net.Pipe whose writes return at once, as those on a
// socket do. On a bare pipe a pipeline of more than 4 KiB hangs: miniredis waits
// with its first reply for a client that is still writing.
type bufferedConn struct {
	net.Conn
	wake  chan struct{} // holds a token while pending may hold something
	close func() error

	mu      sync.Mutex
	pending []byte
	err     error // of an earlier write
}

func newBufferedConn(pipe net.Conn) *bufferedConn {
	c := &bufferedConn{Conn: pipe, wake: make(chan struct{}, 1)}
	done := make(chan struct{})
	c.close = sync.OnceValue(func() error {
		close(done)
		return pipe.Close()
	})
	go c.pump(done)
	return c
}

func (c *bufferedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.pending = append(c.pending, b...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (c *bufferedConn) pump(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b := c.pending
		c.pending = nil
		c.mu.Unlock()
		if _, err := c.Conn.Write(b); err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
	}
}

// Close drops what the other side has not read.
func (c *bufferedConn) Close() error { return c.close() }

// A write never waits, so that only reads have a deadline.
func (c *bufferedConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

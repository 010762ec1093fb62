package redistest

import (
	"bytes"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A faultConn is a client's connection on which the rules of a plan are
// applied. It follows both directions command by command and reply by reply, so
// that it hits the reply of the command that matched, however they are spread
// over writes and reads. One goroutine may read while another writes.
type faultConn struct {
	net.Conn
	faults *Faults

	mu       sync.Mutex
	due      []Rule // of the commands whose replies are outstanding, in order
	withheld bool   // a CutBefore stands in due: nothing reaches the server any more
	pubsub   bool   // what the server sends no longer answers commands one by one
	cut      bool
	deadline time.Time // for reads

	request []byte // written, not yet a whole command

	in     []byte // from the server, not yet looked at
	out    []byte // for the client
	held   time.Time
	silent bool

	closed    chan struct{}
	closeOnce sync.Once
}

func newFaultConn(c net.Conn, f *Faults) *faultConn {
	return &faultConn{Conn: c, faults: f, closed: make(chan struct{})}
}

func (c *faultConn) Write(p []byte) (int, error) {
	c.request = append(c.request, p...)
	var send []byte
	c.mu.Lock()
	for !c.withheld {
		n := frame(c.request)
		if n == 0 {
			break
		}
		name, text := words(c.request[:n])
		rule := c.faults.command(text)
		c.due = append(c.due, rule)
		c.withheld = rule.Do == CutBefore
		switch name {
		case "subscribe", "psubscribe", "ssubscribe", "monitor":
			c.pubsub = true
		}
		if !c.withheld {
			send = append(send, c.request[:n]...)
		}
		c.request = c.request[n:]
	}
	c.mu.Unlock()

	if len(send) > 0 {
		if _, err := c.Conn.Write(send); err != nil {
			return 0, err
		}
	}
	if c.nextWithheld() { // else Read cuts after the replies that are due
		c.cutNow(CutBefore)
	}
	return len(p), nil
}

func (c *faultConn) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	if err := c.waitUntil(c.held); err != nil {
		return 0, err
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// fill makes one step towards a reply in c.out.
func (c *faultConn) fill() error {
	if c.silent {
		return c.waitUntil(time.Now().Add(1e6 * time.Hour))
	}
	if c.isCut() { // go-redis may read again after the EOF
		return io.EOF
	}
	n := frame(c.in)
	if n == 0 {
		if c.nextWithheld() {
			c.cutNow(CutBefore)
			return io.EOF
		}
		buf := make([]byte, 4096)
		n, err := c.Conn.Read(buf)
		c.in = append(c.in, buf[:n]...)
		if err != nil && c.isCut() {
			return io.EOF
		}
		if n > 0 {
			return nil
		}
		return err
	}
	reply := c.in[:n]
	c.in = c.in[n:]
	rule := c.answered(reply[0])
	switch rule.Do {
	case CutAfter:
		c.cutNow(CutAfter)
		return io.EOF
	case LoseReply:
		c.faults.fire(LoseReply)
		c.silent = true
		return nil
	case DelayReply:
		c.faults.fire(DelayReply)
		c.held = time.Now().Add(rule.Delay)
	}
	c.out = append(c.out, reply...)
	return nil
}

func (c *faultConn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// nextWithheld reports whether all replies are in that a CutBefore waits for.
func (c *faultConn) nextWithheld() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.due) > 0 && c.due[0].Do == CutBefore
}

// answered returns the rule of the command that a reply answers.
func (c *faultConn) answered(kind byte) Rule {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind == '>' || c.pubsub || len(c.due) == 0 {
		return Rule{}
	}
	rule := c.due[0]
	c.due = c.due[1:]
	return rule
}

// cutNow ends the connection, once.
func (c *faultConn) cutNow(why Fault) {
	c.mu.Lock()
	first := !c.cut
	c.cut = true
	c.mu.Unlock()
	if first {
		c.faults.fire(why)
		_ = c.Close()
	}
}

func (c *faultConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A cut connection takes deadlines, so that the client learns of the cut where it
// would on a network: when it reads.

func (c *faultConn) SetDeadline(t time.Time) error {
	if c.setReadDeadline(t) {
		return nil
	}
	return c.Conn.SetDeadline(t)
}

func (c *faultConn) SetReadDeadline(t time.Time) error {
	if c.setReadDeadline(t) {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *faultConn) setReadDeadline(t time.Time) (cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.cut
}

// waitUntil waits until t, or fails as Read does when its deadline comes first
// or the connection ends.
func (c *faultConn) waitUntil(t time.Time) error {
	c.mu.Lock()
	end, err := t, error(nil)
	if !c.deadline.IsZero() && c.deadline.Before(t) {
		end, err = c.deadline, os.ErrDeadlineExceeded
	}
	c.mu.Unlock()
	d := time.Until(end)
	if d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return err
	case <-c.closed:
		return io.EOF
	}
}

// frame returns the length of the RESP value (or inline command) that b begins
// with, 0 if b does not hold all of it.
func frame(b []byte) int {
	i := 0
	for open := 1; open > 0; open-- {
		n := bytes.Index(b[i:], []byte("\r\n"))
		if n < 0 {
			return 0
		}
		line := b[i : i+n]
		i += n + 2
		if n == 0 {
			continue
		}
		size, err := strconv.Atoi(string(line[1:]))
		if err != nil || size < 0 || size > maxFrame {
			continue // a null, or a kind without a size
		}
		switch line[0] {
		case '$', '!', '=':
			i += size + 2
			if i > len(b) {
				return 0
			}
		case '*', '~', '>':
			open += size
		case '%':
			open += 2 * size
		case '|': // attributes, and the value they belong to
			open += 2*size + 1
		}
	}
	return i
}

// maxFrame is far above what Redis accepts (512 MB) or a test sends.
const maxFrame = 1 << 30

// words returns the name of a command in lower case, and its words joined by
// spaces.
func words(cmd []byte) (name, text string) {
	if cmd[0] != '*' {
		text = strings.TrimSpace(string(cmd))
		name, _, _ = strings.Cut(text, " ")
		return strings.ToLower(name), text
	}
	var args []string
	rest := cmd[bytes.Index(cmd, []byte("\r\n"))+2:]
	for len(rest) > 0 {
		n := frame(rest)
		if n == 0 {
			break
		}
		head := bytes.Index(rest, []byte("\r\n")) + 2
		args = append(args, string(rest[head:max(head, n-2)]))
		rest = rest[n:]
	}
	if len(args) > 0 {
		name = strings.ToLower(args[0])
	}
	return name, strings.Join(args, " ")
}

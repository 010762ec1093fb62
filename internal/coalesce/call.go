package coalesce

// A call is one caller of Do. The first with its id carries the item (it is the
// lead) and stands in the lane's queue or in a flight; those that join hang on
// it. All fields but ready are guarded by the lane's lock until the call is
// settled; from then on r and err belong to the flight until it sends on ready,
// and the whole to the caller after that.
type call[Q, R any] struct {
	ready chan struct{} // capacity 1: whoever delivers never waits
	id    string
	q     Q
	size  int
	r     R
	err   error

	state  state
	gone   bool          // the lead's own caller has left
	lead   *call[Q, R]   // of one that joined
	flight *flight[Q, R] // of a lead that is sent
	joined list[Q, R]

	prev, next *call[Q, R] // in the queue, or in joined of the lead
}

type state uint8

const (
	queued state = iota
	sent
	settled // the answer is there or about to be: too late to leave
)

func (c *call[Q, R]) waiters() int {
	if c.gone {
		return c.joined.n
	}
	return c.joined.n + 1
}

// settle closes the door for c and those that joined.
func (c *call[Q, R]) settle() {
	c.state = settled
	for j := c.joined.head; j != nil; j = j.next {
		j.state = settled
	}
}

// deliver hands the answer to everyone who waits for the settled lead c. Each
// call is read before its caller is woken, who may at once use it for something
// else.
func (g *Group[Q, R]) deliver(c *call[Q, R], r R, err error) {
	for j := c.joined.pop(); j != nil; j = c.joined.pop() {
		j.r, j.err = r, err
		j.ready <- struct{}{}
	}
	if c.gone {
		g.recycle(c)
		return
	}
	c.r, c.err = r, err
	c.ready <- struct{}{}
}

// recycle takes a call that nobody else refers to, with nothing in ready.
func (g *Group[Q, R]) recycle(c *call[Q, R]) {
	*c = call[Q, R]{ready: c.ready}
	g.calls.Put(c)
}

// A list is doubly linked through the calls themselves, so that one that leaves
// is gone at once: a stuck lane whose callers time out and come again must not
// grow.
type list[Q, R any] struct {
	head, tail *call[Q, R]
	n          int
}

func (s *list[Q, R]) push(c *call[Q, R]) {
	c.prev = s.tail
	if s.tail == nil {
		s.head = c
	} else {
		s.tail.next = c
	}
	s.tail = c
	s.n++
}

func (s *list[Q, R]) remove(c *call[Q, R]) {
	if c.prev == nil {
		s.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		s.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	s.n--
}

func (s *list[Q, R]) pop() *call[Q, R] {
	c := s.head
	if c != nil {
		s.remove(c)
	}
	return c
}

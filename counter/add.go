package counter

import "fmt"

// Add counts delta, from -2^32 to 2^32, on a field of an object. It is stored with
// the next flush, within Options.Interval; until then it is in this process's reads
// and would be lost with the process. It waits for nothing.
//
// ErrBacklog says that Redis has been down for Options.MaxOutage and the increment
// was not counted. A total that would leave ±2^53 does not change, which
// Stats.Refused counts.
func (c *Counter) Add(id int64, field string, delta int64) error {
	f, err := c.field(field)
	if err != nil {
		return err
	}
	if delta < -maxDelta || delta > maxDelta {
		return badDelta(delta)
	}
	n := c.home(id, f)
	s := &c.shards[shardOf(n)]
	if s.state.Load() != open {
		return s.shut(id)
	}
	if delta == 0 {
		return nil
	}
	// The object stays in the map while the lock is held, so that a read that comes
	// after this call finds it.
	s.mu.RLock()
	o, ok := s.find(n), true
	if o != nil {
		ok = s.add(o, f, delta)
	}
	s.mu.RUnlock()
	if o == nil {
		s.mu.Lock()
		o = s.object(n, len(c.schema.Fields))
		ok = o != nil && s.add(o, f, delta)
		s.mu.Unlock()
	}
	if !ok {
		return s.shut(id)
	}
	return nil
}

// A Handle adds to one field of one object without looking it up: for the few
// counters that are counted all the time. It stays in memory as long as its Counter.
type Handle struct {
	shard *shard
	o     *object
	field int
	err   error
}

// Handle returns the handle of a field of an object. If the field is unknown or the
// counter closed, its Add says so.
func (c *Counter) Handle(id int64, field string) *Handle {
	f, err := c.field(field)
	if err != nil {
		return &Handle{err: err}
	}
	n := c.home(id, f)
	s := &c.shards[shardOf(n)]
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.object(n, len(c.schema.Fields))
	if o == nil {
		return &Handle{err: fmt.Errorf("%w: object %d", ErrClosed, id)}
	}
	o.pinned = true
	return &Handle{shard: s, o: o, field: f}
}

// Add is Counter.Add for the handle's field and object.
func (h *Handle) Add(delta int64) error {
	if h.err != nil {
		return h.err
	}
	if delta < -maxDelta || delta > maxDelta {
		return badDelta(delta)
	}
	if h.shard.state.Load() != open {
		return h.shard.shut(h.o.name.id)
	}
	if delta != 0 && !h.shard.add(h.o, h.field, delta) {
		return h.shard.shut(h.o.name.id)
	}
	return nil
}

// home returns the key that this process adds a field's increments to.
func (c *Counter) home(id int64, field int) name {
	spread := c.schema.Fields[field].Spread
	if spread <= 1 {
		return name{id: id}
	}
	return name{id, 1 + int(c.place%uint32(spread))}
}

func badDelta(delta int64) error {
	return fmt.Errorf("%w: delta %d, want -2^32 to 2^32", ErrInvalid, delta)
}

// shut is why nothing can be added to an object.
func (s *shard) shut(id int64) error {
	if s.state.Load() == closed {
		return fmt.Errorf("%w: object %d", ErrClosed, id)
	}
	return fmt.Errorf("%w: object %d", ErrBacklog, id)
}

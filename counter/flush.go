package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed flush.lua
var flushLua string

// A batch is what one flush of a shard sends, the same however often.
type batch struct {
	call    script.Call
	objects []*object
	sealed  time.Time
	unknown time.Time // when the first attempt began that may have run
}

// Flush stores what was added before the call, in this process. An error says that
// some of it is not known to be stored; it stays pending and is sent again with the
// next flush. A call whose ctx ends leaves at the end of the attempt in flight.
func (c *Counter) Flush(ctx context.Context) error {
	if c.closed.Load() {
		return ErrClosed
	}
	return c.flush(ctx)
}

func (c *Counter) flush(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("counter: schema %q: %w: %w", c.schema.Name, ErrUnavailable, ctx.Err())
	}
	defer func() { <-c.turn }()
	// As many rounds as the longest queue needs, and one for a batch that was left:
	// what is added meanwhile stands behind.
	rounds := 1
	for i := range c.shards {
		s := &c.shards[i]
		s.queue.Lock()
		rounds = max(rounds, 1+(len(s.dirty)+batchSize-1)/batchSize)
		s.queue.Unlock()
	}
	if c.opts.Cold != nil {
		rounds = 2*rounds + maxReturns // for batches whose blocks have to come back first
	}
	failed := make([]error, len(c.shards))
	for range rounds {
		if !c.round(ctx, failed) {
			break
		}
	}
	err := errors.Join(failed...)
	c.heard(err)
	if err != nil {
		return err
	}
	for i := range c.shards {
		if c.shards[i].flight != nil { // which belongs to who has the turn
			return fmt.Errorf("%w: schema %q: blocks go as soon as they have come", ErrUnavailable, c.schema.Name)
		}
	}
	return nil
}

// round sends one batch of each shard that has something to send, in one round trip, and
// reports whether there was one. It leaves alone the shards that have failed in this
// flush: what they have does not hold up the others.
func (c *Counter) round(ctx context.Context, failed []error) (sent bool) {
	var at []int // in shards
	var calls []script.Call
	for i := range c.shards {
		if failed[i] != nil {
			continue
		}
		if b := c.shards[i].seal(c); b != nil {
			at = append(at, i)
			calls = append(calls, b.call)
		}
	}
	if len(calls) == 0 {
		return false
	}
	began := time.Now()
	replies, errs := c.scripts.flush.RunMany(ctx, c.rdb, calls)
	for k, i := range at {
		s, err := &c.shards[i], lost(errs[k])
		if errors.Is(err, ErrUnknown) && s.flight.unknown.IsZero() {
			s.flight.unknown = began
		}
		if err == nil {
			err = c.stored(ctx, s, replies[k])
		}
		if err != nil {
			failed[i] = c.failed(s, err)
		}
	}
	return true
}

// seal returns the batch to send: the one that is not known to be stored, unchanged,
// else a new one of what is queued; nil if nothing is.
func (s *shard) seal(c *Counter) *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight
	}
	b := &batch{sealed: time.Now()}
	for len(b.objects) == 0 {
		if !s.fill(b) {
			return nil
		}
	}
	s.seq++
	b.call = c.flushCall(s, b.objects)
	s.flight = b
	return b
}

// fill takes what is queued into a batch, which stays empty if all increments cancelled
// each other. It reports false if nothing is queued.
func (s *shard) fill(b *batch) bool {
	s.queue.Lock()
	n := min(len(s.dirty), batchSize)
	taken := s.dirty[:n]
	s.dirty = s.dirty[n:]
	for _, o := range taken {
		o.queued.Store(false) // before the cells are emptied: who adds later queues it again
	}
	s.queue.Unlock()

	for _, o := range taken {
		some := false
		for i := range o.cells {
			o.flight[i] = o.take(i, s.state.Load() == closed)
			some = some || o.flight[i] != 0
		}
		if !some { // increments that cancelled each other
			s.forget(o)
			continue
		}
		b.objects = append(b.objects, o)
		o.seq = s.seq + 1
		o.seals++
	}
	return n > 0
}

// flushCall puts what is in flight of objects into a call, in the order in which it
// leaves them.
func (c *Counter) flushCall(s *shard, objects []*object) script.Call {
	call := script.Call{Keys: []string{s.token}, Args: []any{s.seq, seqTTL.Milliseconds(), c.blockLen()}}
	for _, group := range groups(c, objects, func(o *object) name { return o.name }) {
		call.Keys = append(call.Keys, c.keysOf(s, group[0].name)...)
		at := len(call.Args)
		call.Args = append(call.Args, 0)
		for _, o := range group {
			for i, delta := range o.flight {
				if delta != 0 {
					call.Args = append(call.Args, c.cell(o.name, i), delta)
				}
			}
		}
		call.Args[at] = (len(call.Args) - at - 1) / 2
	}
	return call
}

// take empties a cell, or the rest that Close left of it.
func (o *object) take(i int, closed bool) (delta int64) {
	if closed {
		delta, o.rest[i] = o.rest[i], 0
		return delta
	}
	return o.cells[i].Swap(0)
}

// forget lets go of an object that has nothing to send. A keyed Add holds mu for
// reading, so that none has it in hand.
func (s *shard) forget(o *object) {
	if o.pinned || o.queued.Load() {
		return
	}
	for i := range o.cells {
		if o.cells[i].Load() != 0 {
			return
		}
	}
	if o.name.sub == 0 {
		delete(s.objects, o.name.id)
	} else {
		delete(s.spread, o.name)
	}
}

// stored takes in the answer to a shard's batch. Blocks that were not here it brings
// back, and leaves the batch to the next round.
func (c *Counter) stored(ctx context.Context, s *shard, reply any) error {
	refused, _ := reply.([]any)
	if len(refused) > 0 {
		if first, _ := refused[0].(int64); first < 0 {
			return c.bringAllBack(ctx, s, refused)
		}
		c.refused(s.flight, refused)
	}
	c.stats.flushes.Add(1)
	c.stats.objects.Add(uint64(len(s.flight.objects)))
	s.landed()
	s.state.CompareAndSwap(backlogged, open)
	return nil
}

// refused tells of increments that were not added, by their places in the batch.
func (c *Counter) refused(b *batch, places []any) {
	place := int64(0)
	for _, o := range b.objects {
		for i, delta := range o.flight {
			if delta == 0 {
				continue
			}
			if place++; slices.Contains(places, any(place)) {
				c.stats.refused.Add(1)
				c.opts.Logger.Warn("counter: increment refused: total out of range, or key of another type",
					"object", o.name.id, "field", c.schema.Fields[i].Name, "increment", delta)
			}
		}
	}
}

// landed ends the shard's batch: what it carried is in Redis, or never will be.
func (s *shard) landed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.flight.objects {
		clear(o.flight)
		s.forget(o)
	}
	s.flight = nil
}

// failed keeps a shard's batch for the next round. After resendFor a batch that may
// have been stored is given up: the number that would tell is about to expire.
func (c *Counter) failed(s *shard, err error) error {
	b := s.flight
	now := time.Now()
	if !b.unknown.IsZero() && now.Sub(b.unknown) > resendFor {
		c.stats.dropped.Add(uint64(len(b.objects)))
		c.opts.Logger.Error("counter: increments given up after their outcome was unknown for too long",
			"objects", len(b.objects), "error", err)
		s.landed()
		s.state.CompareAndSwap(backlogged, open)
		return nil
	}
	if now.Sub(b.sealed) >= c.opts.MaxOutage {
		s.state.CompareAndSwap(open, backlogged)
	}
	return fmt.Errorf("counter: schema %q, %d objects: %w", c.schema.Name, len(b.objects), err)
}

// heard logs the beginning and the end of an outage.
func (c *Counter) heard(err error) {
	if err != nil {
		c.stats.failures.Add(1)
	}
	if failing := err != nil; failing != c.failing {
		c.failing = failing
		if failing {
			c.opts.Logger.Warn("counter: flush failed; trying again", "error", err)
		} else {
			c.opts.Logger.Info("counter: flushing again")
		}
	}
}

// flushUntilClosed flushes every Options.Interval.
func (c *Counter) flushUntilClosed(ctx context.Context) {
	tick := time.NewTicker(c.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = c.flush(ctx) // heard has logged it, and the next tick tries again
		case <-c.stop:
			return
		}
	}
}

// drain flushes until nothing is pending or ctx ends.
func (c *Counter) drain(ctx context.Context) error {
	for {
		err := c.flush(ctx)
		if c.Pending() == 0 {
			return nil
		}
		t := time.NewTimer(c.opts.Interval)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(err, ctx.Err())
		}
	}
}

// Pending returns how many objects have increments that are not known to be stored.
// An object that spreads over keys counts once for each.
func (c *Counter) Pending() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		s.queue.Lock()
		n += len(s.dirty)
		if s.flight != nil {
			for _, o := range s.flight.objects {
				if !o.queued.Load() { // or it is in dirty too
					n++
				}
			}
		}
		s.queue.Unlock()
		s.mu.RUnlock()
	}
	return n
}

// Stats are counters of this process since New.
type Stats struct {
	Flushes  uint64 // batches that were stored
	Objects  uint64 // objects in them
	Failures uint64 // flushes that stored less than all they sent
	Refused  uint64 // sums of increments, an object's field each, that would have taken a total out of ±2^53, or whose key is of another type
	Dropped  uint64 // objects whose increments were given up, their outcome unknown
}

type counters struct{ flushes, objects, failures, refused, dropped atomic.Uint64 }

// Stats returns the counters. It does no I/O.
func (c *Counter) Stats() Stats {
	return Stats{
		Flushes: c.stats.flushes.Load(), Objects: c.stats.objects.Load(), Failures: c.stats.failures.Load(),
		Refused: c.stats.refused.Load(), Dropped: c.stats.dropped.Load(),
	}
}

package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed read.lua
var readLua string

// keysPerRead bounds the work of one script.
const keysPerRead = 200

// Values are the totals of an object, by field. Every field of the schema is there;
// what was never counted is 0.
type Values map[string]int64

// Get returns an object's totals, with everything that this process has added before
// the call, stored or not. One round trip.
func (c *Counter) Get(ctx context.Context, id int64) (Values, error) {
	all, err := c.GetMany(ctx, []int64{id})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// GetMany is Get for up to 10,000 objects; result i is that of ids[i]. One round trip
// for all (one to each server of a Cluster), O(keys): fields that spread bring one
// key more for each Field.Spread.
func (c *Counter) GetMany(ctx context.Context, ids []int64) ([]Values, error) {
	if c.closed.Load() {
		return nil, fmt.Errorf("%w: schema %q", ErrClosed, c.schema.Name)
	}
	if len(ids) > maxMany {
		return nil, fmt.Errorf("%w: %d ids, want at most %d", ErrInvalid, len(ids), maxMany)
	}
	out := make([]Values, len(ids))
	totals := make([][]int64, len(ids))
	byShard := map[*shard][]*look{}
	widest := 1
	for _, f := range c.schema.Fields {
		widest = max(widest, f.Spread)
	}
	for i, id := range ids {
		totals[i] = make([]int64, len(c.schema.Fields))
		for sub := 0; sub <= widest; sub++ {
			if sub > 0 && widest == 1 {
				break
			}
			n := name{id, sub}
			s := c.shardOf(n)
			byShard[s] = append(byShard[s], &look{name: n, totals: totals[i]})
		}
	}
	var reads []*read
	for s, looks := range byShard {
		for part := range slices.Chunk(looks, keysPerRead) {
			reads = append(reads, &read{s, part})
		}
	}
	for len(reads) > 0 {
		var err error
		if reads, err = c.read(ctx, reads); err != nil {
			return nil, fmt.Errorf("counter: schema %q: %w", c.schema.Name, err)
		}
	}
	for i := range out {
		out[i] = make(Values, len(c.schema.Fields))
		for f, field := range c.schema.Fields {
			if totals[i][f] < 0 && !field.Signed {
				totals[i][f] = 0
			}
			out[i][field.Name] = totals[i][f]
		}
	}
	return out, nil
}

// A look is one key that is read, and what this process knew of it before.
type look struct {
	name   name
	totals []int64 // of the object, by field: added to

	o       *object // nil: nothing to add
	pending []int64 // in its cells
	flight  []int64 // in the batch of number seq
	seq     uint64
	seals   uint64
}

// A read is what one script reads.
type read struct {
	shard *shard
	looks []*look
}

// read makes one round trip and returns the reads that have to be made again.
//
// What is stored and what is on its way there must not be counted twice, nor left
// out. So the script tells which of this process's batches were in when it looked:
// what was in flight then is added only if its batch was not.
func (c *Counter) read(ctx context.Context, reads []*read) (again []*read, err error) {
	calls := make([]script.Call, len(reads))
	for i, r := range reads {
		calls[i] = script.Call{Keys: []string{r.shard.token}}
		call := &calls[i]
		r.shard.mu.RLock()
		for _, group := range groups(c, r.looks, func(l *look) name { return l.name }) {
			call.Keys = append(call.Keys, c.keysOf(r.shard, group[0].name)...)
			call.Args = append(call.Args, len(group)*len(c.schema.Fields))
			for _, l := range group {
				l.before(r.shard)
				for f := range c.schema.Fields {
					call.Args = append(call.Args, c.cell(l.name, f))
				}
			}
		}
		r.shard.mu.RUnlock()
	}
	replies, errs := c.scripts.read.RunMany(ctx, c.rdb, calls)
	for i, r := range reads {
		if errs[i] != nil {
			return nil, lost(errs[i])
		}
		reply, ok := replies[i].([]any)
		if !ok || len(reply) != 1+len(r.looks)*len(c.schema.Fields) {
			return nil, fmt.Errorf("%w: unexpected reply %v", ErrUnavailable, replies[i])
		}
		landed, _ := reply[0].(int64)
		fields := len(c.schema.Fields)
		was, err := c.away(ctx, r, reply[1:])
		if err != nil {
			return nil, err
		}
		var raced []*look
		r.shard.mu.RLock()
		for k, l := range r.looks {
			if was[l.name.id>>blockBits] || !l.after(uint64(landed), reply[1+k*fields:]) {
				raced = append(raced, l)
			}
		}
		r.shard.mu.RUnlock()
		if len(raced) > 0 {
			again = append(again, &read{r.shard, raced})
		}
	}
	return again, nil
}

// away brings back the blocks that a read did not find here. It returns those that
// have to be read again; the others were never counted.
func (c *Counter) away(ctx context.Context, r *read, totals []any) (again map[int64]bool, err error) {
	if c.opts.Cold == nil {
		return nil, nil
	}
	again = map[int64]bool{}
	for k, l := range r.looks {
		block := l.name.id >> blockBits
		if _, done := again[block]; done || totals[k*len(c.schema.Fields)] != "away" {
			continue
		}
		if again[block], err = c.bringBack(ctx, r.shard, l.name.id, false); err != nil {
			return nil, err
		}
	}
	return again, nil
}

// before takes down what is not known to be stored. It is called with the shard's mu.
func (l *look) before(s *shard) {
	l.o = s.find(l.name)
	if l.o == nil {
		return
	}
	l.pending, l.flight = make([]int64, len(l.o.cells)), make([]int64, len(l.o.cells))
	copy(l.flight, l.o.flight)
	l.seq, l.seals = l.o.seq, l.o.seals
	for i := range l.o.cells {
		l.pending[i] = l.o.cells[i].Load()
		if l.pending[i] < -maxPending { // Close has been here
			l.pending[i] = l.o.rest[i]
		}
	}
}

// after adds up; stored begins with its totals. It reports false if the object was in
// two batches meanwhile: then the number of neither tells where the first was when the
// script looked. It is called with the shard's mu.
func (l *look) after(landed uint64, stored []any) bool {
	addPending, addFlight := false, false
	if l.o != nil {
		switch l.o.seals - l.seals {
		case 0: // what was pending is so still
			addPending, addFlight = true, l.seq > landed
		case 1: // it was sealed in the last batch
			addPending, addFlight = l.o.seq > landed, l.seq > landed
		default:
			if l.o.seq > landed {
				return false
			}
		}
	}
	for i := range l.totals {
		n, _ := stored[i].(int64)
		l.totals[i] += n
		if addPending {
			l.totals[i] += l.pending[i]
		}
		if addFlight {
			l.totals[i] += l.flight[i]
		}
	}
	return true
}

// lost makes ErrLost of a script's refusal to work on a block that is not what its mark
// says.
func lost(err error) error {
	if refused := new(script.Refused); errors.As(err, &refused) && refused.Code == "lost" {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

package counter

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/spillway-go/spillway/internal/key"
)

// A name is a key that counters are in: an object's own, or one of those that its
// spread fields go to.
type name struct {
	id  int64
	sub int // 0: the object's own
}

// shardOf decides where a key is: for ever, with shardCount.
func shardOf(n name) int {
	x := uint64(n.id) ^ uint64(n.sub)*0x9E3779B97F4A7C15
	x ^= x >> 32
	x *= 0xD6E8FEB86659FD93
	x ^= x >> 32
	return int(x % shardCount)
}

// An object is what this process knows of a key while it has increments that are not
// known to be stored, or a handle.
//
// Cells are added to without a lock. Everything else is under the shard's mu.
type object struct {
	name   name
	key    string
	cells  []atomic.Int64 // by field: not yet in a batch
	queued atomic.Bool    // in shard.dirty: so whenever a cell is not 0 and its Add returned

	pinned bool
	flight []int64 // by field: in the batch in flight
	seq    uint64  // of the last batch it was in
	seals  uint64  // how many batches it was in
	rest   []int64 // by field: what Close took from the cells
}

// A shard is the keys of one hash tag, and the flushes of this process to them.
type shard struct {
	space key.Space
	token string // the key of the number of the last flush of this process
	state atomic.Uint32

	mu      sync.RWMutex
	objects map[int64]*object // with sub 0, apart since a look-up by a number is cheaper
	spread  map[name]*object  // the others
	seq     uint64            // of the last batch
	flight  *batch            // not known to be stored; nil if none

	queue sync.Mutex // over dirty; may be taken under mu
	dirty []*object
}

func (s *shard) init(c *Counter, i int) {
	s.space = key.New(c.opts.Prefix, "counter", layout, c.schema.Name+"/"+strconv.Itoa(i))
	s.token = s.space.Key("f:" + c.nonce)
	s.objects, s.spread = map[int64]*object{}, map[name]*object{}
}

// The states of a shard, which are all that Add has to ask.
const (
	open uint32 = iota
	backlogged
	closed
)

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

func (s *shard) keyOf(n name) string {
	k := "c:" + strconv.FormatInt(n.id, 10)
	if n.sub > 0 {
		k += ":" + strconv.Itoa(n.sub)
	}
	return s.space.Key(k)
}

// find returns the object of that name, or nil. It is called with mu held.
func (s *shard) find(n name) *object {
	if n.sub == 0 {
		return s.objects[n.id]
	}
	return s.spread[n]
}

// object returns the object of that name, making it if need be; nil after Close. It
// is called with mu held for writing.
func (s *shard) object(n name, fields int) *object {
	o := s.find(n)
	if o == nil && s.state.Load() != closed {
		o = &object{
			name: n, key: s.keyOf(n),
			cells: make([]atomic.Int64, fields), flight: make([]int64, fields), rest: make([]int64, fields),
		}
		if n.sub == 0 {
			s.objects[n.id] = o
		} else {
			s.spread[n] = o
		}
	}
	return o
}

// poisoned is what Close leaves in a cell, far from any number that pending
// increments reach: whoever adds to it learns that it came too late.
const poisoned = -1 << 62

// add adds to a cell. It reports false, with nothing counted, if the cell is
// poisoned or full.
func (s *shard) add(o *object, field int, delta int64) bool {
	now := o.cells[field].Add(delta)
	if now >= maxPending || now <= -maxPending {
		o.cells[field].Add(-delta)
		return false
	}
	// Also if another goroutine is about to queue it: a Flush after this call must find
	// the object.
	s.enqueue(o)
	return true
}

// enqueue puts an object into dirty, before it reports that it is there.
func (s *shard) enqueue(o *object) {
	if o.queued.Load() {
		return
	}
	s.queue.Lock()
	defer s.queue.Unlock()
	if !o.queued.Load() {
		s.dirty = append(s.dirty, o)
		o.queued.Store(true)
	}
}

// poison takes what is in the cells and leaves no way to add to them. It looks at all
// objects, not only at the queued: one may have been added to and not queued yet. An
// addition that finds no poison was there before it, and so is in the rest.
func (s *shard) poison() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Store(closed)
	for _, o := range s.objects {
		s.poisonOne(o)
	}
	for _, o := range s.spread {
		s.poisonOne(o)
	}
}

func (s *shard) poisonOne(o *object) {
	some := false
	for i := range o.cells {
		o.rest[i] = o.cells[i].Swap(poisoned)
		some = some || o.rest[i] != 0
	}
	if some {
		s.enqueue(o)
	}
}

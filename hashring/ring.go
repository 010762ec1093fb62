package hashring

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// ErrInvalid is a bad argument or option; the message names it.
var ErrInvalid = errors.New("hashring: invalid argument")

// Limits of a ring.
const (
	maxNodes  = 4096
	maxPoints = 1 << 22
	maxID     = 256 // bytes
	maxWeight = 100
)

// Options of a Ring. Give every process the same. The zero value of a field is its
// default.
type Options struct {
	// VirtualNodes is how many points of the ring a node of weight 1 has; 512 if 0,
	// at most 65,536. The shares of equal nodes deviate by about 1/√VirtualNodes.
	VirtualNodes int
	// LoadFactor is how much more than the average work Acquire gives to a node; 1.25
	// if 0, from 1 to 100, rounded to a thousandth. Near 1 the load is even and keys
	// wander; from 2 on hardly any key leaves its node.
	LoadFactor float64
	// Rise is how many reports SetDown(id, false) in a row bring a node back; 3 if 0,
	// at most 1,000.
	Rise int
}

func (o Options) withDefaults() (Options, error) {
	if o.VirtualNodes == 0 {
		o.VirtualNodes = 512
	}
	if o.LoadFactor == 0 {
		o.LoadFactor = 1.25
	}
	if o.Rise == 0 {
		o.Rise = 3
	}
	switch {
	case o.VirtualNodes < 1 || o.VirtualNodes > 65536:
		return o, fmt.Errorf("%w: Options.VirtualNodes %d, want 1 to 65536", ErrInvalid, o.VirtualNodes)
	case !(o.LoadFactor >= 1 && o.LoadFactor <= 100): // NaN is neither
		return o, fmt.Errorf("%w: Options.LoadFactor %v, want 1 to 100", ErrInvalid, o.LoadFactor)
	case o.Rise < 1 || o.Rise > 1000:
		return o, fmt.Errorf("%w: Options.Rise %d, want 1 to 1000", ErrInvalid, o.Rise)
	}
	return o, nil
}

// A Node is a member of a ring.
type Node struct {
	ID     string // where its keys are depends on it; 1 to 256 bytes
	Weight int    // its share relative to others; 1 if 0, at most 100
}

// A Ring maps keys to nodes. Methods may be called from many goroutines; Get,
// GetN and Acquire do not wait for the others.
type Ring struct {
	opts    Options
	place   func(string) uint64 // of a node's points
	permill int64               // Options.LoadFactor in thousandths

	index     atomic.Pointer[index]
	underWay  atomic.Int64 // acquired and not done, on all nodes there ever were
	displaced atomic.Uint64
	fallbacks atomic.Uint64

	mu      sync.Mutex // over what follows, and over who replaces index
	members []*member  // by id
	points  []point    // of all members, by hash and then id
}

// A member is a node and what the ring knows of it. It outlives the indexes.
type member struct {
	node  Node
	load  atomic.Int64 // acquired and not done
	done  func()
	down  bool
	rises int // good reports in a row while down
}

// New returns a ring of nodes, which may be none and in any order. Ids must
// differ. A ring has at most 4,096 nodes and 2^22 points (VirtualNodes × weight,
// summed over the nodes).
func New(nodes []Node, opts Options) (*Ring, error) {
	return newRing(nodes, opts, xxhash.Sum64String)
}

func newRing(nodes []Node, opts Options, place func(string) uint64) (*Ring, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Ring{opts: opts, place: place, permill: int64(math.Round(opts.LoadFactor * 1000))}
	r.index.Store(newIndex(nil, nil))
	if err := r.Update(nodes, nil); err != nil {
		return nil, err
	}
	return r, nil
}

// Get returns the node that has key: the first one that is up, clockwise from the
// key's place. It reports false only if the ring is empty. O(1), no allocations.
func (r *Ring) Get(key string) (Node, bool) {
	x := r.index.Load()
	if len(x.members) == 0 {
		return Node{}, false
	}
	return x.nodes[x.owner(xxhash.Sum64String(key))], true
}

// GetN appends to dst the first n different nodes that are up, clockwise from the
// key's place, or all if there are fewer: the node that has the key, then where its
// replicas belong. When a node leaves, the others keep their order. No allocations
// if dst has room.
func (r *Ring) GetN(key string, n int, dst []Node) []Node {
	x := r.index.Load()
	if n <= 0 || len(x.members) == 0 {
		return dst
	}
	for w := x.walk(xxhash.Sum64String(key)); n > 0; n-- {
		m, ok := w.next()
		if !ok {
			break
		}
		dst = append(dst, x.nodes[m])
	}
	return dst
}

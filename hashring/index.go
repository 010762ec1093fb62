package hashring

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// A point is a place on the ring that belongs to a member.
type point struct {
	hash  uint64
	owner uint16 // index into the members, which are in the order of their ids
}

// layPoints returns all points of members by (hash, id). The place of a point
// depends on the node's id and the point's number alone: that is why more weight
// only adds points, and why the order of insertion does not matter.
func layPoints(members []*member, perWeight int, place func(string) uint64) []point {
	total := 0
	for _, m := range members {
		total += m.node.Weight * perWeight
	}
	points := make([]point, 0, total)
	for i, m := range members {
		// The number has a fixed width, so that no id with its number is another.
		name := append([]byte(m.node.ID), make([]byte, 8)...)
		number := name[len(name)-8:]
		for k := range m.node.Weight * perWeight {
			binary.LittleEndian.PutUint64(number, uint64(k))
			points = append(points, point{place(string(name)), uint16(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return cmp.Compare(a.owner, b.owner)
	})
	return points
}

// An index answers look-ups and never changes. Arrays of one field each keep a
// look-up within few cache lines.
//
// The ring is cut into cells, a power of two and at least twice as many as there are
// points. Most cells have no point inside: all their keys have one owner, which
// stands in the cell. The others name their first point.
type index struct {
	cells   []uint32
	shift   uint     // a hash's cell is hash >> shift
	hashes  []uint64 // of the points that are up, ascending, and then MaxUint64
	owners  []uint16 // of hashes; the last one, for the wrap, is the first
	nodes   []Node   // of all members
	members []*member
	up      int   // members with points here
	weight  int64 // of those
}

// direct marks a cell that holds its owner.
const direct = 1 << 31

// newIndex takes up all members and the points of those that are up, or of all if
// none is.
func newIndex(members []*member, points []point) *index {
	x := &index{members: members, nodes: make([]Node, len(members))}
	serves := make([]bool, len(members))
	for i, m := range members {
		x.nodes[i] = m.node
		serves[i] = !m.down
		if serves[i] {
			x.up++
			x.weight += int64(m.node.Weight)
		}
	}
	if x.up == 0 {
		x.up = len(members)
		for i, m := range members {
			serves[i] = true
			x.weight += int64(m.node.Weight)
		}
	}
	x.hashes = make([]uint64, 0, len(points)+1)
	x.owners = make([]uint16, 0, len(points)+1)
	for _, p := range points {
		if serves[p.owner] {
			x.hashes = append(x.hashes, p.hash)
			x.owners = append(x.owners, p.owner)
		}
	}
	n := len(x.owners)
	if n == 0 {
		return x
	}
	x.hashes = append(x.hashes, math.MaxUint64)
	x.owners = append(x.owners, x.owners[0])

	size := bits.Len(uint(2*n - 1)) // of the cell numbers, in bits
	x.shift = uint(64 - size)
	x.cells = make([]uint32, 1<<size)
	next := 0
	for c := range x.cells {
		last := uint64(c+1)<<x.shift - 1 // wraps to MaxUint64 for the last cell
		if next < n && x.hashes[next] <= last {
			x.cells[c] = uint32(next)
			for next < n && x.hashes[next] <= last {
				next++
			}
		} else {
			x.cells[c] = direct | uint32(x.owners[next])
		}
	}
	return x
}

// owner returns the member that has the place h.
func (x *index) owner(h uint64) int {
	c := x.cells[h>>(x.shift&63)]
	if c&direct != 0 {
		return int(c &^ direct)
	}
	for x.hashes[c] < h {
		c++
	}
	return int(x.owners[c])
}

// first returns the first point at or after h, counting the wrap as one.
func (x *index) first(h uint64) int {
	for c := h >> x.shift; c < uint64(len(x.cells)); c++ {
		if i := x.cells[c]; i&direct == 0 {
			for x.hashes[i] < h {
				i++
			}
			return int(i)
		}
	}
	return len(x.owners) - 1
}

// A walk visits the members that are up, clockwise, each once.
type walk struct {
	x    *index
	at   int // the next point
	left int // members not visited
	seen [maxNodes / 64]uint64
}

func (x *index) walk(h uint64) walk { return walk{x: x, at: x.first(h), left: x.up} }

func (w *walk) next() (member int, ok bool) {
	if w.left == 0 {
		return 0, false
	}
	for {
		if w.at >= len(w.x.owners)-1 { // the last point stands for the first
			w.at = 0
		}
		m := w.x.owners[w.at]
		w.at++
		if bit := uint64(1) << (m % 64); w.seen[m/64]&bit == 0 {
			w.seen[m/64] |= bit
			w.left--
			return int(m), true
		}
	}
}

// shares returns what part of the ring each member has.
func (x *index) shares() []float64 {
	arcs := make([]float64, len(x.members))
	if len(x.owners) == 0 {
		return arcs
	}
	before := x.hashes[len(x.hashes)-2]
	for i, h := range x.hashes[:len(x.hashes)-1] {
		arcs[x.owners[i]] += float64(h - before) // wraps for the first
		before = h
	}
	for i := range arcs {
		arcs[i] /= math.MaxUint64
	}
	if len(x.hashes) == 2 { // the arc of a lone point is the circle, not 0
		arcs[x.owners[0]] = 1
	}
	return arcs
}

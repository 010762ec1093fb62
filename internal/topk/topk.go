// Package topk finds the most frequent keys of a stream in bounded memory.
//
// It is the HeavyKeeper of "HeavyKeeper: An Accurate Algorithm for Finding Top-k
// Elephant Flows" (Gong, Yang, Zhang, et al., 2018) behind a list of the k largest
// that count for themselves, as in "Augmented Sketch: Faster and more Accurate
// Stream Processing" (Roy, Khan, Alonso, 2016): a key in the list is counted
// exactly and no longer touches the sketch, which makes the common case of a skewed
// stream the cheap one.
package topk

import (
	"math"
	"math/bits"
)

const (
	depth = 4
	width = 1024 // buckets in a row, a power of two
	// base makes a bucket of count c give way to another key with the chance
	// base^-c. The paper's value.
	base = 1.08
	// maxKey is the longest key, in bytes, that can be in the list.
	maxKey = 512
)

// A bucket counts one key, told by 32 bits of its hash.
type bucket struct{ print, count uint32 }

// An entry is a key of the list. Its buffer is used again for the next key.
type entry struct {
	key   []byte
	count uint32
}

// A Sketch counts keys. It takes 34 KiB and k keys, and is not safe for
// concurrent use.
type Sketch struct {
	buckets [depth][width]bucket
	decay   [256]uint32 // base^-c as a part of 2^32
	hashes  []uint64    // of the list, apart so that a search reads little
	list    []entry
	k       int
	least   int // the smallest of a full list
	total   float64
	random  uint64
}

// New returns a sketch that keeps the k largest keys. The seed is for its random
// numbers; it must not be 0.
func New(k int, seed uint64) *Sketch {
	s := &Sketch{k: k, hashes: make([]uint64, 0, k), list: make([]entry, 0, k), random: seed}
	for c := range s.decay {
		s.decay[c] = uint32(math.Pow(base, -float64(c)) * math.MaxUint32)
	}
	return s
}

// Add counts one occurrence of key, whose 64-bit hash the caller computed. A key
// longer than 512 bytes counts towards Total only. It allocates only while the list's
// buffers grow.
func (s *Sketch) Add(key string, hash uint64) {
	s.total++
	if len(key) > maxKey {
		return
	}
	for i, h := range s.hashes {
		if h == hash && string(s.list[i].key) == key {
			s.list[i].count++
			if i == s.least {
				s.findLeast()
			}
			return
		}
	}
	if count := s.count(hash); len(s.list) < s.k {
		s.hashes = append(s.hashes, hash)
		s.list = append(s.list, entry{[]byte(key), count})
		s.findLeast()
	} else if e := &s.list[s.least]; count > e.count {
		s.keep(s.hashes[s.least], e.count)
		e.key, e.count = append(e.key[:0], key...), count
		s.hashes[s.least] = hash
		s.findLeast()
	}
}

// count adds one to the sketch and returns its estimate, which is hardly ever too
// large.
func (s *Sketch) count(hash uint64) (estimate uint32) {
	print := fingerprint(hash)
	for row := range s.buckets {
		b := &s.buckets[row][place(hash, row)]
		switch {
		case b.print == print && b.count > 0:
			b.count++
		case b.count == 0:
			*b = bucket{print, 1}
		default:
			if b.count >= uint32(len(s.decay)) || s.rand32() >= s.decay[b.count] {
				continue
			}
			if b.count--; b.count > 0 {
				continue
			}
			*b = bucket{print, 1}
		}
		estimate = max(estimate, b.count)
	}
	return estimate
}

// keep puts what the list counted for a key that leaves it back into the sketch,
// where the key's buckets are still its own or hold less.
func (s *Sketch) keep(hash uint64, count uint32) {
	for row := range s.buckets {
		if b := &s.buckets[row][place(hash, row)]; b.count < count {
			*b = bucket{fingerprint(hash), count}
		}
	}
}

// Halve halves every count, so that what is past weighs less and less.
func (s *Sketch) Halve() {
	for row := range s.buckets {
		for i := range s.buckets[row] {
			s.buckets[row][i].count /= 2
		}
	}
	for i := range s.list {
		s.list[i].count /= 2
	}
	s.total /= 2
	s.findLeast()
}

// Total returns how many occurrences were counted, halved as they were.
func (s *Sketch) Total() float64 { return s.total }

// Len returns the length of the list.
func (s *Sketch) Len() int { return len(s.list) }

// At returns entry i of the list, which is in no order. The key is good until the
// next Add.
func (s *Sketch) At(i int) (key []byte, hash uint64, count uint32) {
	return s.list[i].key, s.hashes[i], s.list[i].count
}

func (s *Sketch) findLeast() {
	s.least = 0
	for i := range s.list {
		if s.list[i].count < s.list[s.least].count {
			s.least = i
		}
	}
}

// place and fingerprint take different bits of the hash, mixed once more, so that
// keys which share one bucket differ in the others.
func place(hash uint64, row int) uint64 {
	return bits.RotateLeft64(hash, 13*row) * 0x9E3779B97F4A7C15 >> (64 - 10)
}

func fingerprint(hash uint64) uint32 { return uint32(hash * 0xD6E8FEB86659FD93 >> 32) }

// rand32 is xorshift64*: cheap, and good enough to toss a coin.
func (s *Sketch) rand32() uint32 {
	s.random ^= s.random >> 12
	s.random ^= s.random << 25
	s.random ^= s.random >> 27
	return uint32(s.random * 0x2545F4914F6CDD1D >> 32)
}

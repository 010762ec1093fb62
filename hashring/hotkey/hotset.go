package hotkey

import "math/bits"

// A hotSet is a set of keys that does not change once it is published: an open
// hash table at most half full, so that a key that is not in it, which is nearly
// every key, is told by its hash.
type hotSet struct {
	n      int
	mask   uint64
	hashes []uint64
	keys   []string // empty where nothing is: the empty key has a place of its own
	empty  bool     // "" is in the set
}

func newHotSet(n int) *hotSet {
	size := 1 << bits.Len(uint(2*n-1))
	return &hotSet{mask: uint64(size - 1), hashes: make([]uint64, size), keys: make([]string, size)}
}

func (s *hotSet) add(hash uint64, key string) {
	s.n++
	if key == "" {
		s.empty = true
		return
	}
	i := hash & s.mask
	for s.keys[i] != "" {
		i = (i + 1) & s.mask
	}
	s.hashes[i], s.keys[i] = hash, key
}

func (s *hotSet) has(hash uint64, key string) bool { return find(s, hash, key) }

// find takes a key in either form, since making a string of bytes would allocate.
func find[K string | []byte](s *hotSet, hash uint64, key K) bool {
	if len(key) == 0 {
		return s.empty
	}
	for i := hash & s.mask; s.keys[i] != ""; i = (i + 1) & s.mask {
		if s.hashes[i] == hash && s.keys[i] == string(key) {
			return true
		}
	}
	return false
}

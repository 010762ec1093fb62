package shorturl

import (
	"hash/maphash"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ways is how many places an entry can be in.
const ways = 4

// A table remembers entries by code, a bounded number of them. Reading takes no lock
// and allocates nothing; what is crowded out is chosen at random. A nil table
// remembers nothing.
type table struct {
	seed  maphash.Seed
	slots []atomic.Pointer[entry]
	mask  uint64
}

// An entry is what is known of a code. It is immutable.
type entry struct {
	code     string
	link     Link
	until    time.Time
	location []string // the header, made once
}

func newTable(size int) *table {
	sets := 1
	for sets*ways < size {
		sets *= 2
	}
	return &table{maphash.MakeSeed(), make([]atomic.Pointer[entry], sets*ways), uint64(sets - 1)}
}

func (t *table) set(code string) []atomic.Pointer[entry] {
	i := maphash.String(t.seed, code) & t.mask * ways
	return t.slots[i : i+ways]
}

// get returns what is known of code at the time now, or nil.
func (t *table) get(code string, now time.Time) *entry {
	if t == nil {
		return nil
	}
	set := t.set(code)
	for i := range set {
		if e := set[i].Load(); e != nil && e.code == code && now.Before(e.until) {
			return e
		}
	}
	return nil
}

func (t *table) put(e *entry, now time.Time) {
	if t == nil {
		return
	}
	set := t.set(e.code)
	free := rand.IntN(ways)
	for i := range set {
		old := set[i].Load()
		if old != nil && old.code == e.code {
			set[i].Store(e)
			return
		}
		if old == nil || !now.Before(old.until) {
			free = i
		}
	}
	set[free].Store(e)
}

func (t *table) remove(code string) {
	if t == nil {
		return
	}
	set := t.set(code)
	for i := range set {
		if e := set[i].Load(); e != nil && e.code == code {
			set[i].CompareAndSwap(e, nil)
		}
	}
}

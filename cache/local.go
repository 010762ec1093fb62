package cache

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

// An item is what the local level knows of a key. It is never changed.
type item[V any] struct {
	name    string
	value   V
	flags   byte
	version int64 // 0: not in Redis
	epoch   uint64

	// Moments on the local level's clock.
	expires instant // from then on Redis is asked
	hard    instant // end of the TTL
	soft    instant // from then on it is refreshed in the background; 0: never

	took time.Duration // its load
}

// An instant is a time in ns since the local level was made: monotonic, so that
// setting the machine's clock changes no TTL.
type instant int64

// local is the level in this process. It is ristretto in a wrapper that gives
// what ristretto does not:
//
//   - What was put is there at once. ristretto adds new keys some time later; two
//     Sets of a new key may end with the first value; and under load it drops most.
//     So puts of one stripe follow each other, each waits until it was applied, and
//     the last thousand stand in a small overlay as well, whatever became of them.
//   - What was deleted stays away. A put says under which mark its value was read;
//     whatever was deleted in the stripe since then makes the mark old.
//   - Everything can be made old at once, by a new epoch.
//   - Neither a put nor a get runs into the end of close, at which ristretto panics.
//     Puts take a lock, gets are counted.
//
// Entries expire by their own times rather than ristretto's: reading is more
// than twice as fast.
type local[V any] struct {
	store *ristretto.Cache[uint64, *item[V]] // nil: there is no local level
	seed  maphash.Seed
	base  time.Time
	epoch atomic.Uint64

	stripes [stripes]stripe
	overlay overlay[V]
	heat    heat
	hits    spread

	closing sync.RWMutex
	closed  bool
}

const stripes = 1024

type stripe struct {
	mu         sync.Mutex
	generation atomic.Uint64
	_          [48]byte // a cache line each
}

// A mark is what must not have changed between a read and its put.
type mark struct {
	generation, epoch uint64
	at                instant // of the read, from which its TTLs count
}

func newLocal[V any](size int) (*local[V], error) {
	l := &local[V]{seed: maphash.MakeSeed(), base: time.Now()}
	if size < 0 {
		return l, nil
	}
	var err error
	l.store, err = ristretto.NewCache(&ristretto.Config[uint64, *item[V]]{
		NumCounters: 10 * int64(size), MaxCost: int64(size), BufferItems: 64, IgnoreInternalCost: true,
		KeyToHash: func(hash uint64) (uint64, uint64) { return hash, 0 },
	})
	return l, err
}

func (l *local[V]) now() instant { return instant(time.Since(l.base)) }

func (l *local[V]) hash(name string) uint64 { return maphash.String(l.seed, name) }

func (l *local[V]) stripe(hash uint64) *stripe { return &l.stripes[hash%stripes] }

// get returns what is known of name, fresh or not, or nil.
func (l *local[V]) get(name string, hash uint64) *item[V] {
	if l.store == nil {
		return nil
	}
	if l.hits.enter(hash) {
		it, ok := l.store.Get(hash)
		l.hits.leave(hash)
		if ok && it.name == name {
			return it
		}
	}
	return l.overlay.get(name)
}

// fresh reports whether it may be answered without asking anybody.
func (l *local[V]) fresh(it *item[V], now instant) bool {
	return now < it.expires && it.epoch == l.epoch.Load()
}

// mark must be taken before the value that is put under it is read.
func (l *local[V]) mark(hash uint64) mark {
	return mark{l.stripe(hash).generation.Load(), l.epoch.Load(), l.now()}
}

// unchanged reports whether nothing was deleted in the stripe since m.
func (l *local[V]) unchanged(hash uint64, m mark) bool {
	return l.stripe(hash).generation.Load() == m.generation && l.epoch.Load() == m.epoch
}

// put keeps it unless something happened in its stripe since m, or a newer
// version is there.
func (l *local[V]) put(hash uint64, it *item[V], m mark) {
	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.store == nil || l.closed {
		return
	}
	s := l.stripe(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.unchanged(hash, m) {
		return
	}
	it.epoch = m.epoch
	if was := l.get(it.name, hash); was != nil && was.version > it.version && l.fresh(was, l.now()) {
		return
	}
	l.keep(hash, it)
}

// write makes all marks of the stripe old and keeps it, if m is not old. If it
// is, another writer was there meanwhile, of this key perhaps: nobody here knows
// who came last, and name is forgotten.
func (l *local[V]) write(hash uint64, it *item[V], m mark) {
	l.closing.RLock()
	defer l.closing.RUnlock()
	s := l.stripe(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.generation.Add(1) == m.generation+1 && l.epoch.Load() == m.epoch
	switch {
	case l.store == nil || l.closed:
	case same:
		it.epoch = m.epoch
		l.keep(hash, it)
	default:
		l.store.Del(hash)
		l.overlay.drop(it.name)
	}
}

// set is write where there is no other level: who comes last is decided here.
// With add it reports false, and keeps nothing, if something is there.
func (l *local[V]) set(hash uint64, it *item[V], add bool) bool {
	l.closing.RLock()
	defer l.closing.RUnlock()
	s := l.stripe(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if add {
		was := l.get(it.name, hash)
		if was != nil && was.flags&flagNull == 0 && l.fresh(was, l.now()) {
			return false
		}
	}
	s.generation.Add(1)
	if !l.closed {
		it.epoch = l.epoch.Load()
		l.keep(hash, it)
	}
	return true
}

// keep puts it into the store and the overlay. The stripe is locked.
func (l *local[V]) keep(hash uint64, it *item[V]) {
	l.overlay.replace(it, l.heat.has(it.name))
	if _, ok := l.store.Get(hash); ok {
		l.store.Set(hash, it, 1) // replaces at once
	}
	if now, _ := l.store.Get(hash); now == it {
		return
	}
	// It is new, or was evicted in this moment.
	if !l.store.Set(hash, it, 1) { // its buffer is full
		l.store.Wait()
		l.store.Set(hash, it, 1)
	}
	l.store.Wait()
	if now, ok := l.store.Get(hash); ok && now != it {
		l.store.Del(hash) // an older Set of an evicted key came through in its place
	}
}

// bump makes all marks of the stripe old and returns a new one.
func (l *local[V]) bump(hash uint64) mark {
	return mark{l.stripe(hash).generation.Add(1), l.epoch.Load(), l.now()}
}

// clear forgets name and makes all marks of its stripe old.
func (l *local[V]) clear(name string, hash uint64) {
	l.closing.RLock()
	defer l.closing.RUnlock()
	s := l.stripe(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation.Add(1)
	if l.store != nil && !l.closed {
		l.store.Del(hash)
		l.overlay.drop(name)
	}
}

// flush makes everything old, at once.
func (l *local[V]) flush() { l.epoch.Add(1) }

func (l *local[V]) close() {
	l.closing.Lock()
	defer l.closing.Unlock()
	if l.store != nil && !l.closed {
		l.hits.shut()
		l.store.Close()
	}
	l.closed = true
}

// shorten returns d less a random part of the jitter that is given for it.
func (o *Options) shorten(d time.Duration) time.Duration {
	if j := o.jitterOf(d); j > 0 {
		d -= rand.N(j)
	}
	return d
}

package cache

import (
	"sync"
	"sync/atomic"
)

// An overlay holds what ristretto refused: a full store of hot keys refuses nine
// new ones of ten, but who has just Set a value wants to Get it. It is a ring: the
// oldest goes. Besides, it holds what is pinned.
type overlay[V any] struct {
	used   atomic.Int64 // spares a lock where there is nothing
	mu     sync.RWMutex
	items  map[string]*item[V]
	ring   []string
	next   int
	pinned map[string]*item[V]
}

const overlaySize = 1024

func (o *overlay[V]) get(name string) *item[V] {
	if o.used.Load() == 0 {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if it := o.items[name]; it != nil {
		return it
	}
	return o.pinned[name]
}

// replace takes in what was just kept: the store has it or not, and it is to be
// pinned or not. Nothing older of that name stays.
func (o *overlay[V]) replace(it *item[V], stored, pin bool) {
	if stored && !pin && o.used.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if stored {
		delete(o.items, it.name)
	} else {
		o.put(it)
	}
	if pin {
		o.pin(it)
	} else {
		delete(o.pinned, it.name)
	}
	o.count()
}

func (o *overlay[V]) put(it *item[V]) {
	if _, ok := o.items[it.name]; !ok {
		if o.items == nil {
			o.items = make(map[string]*item[V])
			o.ring = make([]string, overlaySize)
		}
		// The place may be of a name that was dropped and came again at another
		// place; then that one goes early.
		delete(o.items, o.ring[o.next])
		o.ring[o.next] = it.name
		o.next = (o.next + 1) % overlaySize
	}
	o.items[it.name] = it
}

func (o *overlay[V]) pin(it *item[V]) {
	if o.pinned == nil {
		o.pinned = make(map[string]*item[V])
	}
	o.pinned[it.name] = it
}

// drop forgets name, wherever it is.
func (o *overlay[V]) drop(name string) {
	if o.used.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, name)
	delete(o.pinned, name)
	o.count()
}

// keepPinned pins what is there already. It must not have been replaced or
// dropped since it was found.
func (o *overlay[V]) keepPinned(it *item[V]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pin(it)
	o.count()
}

// unpin forgets what is pinned and not to be kept.
func (o *overlay[V]) unpin(keep func(name string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.pinned {
		if !keep(name) {
			delete(o.pinned, name)
		}
	}
	o.count()
}

func (o *overlay[V]) count() { o.used.Store(int64(len(o.items) + len(o.pinned))) }

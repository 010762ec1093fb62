package cache

import "sync"

// An overlay holds what was put last, besides ristretto: a full store of hot keys
// refuses nine new ones of ten, and evicts others at once, but who has just Set a
// value wants to Get it. It is a ring: the oldest goes. Besides, it holds what is
// pinned.
type overlay[V any] struct {
	mu     sync.RWMutex
	items  map[string]*item[V]
	ring   []string
	next   int
	pinned map[string]*item[V]
}

const overlaySize = 1024

func (o *overlay[V]) get(name string) *item[V] {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if it := o.items[name]; it != nil {
		return it
	}
	return o.pinned[name]
}

// replace takes in what was just kept. Nothing older of that name stays.
func (o *overlay[V]) replace(it *item[V], pin bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
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
	if pin {
		o.pin(it)
	} else {
		delete(o.pinned, it.name)
	}
}

func (o *overlay[V]) pin(it *item[V]) {
	if o.pinned == nil {
		o.pinned = make(map[string]*item[V])
	}
	o.pinned[it.name] = it
}

// drop forgets name, wherever it is.
func (o *overlay[V]) drop(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, name)
	delete(o.pinned, name)
}

// keepPinned pins what is there already. It must not have been replaced or
// dropped since it was found.
func (o *overlay[V]) keepPinned(it *item[V]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pin(it)
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
}

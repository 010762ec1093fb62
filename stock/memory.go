package stock

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A memory is what this process knows of SKUs that have nothing left. It is never
// asked about more than that: a positive figure from memory would be a guess.
type memory struct {
	ttl  time.Duration
	skus sync.Map // sku → *known
}

type known struct {
	version int64
	until   time.Time // sold out until then; zero: not sold out
	err     error     // the answer, made once
}

// seen notes that the SKU had left units, 0 or more, at a version, in an answer to
// a call sent at that time. Older versions than the one known are ignored, so that
// a late answer cannot hide a restock.
func (m *memory) seen(sku string, version, left int64, sent time.Time) {
	if m.ttl <= 0 {
		return
	}
	now := &known{version: version}
	if left == 0 {
		now.until = sent.Add(m.ttl)
		now.err = &InsufficientError{SKU: sku, FromMemory: true}
	}
	for {
		v, loaded := m.skus.LoadOrStore(sku, now)
		if !loaded {
			return
		}
		was := v.(*known)
		if version < was.version || version == was.version && !now.until.After(was.until) {
			return
		}
		if m.skus.CompareAndSwap(sku, was, now) {
			return
		}
	}
}

// forget drops what is known of the SKUs of items.
func (m *memory) forget(items []Item) {
	for _, it := range items {
		m.skus.Delete(it.SKU)
	}
}

// soldOut returns the answer for a SKU of which nothing is left, or nil.
func (m *memory) soldOut(sku string) error {
	v, ok := m.skus.Load(sku)
	if !ok {
		return nil
	}
	k := v.(*known)
	// time.Until reads one clock where time.Now reads two: a fifth of this answer.
	if k.until.IsZero() || time.Until(k.until) < 0 {
		return nil
	}
	return k.err
}

// soldOut answers a new order from memory where that is safe: one of its SKUs, or
// all if it is partial, has nothing left, and no attempt under its id is unresolved.
func (a *Activity) soldOut(o *Order) error {
	var answer error
	for i := range o.Items {
		err := a.memory.soldOut(o.Items[i].SKU)
		if err == nil && o.Partial {
			return nil
		}
		if err != nil && answer == nil {
			answer = err
		}
	}
	if answer == nil || a.home(o.User).doubts.has(o.ID) {
		return nil
	}
	a.stats.fromMemory.Add(1)
	return answer
}

// maxDoubts bounds the ids that are remembered as unresolved.
const maxDoubts = 10_000

// doubts are the ids whose last outcome here was unknown.
type doubts struct {
	n     atomic.Int64 // of ids, so that the usual case takes no lock
	mu    sync.Mutex
	ids   map[string]time.Time // record field → when it stops to matter
	blind time.Time            // until then there are ids in doubt that were not kept
}

func (d *doubts) add(field string, retention time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = make(map[string]time.Time)
	}
	now := time.Now()
	if len(d.ids) >= maxDoubts {
		for f, until := range d.ids {
			if now.After(until) {
				delete(d.ids, f)
			}
		}
	}
	if len(d.ids) < maxDoubts {
		d.ids[field] = now.Add(retention)
	} else {
		d.blind = now.Add(retention)
	}
	d.n.Store(int64(len(d.ids)))
}

func (d *doubts) clear(field string) {
	if d.n.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().After(d.blind) { // else n must not fall to 0
		delete(d.ids, field)
	}
	d.n.Store(int64(len(d.ids)))
}

// has tells whether the order id may have been settled unnoticed.
func (d *doubts) has(id string) bool {
	if d.n.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.ids[strconv.Itoa(len(id))+":"+id]
	return ok || time.Now().Before(d.blind)
}

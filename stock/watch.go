package stock

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// watchEvery is how often the events of the buckets are asked for.
const watchEvery = 100 * time.Millisecond

// runBuckets is Run of an activity with buckets.
func (a *Activity) runBuckets(ctx context.Context) {
	var wg sync.WaitGroup
	if a.opts.OnEvent != nil || a.opts.SoldOutFor > 0 {
		w := &watcher{a: a, from: make([]string, len(a.buckets)), open: map[string]bool{}}
		// Before the first sweep: what that releases is told of.
		_ = w.begin(ctx)
		wg.Go(func() { w.watch(ctx) })
	}
	for _, b := range a.buckets {
		wg.Go(func() { b.runSweep(ctx) })
	}
	a.runTransfers(ctx)
	wg.Wait()
}

// runTransfers finishes transfers whose process is gone.
func (a *Activity) runTransfers(ctx context.Context) {
	for ctx.Err() == nil {
		v := a.look(ctx, nil)
		var err error
		for i := range v {
			err = errors.Join(err, v[i].err)
		}
		for _, t := range onTheirWay(v) {
			err = errors.Join(err, a.finish(ctx, t))
		}
		if err != nil {
			a.troubled(ctx, "finish transfers", err)
			continue
		}
		sleep(ctx, maxSleep)
	}
}

// A watcher is where watch stands.
type watcher struct {
	a    *Activity
	from []string        // by bucket: id of the last event that was read
	out  map[string]bool // SKUs that are sold out, as far as was told; nil before the start
	mu   sync.Mutex
	open map[string]bool // SKUs of which something happened that was not looked at
}

// watch tells of sell-outs and returns of the activity as a whole. What happens in a
// bucket says no more than that it is time to look at all of them.
func (w *watcher) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.step(ctx)
		if err != nil {
			w.a.troubled(ctx, "read events", err)
			continue
		}
		sleep(ctx, watchEvery)
	}
}

func (w *watcher) step(ctx context.Context) error {
	if w.out == nil {
		return w.begin(ctx)
	}
	err := together(w.a.buckets, func(b *Activity) error { return w.read(ctx, b) })
	if err != nil {
		return err
	}
	for skus := range slices.Chunk(slices.Collect(maps.Keys(w.open)), maxItems) {
		if err := w.judge(ctx, skus); err != nil {
			return err
		}
	}
	return nil
}

// begin fixes the places in the streams, and what is sold out there. That is read as it
// stands: Stock of the whole would release the holds that are over. Units on their way
// are not seen; if they are the last ones, their arrival is told as a return.
func (w *watcher) begin(ctx context.Context) error {
	for i, b := range w.a.buckets {
		var err error
		if w.from[i], err = b.lastEvent(ctx); err != nil {
			return err
		}
	}
	levels := make([]map[string]Level, len(w.from))
	err := together(w.a.buckets, func(b *Activity) (err error) {
		levels[b.bucket], err = b.Stock(ctx)
		return err
	})
	if err != nil {
		return err
	}
	w.out = map[string]bool{}
	for sku, l := range addLevels(levels, nil) {
		if l.Left == 0 {
			w.out[sku] = true
		}
	}
	return nil
}

// read collects the SKUs of which something happened in a bucket.
func (w *watcher) read(ctx context.Context, b *Activity) error {
	for {
		page, err := b.rdb.XRangeN(ctx, b.keys.events, "("+w.from[b.bucket], "+", 100).Result()
		if err != nil {
			return err
		}
		for _, m := range page {
			w.from[b.bucket] = m.ID
			if ev, ok := parseEvent(m.Values); ok {
				w.mu.Lock()
				w.open[ev.SKU] = true
				w.mu.Unlock()
			}
		}
		if len(page) < 100 {
			return nil
		}
	}
}

// judge tells of the SKUs that two looks agree on; the others stay open.
func (w *watcher) judge(ctx context.Context, skus []string) error {
	items := make([]Item, len(skus))
	for k, sku := range skus {
		items[k] = Item{SKU: sku, Qty: 1}
	}
	before, now := w.a.look(ctx, items), w.a.look(ctx, items)
	for i := range now {
		if err := errors.Join(before[i].err, now[i].err); err != nil {
			return err
		}
	}
	for k, sku := range skus {
		ev := Event{SKU: sku}
		for i := range now {
			ev.Left += now[i].left[k]
			ev.Version += now[i].version[k]
		}
		if ev.Left == 0 {
			if _, sold := nowhereElse(before, now, -1, k, sku); !sold {
				continue
			}
		} else {
			w.a.memory.forget(items[k : k+1])
		}
		delete(w.open, sku)
		if w.out[sku] == (ev.Left == 0) {
			continue
		}
		w.out[sku] = ev.Left == 0
		if w.a.events.fresh(ev) {
			w.a.stats.events.Add(1)
			if w.a.opts.OnEvent != nil {
				w.a.opts.OnEvent(ev)
			}
		}
	}
	return nil
}

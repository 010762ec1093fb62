package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/spillway-go/spillway/internal/script"
)

// A BatchError tells which of many keys failed. The others did not.
type BatchError[K comparable] struct{ Errors map[K]error }

func (e *BatchError[K]) Error() string {
	for _, err := range e.Errors {
		return fmt.Sprintf("cache: %d keys failed, one of them with: %s", len(e.Errors), err)
	}
	return "cache: no key failed"
}

// Unwrap lets errors.Is find what any of the keys failed with.
func (e *BatchError[K]) Unwrap() []error {
	errs := make([]error, 0, len(e.Errors))
	for _, err := range e.Errors {
		errs = append(errs, err)
	}
	return errs
}

// loadsAtOnce is how many keys of one GetMany are loaded, if there is no LoadMany,
// or stored at a time.
const loadsAtOnce = 64

// GetMany returns the values of keys, in one round trip for those that are not in
// the local level, and with one LoadMany for those that are nowhere. Keys that do
// not exist are not in the map. Keys that failed are not there either, and are
// named in a *BatchError; the map holds the others all the same.
//
// It shares flights, leases and cool-downs with Get.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	out := make(map[K]V, len(keys))
	failed := map[K]error{}
	answer := func(key K, it *item[V], err error) {
		if err == nil {
			var v V
			if v, err = c.answer(it); err == nil {
				out[key] = v
			}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			failed[key] = c.wrap(c.keyName(key), err)
		}
	}
	asked := make(map[K]*flight[K, V], len(keys))
	var lead []*flight[K, V]
	for _, key := range keys {
		if asked[key] != nil {
			continue
		}
		name := c.keyName(key)
		hash := c.local.hash(name)
		now := c.local.now()
		if it := c.local.get(name, hash); it != nil && c.local.fresh(it, now) {
			c.local.hits.add(hash)
			c.early(ctx, key, it, hash, now)
			answer(key, it, nil)
			continue
		}
		if c.guard.excludes(name) && !c.bus.cut() {
			c.stats.guarded.Add(1)
			continue
		}
		f, first, old, err := c.flights.join(key, name, hash)
		if err != nil {
			it, err := c.orStale(name, hash, old, err)
			answer(key, it, err)
			continue
		}
		asked[key] = f
		if first {
			lead = append(lead, f)
		}
	}
	if len(lead) > 0 && !c.spawn(ctx, func(ctx context.Context) { c.fetchMany(ctx, lead) }) {
		for _, f := range lead {
			c.flights.end(f, nil, c.open())
		}
	}
	for key, f := range asked {
		it, err := c.await(ctx, f)
		answer(key, it, err)
	}
	if len(failed) > 0 {
		return out, &BatchError[K]{Errors: failed}
	}
	return out, nil
}

// A claim is the right to load a key: what load is given.
type claim[K comparable, V any] struct {
	f     *flight[K, V]
	token string
	m     mark
}

// fetchMany is lead and fetch for many keys, and ends their flights.
func (c *Cache[K, V]) fetchMany(ctx context.Context, fs []*flight[K, V]) {
	claims := make([]claim[K, V], 0, len(fs))
	names := make([]string, 0, len(fs))
	for _, f := range fs {
		if it := c.local.get(f.name, f.hash); it != nil && c.local.fresh(it, c.local.now()) {
			c.flights.end(f, it, nil) // see lead
			continue
		}
		claims = append(claims, claim[K, V]{f: f, m: c.local.mark(f.hash)})
		names = append(names, f.name)
	}
	if len(claims) == 0 {
		return
	}
	if c.remote == nil {
		c.loadMany(ctx, claims)
		return
	}
	entries, err := c.remote.readMany(ctx, names)
	if err != nil {
		c.withoutMany(ctx, claims, err)
		return
	}
	missing := claims[:0]
	for i, cl := range claims {
		if it := c.take(cl.f, entries[i], cl.m); it != nil {
			c.stats.redis.Add(1)
			c.flights.end(cl.f, it, nil)
			c.early(ctx, cl.f.key, it, cl.f.hash, c.local.now())
		} else {
			missing = append(missing, cl)
		}
	}
	if len(missing) > 0 {
		c.claimMany(ctx, missing)
	}
}

// claimMany asks for all leases at once, loads what it is given, and lets the
// others go on one by one: they wait for another process, or found something.
func (c *Cache[K, V]) claimMany(ctx context.Context, claims []claim[K, V]) {
	calls := make([]script.Call, len(claims))
	for i := range claims {
		cl := &claims[i]
		cl.token, cl.m = c.remote.token(), c.local.mark(cl.f.hash)
		calls[i] = c.remote.leaseCall(cl.f.name, cl.token, cl.f.seen, cl.f.force)
	}
	if c.opts.Mode != Lease {
		c.loadMany(ctx, claims)
		return
	}
	grants, errs := c.remote.leaseMany(ctx, calls)
	var mine, without, late []claim[K, V]
	var down error
	for i, cl := range claims {
		switch {
		case errs[i] != nil:
			without, down = append(without, cl), errs[i]
			if errors.Is(errs[i], ErrUnknown) {
				late = append(late, cl)
			}
		case grants[i].kind == granted:
			mine = append(mine, cl)
		default:
			ok := c.spawn(ctx, func(ctx context.Context) {
				it, err := c.obey(ctx, cl.f, cl.token, grants[i], cl.m)
				if it == nil && err == nil && !cl.f.quiet {
					it, err = c.fetch(ctx, cl.f, nil)
				}
				c.flights.end(cl.f, it, err)
			})
			if !ok {
				c.flights.end(cl.f, nil, c.open())
			}
		}
	}
	if len(late) > 0 {
		c.giveBackLate(ctx, late...)
	}
	// In a goroutine of its own: a loader that ends one must not leave the others.
	if len(without) > 0 && !c.spawn(ctx, func(ctx context.Context) { c.withoutMany(ctx, without, down) }) {
		for _, cl := range without {
			c.flights.end(cl.f, nil, c.open())
		}
	}
	if len(mine) > 0 {
		c.loadMany(ctx, mine)
	}
}

// loadMany asks the source for all claims at once, stores what it says, and ends
// their flights.
func (c *Cache[K, V]) loadMany(ctx context.Context, claims []claim[K, V]) {
	if c.src.LoadMany == nil {
		c.loadEach(ctx, claims)
		return
	}
	var asked, waiting []claim[K, V]
	for _, cl := range claims {
		if _, ok := c.behind.get(cl.f.name); ok {
			waiting = append(waiting, cl)
		} else {
			asked = append(asked, cl)
		}
	}
	c.loadEach(ctx, waiting) // the source does not have them yet
	if claims = asked; len(claims) == 0 {
		return
	}
	begun := c.local.now()
	keys := make([]K, len(claims))
	for i, cl := range claims {
		keys[i] = cl.f.key
	}
	fail := func(err error) {
		c.each(claims, func(cl claim[K, V]) {
			c.flights.end(cl.f, nil, c.failed(ctx, cl.f, cl.token, err))
		})
	}
	var found map[K]V
	err := c.ask(ctx, func(ctx context.Context) (err error) {
		found, err = c.src.LoadMany(ctx, keys)
		return err
	}, fail)
	if err != nil && !errors.Is(err, ErrNotFound) {
		fail(err)
		return
	}
	c.each(claims, func(cl claim[K, V]) {
		v, ok := found[cl.f.key]
		c.flights.end(cl.f, c.keep(ctx, cl.f, cl.token, cl.m, v, !ok, begun), nil)
	})
}

func (c *Cache[K, V]) loadEach(ctx context.Context, claims []claim[K, V]) {
	c.each(claims, func(cl claim[K, V]) {
		it, err := c.load(ctx, cl.f, cl.token, cl.m)
		c.flights.end(cl.f, it, err)
	})
}

// each calls do for all claims, some at a time: what they ask of Redis shares
// round trips.
func (c *Cache[K, V]) each(claims []claim[K, V], do func(claim[K, V])) {
	var wg sync.WaitGroup
	turn := make(chan struct{}, loadsAtOnce)
	for _, cl := range claims {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			do(cl)
		})
	}
	wg.Wait()
}

// withoutMany is without for many keys: one LoadMany counts as one load.
func (c *Cache[K, V]) withoutMany(ctx context.Context, claims []claim[K, V], down error) {
	if c.src.LoadMany == nil || c.opts.WhenDown != OutageLoad || claims[0].f.quiet {
		c.each(claims, func(cl claim[K, V]) {
			it, err := c.without(ctx, cl.f, down, cl.m)
			c.flights.end(cl.f, it, err)
		})
		return
	}
	c.stats.outages.Add(1)
	if !c.outage.take() {
		for _, cl := range claims {
			c.flights.end(cl.f, nil, c.overloaded(down))
		}
		return
	}
	for i := range claims {
		claims[i].token = "" // Redis is not to know
	}
	c.loadMany(ctx, claims)
}

package stock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/coalesce"
)

// An order is decided at home only, or its retry could be granted elsewhere once
// more. Where home has too little, stock moves there: a bucket gives (which takes the
// units off its level and writes down that they are on their way), home takes, in the
// call that settles the order, so that nobody can take them away in between. Giving
// and taking are compare-and-set on the number of the transfer, so that anybody may
// repeat either at any time; the number that comes with the next request to give
// acknowledges the last one. moved.lua has the other half.

const (
	maxTries  = 3  // looks that found nothing to move and still proved nothing
	maxRounds = 64 // in all: each of the others moved stock, or met somebody who did
)

// A look is what was true of one bucket at one moment.
type look struct {
	left, version []int64 // by item that was asked for; version 0: not loaded
	links         []link  // by peer
	gap           string  // a transfer that was lost, or empty
	err           error
}

// A link is what two buckets have moved: gave is the number of the last transfer
// from this bucket to the peer, items what it was, and after the journal entry before
// the one that has it; took is the number of the last one from the peer, and from what
// after was of that.
type link struct {
	gave, took  int64
	items       []Item
	after, from string
}

// A transfer is units on their way.
type transfer struct {
	from, to int
	seq      int64
	items    []Item
	after    string
}

// orderHome settles o at home, and moves stock there as long as there is some.
func (a *Activity) orderHome(ctx context.Context, base *op, o Order) (Result, error) {
	home := a.home(o.User)
	must := make([]bool, len(o.Items)) // of a partial order: not known to be sold out
	for k := range must {
		must[k] = o.Partial
	}
	var takes []*op
	var before []look
	tries := 0
	for round := range maxRounds {
		try := *base
		try.move = &moving{first: takes, must: slices.Clone(must), alone: round > 0}
		out, err := home.send(ctx, &try)
		if err != nil {
			return Result{}, err
		}
		if out.code == codeNoSKU {
			if err := a.wrongBuckets(ctx); err != nil {
				return Result{}, err
			}
		}
		k := slices.IndexFunc(base.items, func(it Item) bool { return it.SKU == out.sku })
		if out.code != codeInsufficient || o.Partial && !must[k] {
			if out.code == codeInsufficient {
				a.stats.insufficient.Add(1)
			}
			return home.result(&try, out)
		}
		if len(takes) == 0 && !o.Retry && a.opts.SoldOutFor > 0 {
			// While this order waited, another may have learned it: one looks for all.
			if err := a.soldOut(&o); err != nil {
				return Result{FromMemory: true}, err
			}
		}
		now := a.look(ctx, base.items)
		if version, ok := nowhereElse(before, now, home.bucket, k, out.sku); ok {
			if out.a == 0 {
				a.memory.seen(out.sku, version+out.b, 0, out.sent)
			}
			must[k] = false
			if !slices.Contains(must, true) {
				a.stats.insufficient.Add(1)
				return home.result(&try, out)
			}
			// It is missing. The others are to be had in full, or missing likewise.
			takes, before = nil, now
			continue
		}
		var moved bool
		takes, moved = a.fetch(ctx, home.bucket, base.items, now)
		if moved {
			before = nil
			pause(ctx, round/4)
			continue
		}
		for i := range now {
			if now[i].err != nil {
				return Result{At: time.UnixMicro(out.us)}, a.wrap(base, unreached(ctx, i, now[i].err))
			}
		}
		if before != nil {
			if tries++; tries == maxTries {
				break
			}
			pause(ctx, tries)
		}
		before = now
	}
	return Result{}, a.wrap(base, fmt.Errorf("%w: the last units moved all the time", ErrContended))
}

// nowhereElse tells whether between two looks, and so when home decided, item k was
// in no other bucket and not on its way, and the sum of the others' versions. A
// bucket that was empty twice at one version was empty all the while, and gave nothing.
// Home may have given in between: what was on its way when home decided still is, in the
// second look, unless its peer was looked at before it took that, and home after it had
// given more. Then the numbers are two apart, and what it was is not known. home is -1
// where no bucket decided: then all have to be empty.
func nowhereElse(before, now []look, home, k int, sku string) (version int64, ok bool) {
	for i := range now {
		if before == nil || before[i].err != nil || now[i].err != nil {
			return 0, false
		}
	}
	for i := range now {
		if i == home {
			continue
		}
		was, is := before[i], now[i]
		if home >= 0 && now[home].links[i].gave > is.links[home].took+1 {
			return 0, false
		}
		if was.left[k] != 0 || is.left[k] != 0 || was.version[k] != is.version[k] || is.version[k] == 0 {
			return 0, false
		}
		version += is.version[k]
	}
	for _, t := range append(onTheirWay(before), onTheirWay(now)...) {
		if t.has(sku) {
			return 0, false
		}
	}
	return version, true
}

// onTheirWay returns the transfers that were given and not taken.
func onTheirWay(v []look) (on []transfer) {
	for from := range v {
		for to := range v[from].links {
			if l := v[from].links[to]; v[to].links != nil && l.gave > v[to].links[from].took {
				on = append(on, transfer{from, to, l.gave, l.items, l.after})
			}
		}
	}
	return on
}

func (t transfer) has(sku string) bool {
	return slices.ContainsFunc(t.items, func(it Item) bool { return it.SKU == sku })
}

// fetch gets what home lacks of the items on its way: what is to be taken there, in
// one call with the order. It finishes the transfers to other buckets that it sees,
// and tells whether anything moved.
func (a *Activity) fetch(ctx context.Context, home int, items []Item, v []look) (takes []*op, moved bool) {
	if v[home].err != nil {
		return nil, false
	}
	lack := make([]int64, len(items))
	for k, it := range items {
		lack[k] = max(0, it.Qty-v[home].left[k])
	}
	busy := make([]bool, len(v))
	var wg sync.WaitGroup
	for _, t := range onTheirWay(v) {
		wanted := false
		for k, it := range items {
			wanted = wanted || lack[k] > 0 && t.has(it.SKU)
		}
		if !wanted {
			continue // its own order takes it
		}
		moved = true
		if t.to != home {
			wg.Go(func() { _ = a.finish(ctx, t) }) // else the next look sees it again
			continue
		}
		busy[t.from] = true
		takes = append(takes, t.take())
		for k, it := range items {
			for _, on := range t.items {
				if on.SKU == it.SKU {
					lack[k] = max(0, lack[k]-on.Qty)
				}
			}
		}
	}
	asks := make([][]Item, len(v))
	for k, it := range items {
		for _, i := range richest(v, k) {
			if i != home && !busy[i] && lack[k] > 0 && v[i].left[k] > 0 {
				q := min(lack[k], v[i].left[k])
				asks[i] = append(asks[i], Item{it.SKU, q})
				lack[k] -= q
			}
		}
	}
	var mu sync.Mutex
	for i, ask := range asks {
		if ask == nil {
			continue
		}
		wg.Go(func() {
			given, ok := a.give(ctx, i, home, v[home].links[i], ask)
			if !ok {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			takes, moved = append(takes, given.take()), true
		})
	}
	wg.Wait()
	return takes, moved
}

// richest returns the buckets that could be looked at, those with most of item k first.
func richest(v []look, k int) []int {
	var order []int
	for i := range v {
		if v[i].err == nil {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(min(1, max(-1, v[b].left[k]-v[a].left[k]))) })
	return order
}

// look looks at all buckets, each of which first releases what came due there. It
// asks masters, by a script: a replica may be behind.
//
// When a SKU runs out, every order for it begins to look. Those who come while others
// look share the next look, which begins after they came.
func (a *Activity) look(ctx context.Context, items []Item) []look {
	v, err := a.looks.Do(ctx, string(appendItems(nil, items)), "", items, 1)
	if errors.Is(err, coalesce.ErrClosed) { // what only reads goes on
		return a.lookNow(ctx, items)
	}
	if err != nil {
		v = make([]look, len(a.buckets))
		for i := range v {
			v[i].err = err
		}
	}
	return v
}

// flushLooks answers all who wait for a look at the same SKUs. They only read the answer.
func (a *Activity) flushLooks(ctx context.Context, _ string, batch [][]Item) ([][]look, error) {
	return slices.Repeat([][]look{a.lookNow(ctx, batch[0])}, len(batch)), nil
}

func (a *Activity) lookNow(ctx context.Context, items []Item) []look {
	v := make([]look, len(a.buckets))
	_ = together(a.buckets, func(b *Activity) error { // a look holds its error
		v[b.bucket] = a.lookAt(ctx, b.bucket, items)
		return nil
	})
	return v
}

func (a *Activity) lookAt(ctx context.Context, bucket int, items []Item) (l look) {
	b, head := a.buckets[bucket], fmt.Sprintf("%d>%d#0;", bucket, len(a.buckets))
	out, err := b.ask(ctx, 'Z', head, items)
	if errors.Is(err, coalesce.ErrClosed) { // what only reads goes on
		o := newMove('Z', head, items)
		var alone []outcome
		if alone, err = b.settle(ctx, []*op{o}, b.callNonce(), 0); err == nil {
			out, err = alone[0], alone[0].err
		}
	}
	if err == nil {
		l, err = parseLook(out.record, len(items), len(a.buckets))
	}
	if err != nil {
		return look{err: err}
	}
	return l
}

// give asks a bucket for items on behalf of another, which has what its own link says.
// It answers the transfer that is on its way then.
func (a *Activity) give(ctx context.Context, from, to int, has link, items []Item) (transfer, bool) {
	out, err := a.buckets[from].ask(ctx, 'G', fmt.Sprintf("%d>%d#%d@%s;", from, to, has.took, has.from), items)
	if err != nil || out.record == "" {
		return transfer{}, false
	}
	r := reader{rest: out.record}
	t := transfer{from: from, to: to, seq: r.number(' '), items: r.items(), after: r.rest}
	a.stats.transfers.Add(1)
	return t, !r.bad
}

// finish takes a transfer where it is to go.
func (a *Activity) finish(ctx context.Context, t transfer) error {
	take := t.take()
	out, err := a.buckets[t.to].ask(ctx, take.verb, take.move.head, take.items)
	if err == nil && out.code == codeDone {
		a.stats.transfers.Add(1)
	}
	return err
}

func (t transfer) take() *op {
	return newMove('T', fmt.Sprintf("%d>%d#%d@%s;", t.from, t.to, t.seq, t.after), t.items)
}

func newMove(verb byte, head string, items []Item) *op {
	o := newOp(verb, ':', "", "", items)
	o.move = &moving{head: head}
	return o
}

// ask settles one of the verbs of moved.lua.
func (a *Activity) ask(ctx context.Context, verb byte, head string, items []Item) (outcome, error) {
	o := newMove(verb, head, items)
	out, err := a.group.Do(ctx, a.lane(&op{verb: 'S', text: head}), "", o, len(o.text)+len(head)+24)
	if err == nil {
		err = out.err
	}
	return out, err
}

// flushMoves is flush for ops that bring others along, which are settled first and
// in the same call. Orders that saw the same ask for the same transfer and bring the same
// one along: once is enough.
func (a *Activity) flushMoves(ctx context.Context, lane string, batch []*op) ([]outcome, error) {
	all, at := make([]*op, 0, len(batch)), make([]int, len(batch))
	var there map[string]int // where the moves are
	once := func(o *op) int {
		what := o.move.head + o.text
		k, ok := there[what]
		if !ok {
			if there == nil {
				there = map[string]int{}
			}
			k = len(all)
			there[what], all = k, append(all, o)
		}
		return k
	}
	for i, o := range batch {
		if o.move != nil {
			for _, take := range o.move.first {
				once(take)
			}
			if o.verb == 'G' || o.verb == 'T' || o.verb == 'Z' {
				at[i] = once(o)
				continue
			}
		}
		at[i] = len(all)
		all = append(all, o)
	}
	out, err := a.flush(ctx, lane, all)
	if err != nil {
		return nil, err
	}
	asked := make([]outcome, len(batch))
	for i, k := range at {
		asked[i] = out[k]
	}
	return asked, nil
}

// parseLook reads what 'Z' of moved.lua answers.
func parseLook(s string, items, buckets int) (look, error) {
	r := reader{rest: s}
	l := look{left: make([]int64, items), version: make([]int64, items), links: make([]link, buckets)}
	for k := range items {
		l.left[k], l.version[k] = r.number(' '), r.number(';')
	}
	for i := range l.links {
		if gave := (reader{rest: r.netstring()}); gave.rest != "" {
			l.links[i].gave, l.links[i].items, l.links[i].after = gave.number(' '), gave.items(), gave.rest
			r.bad = r.bad || gave.bad
		}
		if took := r.netstring(); took != "" {
			took := reader{rest: took}
			l.links[i].took, l.links[i].from = took.number(' '), took.rest
			r.bad = r.bad || took.bad
		}
	}
	l.gap = r.netstring()
	if r.bad || r.rest != "" {
		return look{}, fmt.Errorf("stock: cannot read %q of moved.lua: written by another version?", s)
	}
	return l, nil
}

// unreached is the error of an order that home refused and another bucket might have
// served. Nothing happened to the order, whatever became of the question there:
// its error must not be taken for the order's.
func unreached(ctx context.Context, bucket int, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, ended)
	}
	if errors.Is(err, ErrUnknown) {
		err = errors.New("its answer was lost")
	}
	return fmt.Errorf("%w: bucket %d: %w", ErrUnavailable, bucket, err)
}

// pause lets others go first, for up to 2^n milliseconds: two orders that want what
// the other has just fetched must not do the same at the same time again.
func pause(ctx context.Context, n int) {
	if n > 0 {
		sleep(ctx, rand.N(time.Millisecond<<min(n, 6)))
	}
}

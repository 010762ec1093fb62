package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A seller is what a history drives: an *Activity, or one of the naive sellers
// that the oracle must catch.
type seller interface {
	Load(ctx context.Context, stock map[string]int64) error
	Deduct(ctx context.Context, o Order) (Result, error)
	Reserve(ctx context.Context, o Order) (Result, error)
	Confirm(ctx context.Context, ref Ref) (Result, error)
	Cancel(ctx context.Context, ref Ref, reason string) (Result, error)
	Lookup(ctx context.Context, ref Ref) (Result, error)
	Restock(ctx context.Context, id string, items ...Item) (Result, error)
	Stock(ctx context.Context, skus ...string) (map[string]Level, error)
	Entries(ctx context.Context, from string) iter.Seq2[Entry, error]
}

// A call is one call of a history and what its caller was told.
type call struct {
	verb  byte  // D R orders, C confirm, X cancel, S lookup, A restock
	order Order // ID, User and Items of the other verbs too
	res   Result
	err   error
	sent  time.Time
	got   time.Time
}

func (c call) String() string {
	return fmt.Sprintf("%c %+v: %+v, %v", c.verb, c.order, c.res, c.err)
}

// An oracle judges histories of concurrent calls. It replays the journal, entry by
// entry, in the model, which says whether each of them was legal when it happened
// and which events it had to raise; it remembers how every level, user and order
// changed over time, and holds each answer against what was true at the moment
// that the answer names. The levels of the server come last: they must be what the
// journal adds up to.
type oracle struct {
	m          *model
	soldOutFor time.Duration

	last     string // entry
	at       int64  // ms
	versions map[string]int64
	events   []Event // all crossings
	steps    int     // ops of the journal so far

	asked    map[string][]call // orders by id
	restocks map[string][]call
	cancels  map[string]bool // ids that somebody tried to cancel
	granted  map[string]bool // ids of which a caller knows, or cannot rule out, a grant
	unclear  map[string]bool // ids of which the journal does not tell whose order it was
	fresh    []string        // ids granted since the last check
	rounds   int

	lefts  map[string]*timeline[int64]
	used   map[string]*timeline[int64]
	states map[string]*timeline[State]

	faults []string
	told   map[error]int // answers by error, to see that a history met them all
	memory int           // answers from memory
	unsure int           // calls without an answer
}

func newOracle(opts Options, stock map[string]int64) *oracle {
	o := &oracle{
		m: newModel(opts), soldOutFor: opts.SoldOutFor, last: "0-0", versions: map[string]int64{},
		asked: map[string][]call{}, restocks: map[string][]call{}, cancels: map[string]bool{}, granted: map[string]bool{}, unclear: map[string]bool{},
		lefts: map[string]*timeline[int64]{}, used: map[string]*timeline[int64]{}, states: map[string]*timeline[State]{},
		told: map[error]int{},
	}
	if o.soldOutFor == 0 {
		o.soldOutFor = 100 * time.Millisecond
	}
	o.m.load(stock)
	for sku, n := range stock {
		o.lefts[sku] = &timeline[int64]{}
		o.lefts[sku].add(0, n)
	}
	return o
}

const maxFaults = 20

func (o *oracle) fault(format string, args ...any) {
	if len(o.faults) < maxFaults {
		o.faults = append(o.faults, fmt.Sprintf("after %d journal ops: ", o.steps)+fmt.Sprintf(format, args...))
	}
}

// check judges the calls of a round, all of which have returned.
func (o *oracle) check(ctx context.Context, s seller, calls []call) error {
	for _, c := range calls {
		switch c.verb {
		case 'D', 'R':
			o.asked[c.order.ID] = append(o.asked[c.order.ID], c)
		case 'A':
			o.restocks[c.order.ID] = append(o.restocks[c.order.ID], c)
		case 'X':
			o.cancels[c.order.ID] = true
		}
	}
	if err := o.settle(ctx, s); err != nil {
		return err
	}
	earliest := o.at
	for _, c := range calls {
		if !c.res.At.IsZero() {
			earliest = min(earliest, c.res.At.UnixMilli())
		}
		o.judge(c)
	}
	for _, id := range o.fresh {
		if !o.granted[id] {
			o.fault("order %s was granted, and everybody was told that nothing happened: %v", id, o.asked[id])
		}
	}
	o.fresh = o.fresh[:0]
	if o.rounds++; o.rounds%16 == 0 {
		for _, t := range o.lefts {
			t.forget(earliest - 2*o.soldOutFor.Milliseconds() - 1000)
		}
		for _, t := range o.used {
			t.forget(earliest - 1000)
		}
	}
	return nil
}

// settle reads the journal and the levels until they hold still together: calls
// that nobody waits for any more may land late, and holds end by themselves.
func (o *oracle) settle(ctx context.Context, s seller) error {
	for range 1000 {
		if _, err := o.read(ctx, s); err != nil {
			return err
		}
		levels, err := s.Stock(ctx)
		if err != nil {
			return err
		}
		more, err := o.read(ctx, s)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		for sku, want := range o.m.levels {
			got := levels[sku]
			version := got.Version
			got.Version = 0
			if got != *want {
				o.fault("sku %s: the server has %+v, the journal adds up to %+v", sku, got, *want)
			}
			if got.Left < 0 || got.Reserved < 0 || got.Sold < 0 || got.Left+got.Reserved+got.Sold != o.m.added[sku] {
				o.fault("sku %s: %+v of %d units", sku, got, o.m.added[sku])
			}
			if v, ok := o.versions[sku]; ok && v != version {
				o.fault("sku %s: version %d, that of its last event is %d", sku, version, v)
			}
		}
		return nil
	}
	return errors.New("the journal never holds still")
}

func (o *oracle) read(ctx context.Context, s seller) (more bool, err error) {
	for e, err := range s.Entries(ctx, o.last) {
		if err != nil {
			return more, err
		}
		more = true
		if e.Prev != o.last {
			o.fault("entry %s names %s as its predecessor, which is %s", e.ID, e.Prev, o.last)
		}
		o.last = e.ID
		if e.At.UnixMilli() < o.at {
			o.fault("entry %s: time goes back from %d to %d", e.ID, o.at, e.At.UnixMilli())
		}
		o.at = e.At.UnixMilli()
		for _, op := range e.Ops {
			o.apply(op)
		}
		o.noEvents(e.ID)
	}
	return more, nil
}

func (o *oracle) noEvents(where string) {
	if len(o.m.events) > 0 {
		o.fault("%s: no event for %+v", where, o.m.events)
		o.m.events = nil
	}
}

// apply replays one op of the journal.
func (o *oracle) apply(op Op) {
	if op.Kind == OpCrossing {
		want := op.Event
		want.Version = 0
		if len(o.m.events) == 0 || o.m.events[0] != want {
			o.fault("event %+v, want one of %+v", op.Event, o.m.events)
			o.m.events = nil
			return
		}
		o.m.events = o.m.events[1:]
		if op.Event.Version <= o.versions[want.SKU] {
			o.fault("event %+v after version %d", op.Event, o.versions[want.SKU])
		}
		o.versions[want.SKU] = op.Event.Version
		o.events = append(o.events, op.Event)
		return
	}
	o.noEvents("before " + op.Kind.String() + " " + op.ID)
	o.steps++
	ref := Ref{op.ID, op.User}
	switch op.Kind {
	case OpLoad:
		return // what was loaded is known from the beginning
	case OpRestock:
		if a := o.m.restock(op.ID, op.Items); a.err != nil || a.replayed {
			o.fault("restock %s %v: the model says %+v", op.ID, op.Items, a)
		}
	case OpDeduct, OpReserve:
		o.applyOrder(op)
	case OpConfirm:
		o.ended(op, o.m.confirm(ref, o.at), Confirmed)
	case OpCancel:
		o.ended(op, o.m.cancel(ref, o.at), Cancelled)
	case OpExpire:
		n := o.m.orders[op.ID]
		if n == nil || n.state != Reserved || n.due > o.at {
			o.fault("expiry of %s at %d: %+v", op.ID, o.at, n)
			return
		}
		o.m.giveBack(n, Expired)
		o.ended(op, n.answer(false), Expired)
	}
	for _, it := range op.Items {
		if l := o.m.levels[it.SKU]; l != nil {
			o.lefts[it.SKU].add(o.at, l.Left)
		}
		if op.User != "" {
			o.usedOf(op.User, it.SKU).add(o.at, o.m.used[op.User+"\x00"+it.SKU])
		}
	}
	if op.User != "" {
		o.usedOf(op.User, "").add(o.at, o.m.used[op.User])
	}
	if n := o.m.orders[op.ID]; n != nil && op.Kind != OpRestock {
		if o.states[op.ID] == nil {
			o.states[op.ID] = &timeline[State]{}
		}
		o.states[op.ID].add(o.at, n.state)
	}
}

func (o *oracle) usedOf(user, sku string) *timeline[int64] {
	k := user + "\x00" + sku
	if o.used[k] == nil {
		o.used[k] = &timeline[int64]{}
	}
	return o.used[k]
}

func (o *oracle) applyOrder(op Op) {
	verb := byte('D')
	if op.Kind == OpReserve {
		verb = 'R'
	}
	if o.m.orders[op.ID] != nil {
		o.fault("order %s is granted a second time: %+v", op.ID, op)
		return
	}
	var said []answer
	var orders []Order
	for _, c := range o.asked[op.ID] {
		if c.verb != verb || c.order.User != op.User {
			continue
		}
		items, no := o.m.grant(c.order)
		switch {
		case no != nil:
			said = append(said, *no)
		case !slices.Equal(items, op.Items):
			said = append(said, answer{items: items})
		case !slices.ContainsFunc(orders, func(other Order) bool { return sameOrder(other, c.order) }):
			orders = append(orders, c.order)
		}
	}
	if len(orders) == 0 {
		o.fault("order %+v: nobody could be given that, the model says %+v of %v", op, said, o.asked[op.ID])
		return
	}
	// Two callers asked for different things under one id, and either could have
	// been given this.
	o.unclear[op.ID] = len(orders) > 1
	if a := o.m.order(verb, orders[0], o.at); a.err != nil {
		o.fault("order %+v: the model says %+v", op, a)
	}
	o.fresh = append(o.fresh, op.ID)
}

// ended takes in that an order met its end.
func (o *oracle) ended(op Op, a answer, state State) {
	if a.err != nil || a.replayed || a.state != state || !slices.Equal(a.items, op.Items) {
		o.fault("%s %s %v: the model says %+v", op.Kind, op.ID, op.Items, a)
	}
}

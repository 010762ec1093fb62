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

// A timeline is how a value changed, by the milliseconds of the server.
type timeline[V comparable] struct{ points []point[V] }

type point[V any] struct {
	ms int64
	v  V
}

func (t *timeline[V]) add(ms int64, v V) { t.points = append(t.points, point[V]{ms, v}) }

// during tells whether the value was v at some moment from ms to ms; before its
// first point it is the zero value.
func (t *timeline[V]) during(from, to int64, v V) bool {
	var before V
	if t == nil {
		return v == before
	}
	i := len(t.points)
	for i > 0 && t.points[i-1].ms >= from {
		i--
		if t.points[i].ms <= to && t.points[i].v == v {
			return true
		}
	}
	if i > 0 {
		before = t.points[i-1].v
	}
	return v == before
}

// forget drops all but what is needed for times from ms on.
func (t *timeline[V]) forget(ms int64) {
	i := 0
	for i+1 < len(t.points) && t.points[i+1].ms < ms {
		i++
	}
	t.points = slices.Delete(t.points, 0, i)
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

// judge holds an answer against the journal.
func (o *oracle) judge(c call) {
	id, at := c.order.ID, c.res.At.UnixMilli()
	n, early := o.m.orders[id], false
	if _, ok := o.m.early[id]; ok {
		early = true
	}
	was := func(s State) bool { return o.states[id].during(at, at, s) }
	a := answerOf(c.res, c.err)
	o.told[a.err]++
	switch {
	case errors.Is(c.err, ErrUnknown) || errors.Is(c.err, ErrUnavailable):
		o.unsure++
		if errors.Is(c.err, ErrUnknown) && (c.verb == 'D' || c.verb == 'R') {
			o.granted[id] = true
		}
		return
	case o.unclear[id]:
		o.granted[id] = true
		return
	case c.res.FromMemory:
		o.memory++
		o.judgeMemory(c, a)
		return
	case c.res.At.IsZero():
		o.fault("%v: an answer without a time", c)
		return
	}
	if c.verb == 'S' && at < c.sent.UnixMilli() {
		o.fault("%v: asked at %d, answered with the state of %d", c, c.sent.UnixMilli(), at)
	}
	if c.verb == 'A' {
		if a.err == nil && !slices.Equal(o.m.restocks[id], c.order.Items) {
			o.fault("%v: the journal has %v", c, o.m.restocks[id])
		}
		return
	}
	switch {
	case a.err == nil:
		o.judgeGrant(c, a, n)
	case errors.Is(a.err, ErrConflict):
		other := n != nil && ((c.verb == 'D' || c.verb == 'R') && (n.verb != c.verb || !sameOrder(n.asked, c.order)) || n.asked.User != c.order.User) ||
			early && o.m.early[id] != c.order.User || o.cancels[id] && n == nil
		if !other {
			o.fault("%v: the journal has %+v", c, n)
		}
	case errors.Is(a.err, ErrInsufficient):
		o.ungranted(c, was)
		qty := int64(0)
		for _, it := range c.order.Items {
			if it.SKU == a.sku {
				qty = it.Qty
			}
		}
		if a.have >= qty || !o.lefts[a.sku].during(at, at, a.have) {
			o.fault("%v: not true at %d", c, at)
		}
	case errors.Is(a.err, ErrLimit):
		o.ungranted(c, was)
		if !o.used[c.order.User+"\x00"+a.sku].during(at, at, a.have) {
			o.fault("%v: not true at %d", c, at)
		}
	case errors.Is(a.err, ErrNoSKU):
		o.ungranted(c, was)
		if !slices.ContainsFunc(c.order.Items, func(it Item) bool { return o.m.levels[it.SKU] == nil }) {
			o.fault("%v: it was loaded", c)
		}
	case errors.Is(a.err, ErrNotFound):
		o.ungranted(c, was)
	case errors.Is(a.err, ErrCancelled):
		o.granted[id] = true
		if !(n != nil && was(Cancelled)) && !(n == nil && o.cancels[id]) {
			o.fault("%v: the journal has %+v", c, n)
		}
	case errors.Is(a.err, ErrExpired):
		o.granted[id] = true
		if n == nil || !was(Expired) {
			o.fault("%v: the journal has %+v", c, n)
		}
	case errors.Is(a.err, ErrConfirmed):
		if n == nil || !was(Confirmed) {
			o.fault("%v: the journal has %+v", c, n)
		}
	default:
		o.fault("%v: an error that nobody expects", c)
	}
}

// ungranted checks an answer that says that nothing was settled under the id.
func (o *oracle) ungranted(c call, was func(State) bool) {
	if !was(None) {
		o.fault("%v: it was granted before", c)
	}
}

func (o *oracle) judgeGrant(c call, a answer, n *modelOrder) {
	id, at := c.order.ID, c.res.At.UnixMilli()
	if n == nil { // the tombstone of an order that never came
		if (c.verb == 'X' || c.verb == 'S') && a.state == Cancelled && len(a.items) == 0 && o.cancels[id] {
			o.m.early[id] = c.order.User // from now on it must not be granted
			return
		}
		o.fault("%v: the journal knows nothing of it", c)
		return
	}
	o.granted[id] = true
	if !slices.Equal(a.items, n.granted) || !slices.Equal(a.missing, n.answer(false).missing) {
		o.fault("%v: granted was %v", c, n.granted)
	}
	if !o.states[id].during(at, at, a.state) {
		o.fault("%v: not true at %d: %+v", c, at, o.states[id].points)
	}
	if a.state == Reserved && a.due != n.due {
		o.fault("%v: due %d, want %d", c, a.due, n.due)
	}
	if (c.verb == 'D' || c.verb == 'R') && !a.replayed && o.states[id].points[0].ms != at {
		o.fault("%v: not replayed, but granted at %d", c, o.states[id].points[0].ms)
	}
	want := map[byte]State{'C': Confirmed, 'X': Cancelled}[c.verb]
	if want != None && a.state != want {
		o.fault("%v: want %v", c, want)
	}
}

// judgeMemory: sold out, for a new order, at some moment not long before.
func (o *oracle) judgeMemory(c call, a answer) {
	if !errors.Is(c.err, ErrInsufficient) || c.order.Retry {
		o.fault("%v: must not come from memory", c)
		return
	}
	if !o.lefts[a.sku].during(c.sent.Add(-o.soldOutFor).UnixMilli()-1, c.got.UnixMilli(), 0) {
		o.fault("%v: %s was not sold out within %v", c, a.sku, o.soldOutFor)
	}
}

package stock

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A replay is an activity as its ops make it.
type replay struct {
	levels   map[string]*replayedLevel
	orders   map[string]*replayedOrder // by id
	restocks map[string]*replayedOrder
	gives    map[string]transfer // from here, by id
	takes    map[string]transfer // that arrived here
	holds    []Entry             // of the ledger, their reserves alone
	added    []Entry             // beyond the ledger
}

type replayedLevel struct {
	Level
	initial int64
}

type replayedOrder struct {
	verb  byte // of the call: D R P Q, A
	state byte // as in a record
	user  string
	items []Item
	at    time.Time // of the last change
	due   time.Time // of a hold
}

func newReplay() *replay {
	return &replay{
		levels: map[string]*replayedLevel{}, orders: map[string]*replayedOrder{}, restocks: map[string]*replayedOrder{},
		gives: map[string]transfer{}, takes: map[string]transfer{},
	}
}

// judge tells whether o, which was acknowledged, fits in: whether it would have been
// granted had it come after what is in r. known ops are in r, or belong to an order
// that could not be kept. It completes o.
func (r *replay) judge(o *Op) (fits, known bool) {
	was := r.orders[o.ID]
	switch o.Kind {
	case OpLoad:
		o.Items = slices.DeleteFunc(o.Items, func(it Item) bool { return r.levels[it.SKU] != nil })
		return len(o.Items) > 0, len(o.Items) == 0
	case OpRestock:
		return r.restocks[o.ID] == nil && r.haveAll(o.Items, 0), r.restocks[o.ID] != nil
	case OpGive: // nobody waits for a transfer: one that does not fit is not lost
		_, ok := r.gives[o.ID]
		return !ok && r.haveAll(o.Items, 1), true
	case OpDeduct, OpReserve:
		if was == nil {
			return r.haveAll(o.Items, 1), false
		}
		return false, was.verb == verbOf(*o) && was.user == o.User && slices.Equal(was.items, o.Items)
	case OpConfirm:
		if was == nil || was.state == 'C' {
			return false, true
		}
		return was.open(o), false
	case OpCancel:
		if was == nil || was.state == 'X' || was.state == 'E' {
			return false, true
		}
		return was.open(o), false
	case OpExpire:
		return was != nil && was.state == 'R', true
	}
	return false, true
}

// open tells whether the op end can end o, and completes that.
func (o *replayedOrder) open(end *Op) bool {
	if o.state != 'R' && o.state != 'D' {
		return false
	}
	end.Held = o.state == 'R'
	return true
}

// haveAll tells whether all SKUs are there with times the quantity.
func (r *replay) haveAll(items []Item, times int64) bool {
	return !slices.ContainsFunc(items, func(it Item) bool {
		l := r.levels[it.SKU]
		return l == nil || l.Left < times*it.Qty
	})
}

func verbOf(o Op) byte {
	switch {
	case o.Kind == OpReserve && o.Partial:
		return 'Q'
	case o.Kind == OpReserve:
		return 'R'
	case o.Partial:
		return 'P'
	}
	return 'D'
}

// apply takes in o, an op of e.
func (r *replay) apply(o Op, e Entry) {
	left, reserved, sold := o.Move()
	for _, it := range o.Items {
		l := r.levels[it.SKU]
		if l == nil {
			l = &replayedLevel{}
			r.levels[it.SKU] = l
		}
		if o.Kind == OpLoad {
			l.initial = it.Qty
		}
		l.Left, l.Reserved, l.Sold = l.Left+left*it.Qty, l.Reserved+reserved*it.Qty, l.Sold+sold*it.Qty
	}
	switch o.Kind {
	case OpRestock:
		r.restocks[o.ID] = &replayedOrder{verb: 'A', state: 'A', items: o.Items, at: e.At}
	case OpDeduct:
		r.orders[o.ID] = &replayedOrder{verb: verbOf(o), state: 'D', user: o.User, items: o.Items, at: e.At}
	case OpReserve:
		r.orders[o.ID] = &replayedOrder{verb: verbOf(o), state: 'R', user: o.User, items: o.Items, at: e.At, due: e.At.Add(e.Hold)}
	case OpGive, OpTake:
		t, _ := transferOf(o) // part.read refuses a ledger with other ids
		if o.Kind == OpTake {
			r.takes[o.ID] = t
			break
		}
		t.after = cmp.Or(t.after, "0-0") // the ledger has it already
		r.gives[o.ID] = t
	case OpConfirm, OpCancel, OpExpire:
		if was := r.orders[o.ID]; was != nil {
			was.state, was.at = byte(o.Kind), e.At
		}
	}
}

// version gives the levels versions that are newer than before, and returns the
// crossings from before to now: for the events stream, and as ops.
func (r *replay) version(before map[string]Level, us int64) (fields []any, ops []Op) {
	for _, sku := range slices.Sorted(maps.Keys(r.levels)) {
		l, was := r.levels[sku], before[sku]
		l.Version = max(us, was.Version+1)
		if (was.Left == 0) != (l.Left == 0) {
			fields = append(fields, sku, l.Version, l.Left)
			ops = append(ops, Op{Kind: OpCrossing, Event: Event{SKU: sku, Version: l.Version, Left: l.Left}})
		}
	}
	return fields, ops
}

// uses counts the units of each user, as settle.lua does.
func (r *replay) uses(opts Options) map[string]int64 {
	uses := map[string]int64{}
	for _, o := range r.orders {
		if o.state != 'R' && o.state != 'D' && o.state != 'C' {
			continue
		}
		for _, it := range o.items {
			if opts.UserLimit > 0 {
				uses[":"+o.user] += it.Qty
			}
			if opts.UserSKULimit > 0 {
				uses[strconv.Itoa(len(it.SKU))+":"+it.SKU+o.user] += it.Qty
			}
		}
	}
	return uses
}

// record returns what Redis remembers of o.
func (o *replayedOrder) record() string {
	b := []byte{o.state}
	if o.state == 'R' {
		b = strconv.AppendInt(b, o.due.UnixMilli(), 10)
	}
	b = append(b, ';')
	return string(appendBody(b, o.verb, o.user, o.items))
}

func appendBody(b []byte, verb byte, user string, items []Item) []byte {
	return appendItems(appendNetstring(append(b, verb), user), items)
}

// appendOp writes o as settle.lua writes it into an entry.
func appendOp(b []byte, o Op) []byte {
	b = append(b, byte(o.Kind))
	switch o.Kind {
	case OpCrossing:
		b = appendNetstring(b, o.Event.SKU)
		b = strconv.AppendInt(b, o.Event.Version, 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, o.Event.Left, 10)
		return append(b, '.')
	case OpLoad:
		return appendBody(append(b, "4+load"...), 'L', "", o.Items)
	case OpRestock:
		b = append(strconv.AppendInt(b, int64(len(o.ID)), 10), '+')
		return appendBody(append(b, o.ID...), 'A', "", o.Items)
	case OpGive:
		return appendBody(appendNetstring(b, o.ID), 'G', "", o.Items)
	case OpTake:
		return appendNetstring(appendBody(appendNetstring(b, o.ID), 'T', "", o.Items), o.Reason)
	}
	verb := verbOf(o)
	if o.Held || o.Kind == OpExpire { // the end of a reservation
		verb = map[byte]byte{'D': 'R', 'P': 'Q'}[verb]
	}
	b = appendBody(appendNetstring(b, o.ID), verb, o.User, o.Items)
	if o.Kind == OpCancel {
		b = appendNetstring(b, o.Reason)
	}
	return b
}

// parts returns the time and the sequence in the id of an entry, whose form was checked.
func parts(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}

func idLess(a, b string) bool {
	ams, aseq := parts(a)
	bms, bseq := parts(b)
	return ams < bms || ams == bms && aseq < bseq
}

func idTime(id string) time.Time {
	ms, _ := parts(id)
	return time.UnixMilli(int64(ms))
}

// nextID returns the first id after id.
func nextID(id string) string {
	ms, seq := parts(id)
	return strconv.FormatUint(ms, 10) + "-" + strconv.FormatUint(seq+1, 10)
}

package stock

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A part is what a Rebuild makes anew: an activity, or one of its buckets.
type part struct {
	a    *Activity
	f    frozen
	at   string  // the ledger's checkpoint
	r    *replay // the ledger, then what Redis has beyond it
	todo []Entry // what Redis has, as far as it was not looked at
	op   int     // the next one of the first of them
	kept []Op    // of its ops
	prev string  // the newest entry
	made made

	// By bucket: the numbers of the last transfers there and from there that Redis knows
	// of, and the one that follows them there.
	peers               int
	gave, took, numbers []int64
}

// read replays the ledger up to its checkpoint, and reads what Redis has.
func (p *part) read(ctx context.Context, l Ledger) error {
	at, kept, _, err := l.Levels(ctx, p.a.journal)
	if err != nil {
		return fmt.Errorf("levels of the ledger: %w", err)
	}
	for e, err := range p.a.Entries(ctx, "") {
		if err != nil {
			return err
		}
		p.todo = append(p.todo, e)
	}
	end := "0-0"
	if n := len(p.todo); n > 0 {
		end = p.todo[n-1].ID
	}
	if end != p.f.last { // a replica was asked, which may be behind, or of another past
		return fmt.Errorf("%w: the journal was read up to %s, and ends with %s: Rebuild with a client that reads from masters",
			ErrUnavailable, end, p.f.last)
	}
	if at == "" {
		at = "0-0"
	}
	if !entryID.MatchString(at) {
		return fmt.Errorf("%w: the ledger's checkpoint %q is not the ID of an Entry", ErrInvalid, at)
	}
	// A bucket may have forked before its first entry was in the ledger, if all are here.
	if whole := len(p.todo) == 0 || p.todo[0].Prev == at; at == "0-0" && (p.peers == 1 || !whole) {
		return fmt.Errorf("%w: the ledger has nothing of journal %q", ErrInvalid, p.a.journal)
	}
	p.at, p.prev, p.r = at, at, newReplay()
	for e, err := range l.Entries(ctx, p.a.journal) {
		if err != nil {
			return fmt.Errorf("entries of the ledger: %w", err)
		}
		if idLess(at, e.ID) {
			return fmt.Errorf("%w: the ledger went on while it was read", ErrMoved)
		}
		held := Entry{ID: e.ID, At: e.At, Hold: e.Hold}
		for _, o := range e.Ops {
			if o.Kind == OpGive || o.Kind == OpTake {
				if _, err := transferOf(o); err != nil {
					return fmt.Errorf("%w: %s %q in the ledger: %w", ErrInvalid, o.Kind, o.ID, err)
				}
			}
			p.r.apply(o, e)
			if o.Kind == OpReserve {
				held.Ops = append(held.Ops, o)
			}
		}
		if len(held.Ops) > 0 {
			p.r.holds = append(p.r.holds, held)
		}
	}
	for sku, l := range kept {
		got, ok := p.r.levels[sku]
		if l.Version = 0; !ok || got.Level != l {
			return fmt.Errorf("%w: the ledger keeps %+v of sku %q, and its ops add up to something else", ErrInvalid, l, sku)
		}
	}
	return p.readLinks(ctx)
}

// readLinks reads the numbers of the transfers that Redis knows of.
func (p *part) readLinks(ctx context.Context) error {
	if p.peers == 1 {
		return nil
	}
	var fields []string
	for peer := range p.peers {
		fields = append(fields, ">"+strconv.Itoa(peer), "<"+strconv.Itoa(peer))
	}
	values, err := p.a.rdb.HMGet(ctx, p.a.keys.levels, fields...).Result()
	if err != nil {
		return p.a.readError(err)
	}
	p.gave, p.took, p.numbers = make([]int64, p.peers), make([]int64, p.peers), make([]int64, p.peers)
	for i, v := range values {
		text, _ := v.(string)
		digits, _, _ := strings.Cut(text, " ")
		n, _ := strconv.ParseInt(digits, 10, 64) // 0 where there is nothing
		if i%2 == 0 {
			p.gave[i/2] = n
		} else {
			p.took[i/2] = n
		}
	}
	return nil
}

// add ends the journal with one more entry.
func (p *part) add(at time.Time, hold time.Duration, ops ...Op) {
	e := Entry{ID: nextID(p.prev), Prev: p.prev, At: at, Hold: hold, Ops: ops}
	p.r.added = append(p.r.added, e)
	p.prev = e.ID
}

// merge takes in what Redis has beyond the ledger, and returns what cannot be. The ops
// that can get entries of their own after the ledger's. What was on its way between
// buckets arrives.
func merge(parts []*part) (lost []Op, err error) {
	coming := map[string]bool{} // transfers of which the give was not looked at
	for _, p := range parts {
		for _, e := range p.todo {
			for _, o := range e.Ops {
				if o.Kind == OpGive {
					coming[o.ID] = true
				}
			}
		}
	}
	for {
		moved, waiting := false, false
		for _, p := range parts {
			for len(p.todo) > 0 {
				if o, ok := p.next(); ok && o.Kind == OpTake && coming[o.ID] {
					waiting = true
					break
				}
				lost = append(lost, p.step(parts, coming)...)
				moved = true
			}
		}
		if !waiting {
			break
		}
		if !moved {
			clear(coming) // takes that wait for each other: there is no such history
		}
	}
	twice, err := arrive(parts)
	return append(lost, twice...), err
}

// next returns the op of Redis's journal that step is to look at, if there is one before
// the end of its entry.
func (p *part) next() (Op, bool) {
	if e := p.todo[0]; p.op < len(e.Ops) {
		return e.Ops[p.op], true
	}
	return Op{}, false
}

// step looks at one op of Redis's journal, or ends an entry.
func (p *part) step(parts []*part, coming map[string]bool) (lost []Op) {
	e := p.todo[0]
	o, ok := p.next()
	if !ok {
		if len(p.kept) > 0 {
			p.add(e.At, e.Hold, p.kept...)
		}
		p.todo, p.op, p.kept = p.todo[1:], 0, nil
		return nil
	}
	p.op++
	var fits, known bool
	switch o.Kind {
	case OpTake:
		fits, known = p.given(parts, &o), true
	case OpGive:
		delete(coming, o.ID)
		fits, known = p.r.judge(&o)
		o.Reason = p.prev
	default:
		fits, known = p.r.judge(&o)
	}
	switch {
	case fits:
		p.r.apply(o, e)
		p.kept = append(p.kept, o)
	case !known:
		lost = append(lost, o)
	}
	return lost
}

// given tells whether a take is one of what was given and did not arrive yet. It
// completes o.
func (p *part) given(parts []*part, o *Op) bool {
	t, err := transferOf(*o)
	if _, here := p.r.takes[o.ID]; err != nil || t.from >= len(parts) || here {
		return false
	}
	give, ok := parts[t.from].r.gives[o.ID]
	o.Reason = give.after
	return ok && slices.Equal(give.items, o.Items) && p.r.haveAll(o.Items, 0)
}

// jump is how many numbers of transfers a Rebuild leaves out, so that none is used again
// that a failover lost and that some process still knows.
const jump = 1 << 20

// arrive makes every transfer arrive that was given, and gives every one that arrived.
// Afterwards both sides of each link have the same number, and a new one. It returns the
// takes of what nobody has to give: units that are there twice.
func arrive(parts []*part) (twice []Op, err error) {
	last := map[[2]int]int64{} // numbers that were used, by giver and taker
	for _, p := range parts {
		for _, t := range inOrder(p.r.gives) {
			if t.to >= len(parts) {
				return nil, fmt.Errorf("%w: transfer %s to a bucket that is not there", ErrInvalid, t.id())
			}
			last[[2]int{t.from, t.to}] = t.seq
			taker := parts[t.to]
			if _, ok := taker.r.takes[t.id()]; ok {
				continue
			}
			if !taker.r.haveAll(t.items, 0) {
				return nil, fmt.Errorf("%w: transfer %s arrives where its SKUs are not loaded: Load again", ErrInvalid, t.id())
			}
			take := Op{Kind: OpTake, ID: t.id(), Items: t.items, Reason: t.after}
			taker.r.apply(take, Entry{})
			taker.add(taker.f.now, 0, take)
		}
	}
	for _, p := range parts {
		for _, t := range inOrder(p.r.takes) {
			if t.from >= len(parts) {
				return nil, fmt.Errorf("%w: transfer %s from a bucket that is not there", ErrInvalid, t.id())
			}
			pair, giver := [2]int{t.from, t.to}, parts[t.from]
			last[pair] = max(last[pair], t.seq)
			if _, ok := giver.r.gives[t.id()]; ok {
				continue
			}
			if !giver.r.haveAll(t.items, 1) {
				twice = append(twice, Op{Kind: OpTake, ID: t.id(), Items: t.items})
				continue
			}
			give := Op{Kind: OpGive, ID: t.id(), Items: t.items}
			giver.r.apply(give, Entry{})
			giver.add(giver.f.now, 0, give)
		}
	}
	for i, giver := range parts {
		for j, taker := range parts {
			if i != j {
				giver.numbers[j] = max(giver.gave[j], taker.took[i], last[[2]int{i, j}]) + jump
			}
		}
	}
	return twice, nil
}

// inOrder returns transfers by their numbers.
func inOrder(of map[string]transfer) []transfer {
	return slices.SortedFunc(maps.Values(of), func(a, b transfer) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.seq, b.seq))
	})
}

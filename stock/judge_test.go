package stock

import (
	"errors"
	"slices"
)

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

package stock

import (
	"errors"
	"slices"
)

// A model is the contract of an activity for one call after the other, as simple
// as it can be said: no batches, no formats, no generations. Times are
// milliseconds of the server. What it answers, Redis must answer.
type model struct {
	hold                    int64
	userLimit, userSKULimit int64

	levels   map[string]*Level
	added    map[string]int64 // loaded and restocked, by SKU
	orders   map[string]*modelOrder
	early    map[string]string // id of an order cancelled before it came → user
	holds    []*modelOrder     // in the order in which they come due; some ended earlier
	restocks map[string][]Item
	used     map[string]int64 // by user, and by user and SKU

	events []Event // crossings since the last look, without versions
}

type modelOrder struct {
	verb    byte // 'D' or 'R'
	asked   Order
	granted []Item
	state   State
	due     int64
}

// An answer is a Result and its error, as far as a model can tell them.
type answer struct {
	state          State
	items, missing []Item
	due            int64 // ms; 0 unless reserved
	replayed       bool
	err            error // a sentinel
	sku            string
	have           int64 // units left or had, of a refusal
}

func newModel(opts Options) *model {
	return &model{
		hold: opts.Hold.Milliseconds(), userLimit: opts.UserLimit, userSKULimit: opts.UserSKULimit,
		levels: map[string]*Level{}, added: map[string]int64{}, orders: map[string]*modelOrder{},
		early: map[string]string{}, restocks: map[string][]Item{}, used: map[string]int64{},
	}
}

func (m *model) load(stock map[string]int64) {
	for sku, n := range stock {
		m.levels[sku] = &Level{Left: n}
		m.added[sku] = n
	}
}

func (m *model) move(sku string, left, reserved, sold int64) {
	l := m.levels[sku]
	before := l.Left
	l.Left, l.Reserved, l.Sold = l.Left+left, l.Reserved+reserved, l.Sold+sold
	if (before == 0) != (l.Left == 0) {
		m.events = append(m.events, Event{SKU: sku, Left: l.Left})
	}
}

func (m *model) use(user string, items []Item, sign int64) {
	for _, it := range items {
		m.used[user] += sign * it.Qty
		m.used[user+"\x00"+it.SKU] += sign * it.Qty
	}
}

// refusal says why the items cannot be had beside units that were granted already.
func (m *model) refusal(user string, items []Item, beside int64) *answer {
	for _, it := range items {
		l := m.levels[it.SKU]
		if l == nil {
			return &answer{err: ErrNoSKU, sku: it.SKU}
		}
		if l.Left < it.Qty {
			return &answer{err: ErrInsufficient, sku: it.SKU, have: l.Left}
		}
	}
	total := beside
	for _, it := range items {
		total += it.Qty
		if have := m.used[user+"\x00"+it.SKU]; m.userSKULimit > 0 && have+it.Qty > m.userSKULimit {
			return &answer{err: ErrLimit, sku: it.SKU, have: have}
		}
	}
	if have := m.used[user]; m.userLimit > 0 && have+total > m.userLimit {
		return &answer{err: ErrLimit, have: have}
	}
	return nil
}

// grant says what the order would get now, or why it gets nothing.
func (m *model) grant(o Order) ([]Item, *answer) {
	if !o.Partial {
		if no := m.refusal(o.User, o.Items, 0); no != nil {
			return nil, no
		}
		return o.Items, nil
	}
	var items []Item
	var first *answer
	total := int64(0)
	for _, it := range o.Items {
		no := m.refusal(o.User, []Item{it}, total)
		switch {
		case no == nil:
			items = append(items, it)
			total += it.Qty
		case errors.Is(no.err, ErrNoSKU):
			return nil, no
		case first == nil:
			first = no
		}
	}
	if len(items) == 0 {
		return nil, first
	}
	return items, nil
}

func (m *model) order(verb byte, o Order, now int64) answer {
	if user, ok := m.early[o.ID]; ok {
		if user != o.User {
			return answer{err: ErrConflict}
		}
		return answer{state: Cancelled, replayed: true, err: ErrCancelled}
	}
	if was := m.orders[o.ID]; was != nil {
		m.endDue(was, now)
		if was.verb != verb || !sameOrder(was.asked, o) {
			return answer{err: ErrConflict}
		}
		a := was.answer(true)
		switch was.state {
		case Cancelled:
			a.err = ErrCancelled
		case Expired:
			a.err = ErrExpired
		}
		return a
	}
	items, no := m.grant(o)
	if no != nil {
		return *no
	}
	n := &modelOrder{verb: verb, asked: o, granted: items, state: Sold}
	if verb == 'R' {
		n.state, n.due = Reserved, now+m.hold
		m.holds = append(m.holds, n)
	}
	m.orders[o.ID] = n
	for _, it := range items {
		if verb == 'R' {
			m.move(it.SKU, -it.Qty, it.Qty, 0)
		} else {
			m.move(it.SKU, -it.Qty, 0, it.Qty)
		}
	}
	m.use(o.User, items, 1)
	return n.answer(false)
}

func sameOrder(a, b Order) bool {
	return a.User == b.User && a.Partial == b.Partial && slices.Equal(a.Items, b.Items)
}

func (n *modelOrder) answer(replayed bool) answer {
	a := answer{state: n.state, items: n.granted, replayed: replayed}
	if n.state == Reserved {
		a.due = n.due
	}
	for _, it := range n.asked.Items {
		if !slices.Contains(n.granted, it) {
			a.missing = append(a.missing, it)
		}
	}
	return a
}

// giveBack ends an order that has units.
func (m *model) giveBack(n *modelOrder, state State) {
	for _, it := range n.granted {
		if n.state == Reserved {
			m.move(it.SKU, it.Qty, -it.Qty, 0)
		} else {
			m.move(it.SKU, it.Qty, 0, -it.Qty)
		}
	}
	m.use(n.asked.User, n.granted, -1)
	n.state = state
}

func (m *model) endDue(n *modelOrder, now int64) {
	if n.state == Reserved && n.due <= now {
		m.giveBack(n, Expired)
	}
}

// advance ends the holds that came due.
func (m *model) advance(now int64) {
	for len(m.holds) > 0 && (m.holds[0].state != Reserved || m.holds[0].due <= now) {
		m.endDue(m.holds[0], now)
		m.holds = m.holds[1:]
	}
}

// find returns the order that ref names, or what else is to be answered.
func (m *model) find(ref Ref, now int64) (*modelOrder, answer) {
	if user, ok := m.early[ref.ID]; ok {
		if user != ref.User {
			return nil, answer{err: ErrConflict}
		}
		return nil, answer{state: Cancelled, replayed: true}
	}
	n := m.orders[ref.ID]
	if n == nil {
		return nil, answer{err: ErrNotFound}
	}
	if n.asked.User != ref.User {
		return nil, answer{err: ErrConflict}
	}
	m.endDue(n, now)
	return n, answer{}
}

func (m *model) confirm(ref Ref, now int64) answer {
	n, no := m.find(ref, now)
	if n == nil {
		if no.state == Cancelled {
			no.err = ErrCancelled
		}
		return no
	}
	switch n.state {
	case Reserved:
		for _, it := range n.granted {
			m.move(it.SKU, 0, -it.Qty, it.Qty)
		}
	case Sold:
	default:
		a := n.answer(true)
		switch n.state {
		case Cancelled:
			a.err = ErrCancelled
		case Expired:
			a.err = ErrExpired
		}
		return a
	}
	n.state = Confirmed
	return n.answer(false)
}

func (m *model) cancel(ref Ref, now int64) answer {
	n, no := m.find(ref, now)
	if n == nil {
		if errors.Is(no.err, ErrNotFound) {
			m.early[ref.ID] = ref.User
			return answer{state: Cancelled}
		}
		return no
	}
	switch n.state {
	case Reserved, Sold:
		m.giveBack(n, Cancelled)
		return n.answer(false)
	}
	a := n.answer(true)
	switch n.state {
	case Expired:
		a.err = ErrExpired
	case Confirmed:
		a.err = ErrConfirmed
	}
	return a
}

func (m *model) lookup(ref Ref, now int64) answer {
	n, no := m.find(ref, now)
	if n == nil {
		return no
	}
	return n.answer(true)
}

func (m *model) restock(id string, items []Item) answer {
	if was, ok := m.restocks[id]; ok {
		if !slices.Equal(was, items) {
			return answer{err: ErrConflict}
		}
		return answer{items: items, replayed: true}
	}
	for _, it := range items {
		l := m.levels[it.SKU]
		if l == nil {
			return answer{err: ErrNoSKU, sku: it.SKU}
		}
		if l.Left+l.Reserved+l.Sold+it.Qty > maxQty {
			return answer{err: ErrInvalid}
		}
	}
	for _, it := range items {
		m.move(it.SKU, it.Qty, 0, 0)
		m.added[it.SKU] += it.Qty
	}
	m.restocks[id] = items
	return answer{items: items}
}

// sentinels in the order in which answerOf looks for them.
var sentinels = []error{
	ErrInvalid, ErrClosed, ErrUnavailable, ErrUnknown, ErrConflict, ErrHalted, ErrNotOpen, ErrEnded,
	ErrNotEligible, ErrNoSKU, ErrInsufficient, ErrLimit, ErrNotFound, ErrCancelled, ErrExpired, ErrConfirmed, ErrContended,
}

// answerOf brings what an activity answered into the model's form.
func answerOf(res Result, err error) answer {
	a := answer{state: res.State, items: res.Items, missing: res.Missing, replayed: res.Replayed}
	if !res.Expires.IsZero() {
		a.due = res.Expires.UnixMilli()
	}
	for _, s := range sentinels {
		if errors.Is(err, s) {
			a.err = s
			break
		}
	}
	if a.err == nil {
		a.err = err
	}
	var short *InsufficientError
	var limit *LimitError
	switch {
	case errors.As(err, &short):
		a.sku, a.have = short.SKU, short.Left
	case errors.As(err, &limit):
		a.sku, a.have = limit.SKU, limit.Have
	}
	return a
}

// withoutSKU drops what an error says only in its text.
func (a answer) withoutSKU() answer {
	if a.err != nil && !errors.Is(a.err, ErrInsufficient) && !errors.Is(a.err, ErrLimit) {
		a.sku = ""
	}
	return a
}

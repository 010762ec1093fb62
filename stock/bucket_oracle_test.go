package stock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
)

// A ledger judges histories of an activity with buckets by their journals, which it
// adds up by itself. The journals have no common order, only the time: what is to be
// sold in all is held against an answer at the millisecond of that answer, in the
// order that speaks for the answer.
type ledger struct {
	soldOutFor time.Duration
	home       func(user string) int
	last       []string
	levels     []map[string]Level
	loaded     map[string]int64
	orders     map[Ref]*booking
	restocks   map[string]int64 // ms
	gives      map[string]Op
	takes      map[string]bool
	base       map[string]int64   // what could be sold, by SKU, before
	moves      map[string][]delta // of it since then
	steps      int

	doubles bool // look for orders that are granted twice alone
	told    map[error]int
	memory  int
	faults  []string
}

// A booking is what the journals tell of an order.
type booking struct {
	bucket int
	kind   OpKind
	items  []Item
	at     int64
	state  State
	ended  int64 // ms
}

type delta struct {
	ms, q int64
	what  string
}

// A divided seller has several journals and levels.
type divided interface {
	seller
	parts() []*Activity
}

func (a *Activity) parts() []*Activity { return a.buckets }

func newLedger(soldOutFor time.Duration, s divided, home func(string) int) *ledger {
	l := &ledger{
		soldOutFor: soldOutFor, home: home, loaded: map[string]int64{}, orders: map[Ref]*booking{}, restocks: map[string]int64{},
		base: map[string]int64{}, gives: map[string]Op{}, takes: map[string]bool{}, moves: map[string][]delta{}, told: map[error]int{},
	}
	for range s.parts() {
		l.last = append(l.last, "")
		l.levels = append(l.levels, map[string]Level{})
	}
	return l
}

func (l *ledger) fault(format string, args ...any) {
	if l.doubles && !strings.Contains(format, "and was in bucket") {
		return
	}
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, fmt.Sprintf("after %d journal ops: ", l.steps)+fmt.Sprintf(format, args...))
	}
}

// check reads what is new and judges the calls of a round, all of which have returned.
func (l *ledger) check(ctx context.Context, s divided, calls []call) error {
	if err := l.settle(ctx, s); err != nil {
		return err
	}
	told := map[Ref]bool{}
	earliest := time.Now()
	for _, c := range calls {
		l.judge(c)
		if c.sent.Before(earliest) {
			earliest = c.sent
		}
		if c.verb == 'D' || c.verb == 'R' {
			ref := Ref{c.order.ID, c.order.User}
			refused := errors.Is(c.err, ErrInsufficient) || errors.Is(c.err, ErrContended) || errors.Is(c.err, ErrNoSKU)
			told[ref] = told[ref] || !refused && !errors.Is(c.err, ErrUnavailable)
			if b := l.orders[ref]; b != nil && b.at >= c.sent.UnixMilli() && !told[ref] {
				told[ref] = slices.ContainsFunc(calls, func(o call) bool {
					return o.order.ID == ref.ID && o.order.User == ref.User && (o.err == nil || !errors.Is(o.err, ErrInsufficient) && !errors.Is(o.err, ErrContended))
				})
				if !told[ref] {
					l.fault("%v: granted at %d, and nobody was told", c, b.at)
				}
			}
		}
	}
	l.forget(earliest.Add(-time.Second - l.soldOutFor).UnixMilli())
	return nil
}

// forget adds up what happened before ms, which no answer from now on speaks of.
func (l *ledger) forget(ms int64) {
	for sku, m := range l.moves {
		i := 0
		for ; i < len(m) && m[i].ms < ms; i++ {
			l.base[sku] += m[i].q
		}
		l.moves[sku] = m[i:]
	}
}

// settle reads the journals and the levels until they hold still together.
func (l *ledger) settle(ctx context.Context, s divided) error {
	for range 1000 {
		if _, err := l.read(ctx, s); err != nil {
			return err
		}
		var levels []map[string]Level
		for _, b := range s.parts() {
			at, err := b.Stock(ctx)
			if err != nil {
				return err
			}
			levels = append(levels, at)
		}
		all, err := s.Stock(ctx)
		if err != nil {
			return err
		}
		more, err := l.read(ctx, s)
		if err != nil {
			return err
		}
		if !more {
			l.compare(levels, all)
			return nil
		}
	}
	l.fault("the journals never hold still")
	return nil
}

func (l *ledger) read(ctx context.Context, s divided) (more bool, err error) {
	for i, b := range s.parts() {
		for e, err := range b.Entries(ctx, l.last[i]) {
			if err != nil {
				return false, err
			}
			if want := l.last[i]; want != e.Prev && (want != "" || e.Prev != "0-0") {
				l.fault("bucket %d: entry %s follows %q, not %q", i, e.ID, e.Prev, want)
			}
			l.last[i], more = e.ID, true
			for _, op := range e.Ops {
				l.steps++
				l.apply(i, e.At.UnixMilli(), op)
			}
		}
	}
	return more, nil
}

func (l *ledger) apply(bucket int, ms int64, op Op) {
	ref := Ref{op.ID, op.User}
	b := l.orders[ref]
	var left, reserved, sold int64
	switch op.Kind {
	case OpCrossing:
		return
	case OpLoad, OpRestock:
		left = 1
		for _, it := range op.Items {
			l.loaded[it.SKU] += it.Qty
		}
		if op.Kind == OpRestock {
			if _, twice := l.restocks[op.ID]; twice {
				l.fault("restock %s happened twice", op.ID)
			}
			l.restocks[op.ID] = ms
		}
	case OpGive:
		left = -1
		if _, twice := l.gives[op.ID]; twice {
			l.fault("transfer %s is given twice", op.ID)
		}
		l.gives[op.ID] = op
	case OpTake:
		left = 1
		if l.takes[op.ID] {
			l.fault("transfer %s is taken twice", op.ID)
		}
		l.takes[op.ID] = true
	case OpDeduct, OpReserve:
		left, sold = -1, 1
		state := Sold
		if op.Kind == OpReserve {
			sold, reserved, state = 0, 1, Reserved
		}
		if b != nil {
			l.fault("order %v is granted in bucket %d, and was in bucket %d: %+v", ref, bucket, b.bucket, b)
		}
		if l.home != nil && l.home(op.User) != bucket {
			l.fault("order %v is granted in bucket %d, its home is %d", ref, bucket, l.home(op.User))
		}
		l.orders[ref] = &booking{bucket: bucket, kind: op.Kind, items: op.Items, at: ms, state: state}
	case OpConfirm, OpCancel, OpExpire:
		if b == nil || b.state != Sold && b.state != Reserved || b.bucket != bucket || !slices.Equal(b.items, op.Items) {
			l.fault("%s of %v: %+v", op.Kind, ref, b)
			return
		}
		from := map[State]*int64{Sold: &sold, Reserved: &reserved}[b.state]
		*from = -1
		b.ended = ms
		switch op.Kind {
		case OpConfirm:
			sold++
			b.state = Confirmed
		case OpCancel:
			left, b.state = 1, Cancelled
		case OpExpire:
			left, b.state = 1, Expired
		}
	}
	for _, it := range op.Items {
		at := l.levels[bucket][it.SKU]
		at.Left, at.Reserved, at.Sold = at.Left+left*it.Qty, at.Reserved+reserved*it.Qty, at.Sold+sold*it.Qty
		l.levels[bucket][it.SKU] = at
		if at.Left < 0 {
			l.fault("bucket %d: %+v leaves %+v", bucket, op, at)
		}
		if op.Kind != OpGive && op.Kind != OpTake && left != 0 {
			if op.Kind == OpLoad {
				ms = 0
			}
			l.moves[it.SKU] = append(l.moves[it.SKU], delta{ms, left * it.Qty, fmt.Sprintf("%s %s in %d", op.Kind, op.ID, bucket)})
		}
	}
}

// compare: levels are what the journals add up to, and nothing is lost between them.
func (l *ledger) compare(levels []map[string]Level, all map[string]Level) {
	sums := map[string]Level{}
	for i := range levels {
		for sku, got := range levels[i] {
			got.Version = 0
			if got != l.levels[i][sku] {
				l.fault("bucket %d, %s: the server has %+v, the journal %+v", i, sku, got, l.levels[i][sku])
			}
			s := sums[sku]
			sums[sku] = Level{Left: s.Left + got.Left, Reserved: s.Reserved + got.Reserved, Sold: s.Sold + got.Sold}
		}
	}
	for id := range l.takes {
		if _, ok := l.gives[id]; !ok {
			l.fault("transfer %s was taken, and never given", id)
		}
	}
	for id, op := range l.gives {
		for _, it := range op.Items {
			if !l.takes[id] {
				s := sums[it.SKU]
				s.Left += it.Qty
				sums[it.SKU] = s
			}
		}
	}
	for sku, n := range l.loaded {
		s := sums[sku]
		if s.Left+s.Reserved+s.Sold != n {
			l.fault("%s: %+v of %d units", sku, s, n)
		}
		got := all[sku]
		got.Version = 0
		if got != s {
			l.fault("%s: Stock says %+v, the buckets have %+v", sku, got, s)
		}
	}
	for _, m := range l.moves {
		sort.SliceStable(m, func(i, j int) bool {
			return m[i].ms < m[j].ms || m[i].ms == m[j].ms && m[i].q < m[j].q // less first
		})
	}
}

// least returns the least that can have been for sale at a moment from ms to ms.
func (l *ledger) least(sku string, from, to int64) int64 {
	n, m := l.base[sku], l.moves[sku]
	i := 0
	for ; i < len(m) && m[i].ms < from; i++ {
		n += m[i].q
	}
	least := n
	for ; i < len(m) && m[i].ms <= to; i++ {
		n += m[i].q
		least = min(least, n)
	}
	return least
}

// around returns what happened to a SKU shortly before and after.
func (l *ledger) around(sku string, ms int64) (near []delta) {
	for _, d := range l.moves[sku] {
		if d.ms > ms-30 && d.ms < ms+30 {
			near = append(near, d)
		}
	}
	return near
}

func (l *ledger) judge(c call) {
	a := answerOf(c.res, c.err)
	l.told[a.err]++
	ref := Ref{c.order.ID, c.order.User}
	b := l.orders[ref]
	at := c.res.At.UnixMilli()
	asked := func(sku string) (q int64) {
		for _, it := range c.order.Items {
			if it.SKU == sku {
				q = it.Qty
			}
		}
		return q
	}
	switch {
	case c.verb == 'A':
		if _, ok := l.restocks[c.order.ID]; !ok && c.err == nil {
			l.fault("%v: the journals do not have it", c)
		}
	case errors.Is(c.err, ErrInsufficient) && c.res.FromMemory:
		l.memory++
		if n := l.least(a.sku, c.sent.Add(-l.soldOutFor).UnixMilli()-1, c.got.UnixMilli()); n > 0 || c.order.Retry {
			l.fault("%v: %d units of %s were for sale all the time", c, n, a.sku)
		}
	case errors.Is(c.err, ErrInsufficient):
		from := at
		if c.order.Partial { // its items are missed one after the other
			from = c.sent.UnixMilli() - 1
		}
		if n := l.least(a.sku, from, at); n >= asked(a.sku) {
			l.fault("%v: false sold out: %d units of %s were for sale at %d: %+v", c, n, a.sku, at, l.around(a.sku, at))
		}
		if b != nil && b.at < at {
			l.fault("%v: it was granted at %d: %+v", c, b.at, b)
		}
	case c.err == nil && (c.verb == 'D' || c.verb == 'R'):
		kind := map[byte]OpKind{'D': OpDeduct, 'R': OpReserve}[c.verb]
		if b == nil || b.kind != kind || !slices.Equal(b.items, c.res.Items) {
			l.fault("%v: the journals have %+v", c, b)
			return
		}
		if !c.res.Replayed {
			for _, it := range c.res.Missing {
				if n := l.least(it.SKU, c.sent.UnixMilli()-1, at); n >= it.Qty {
					l.fault("%v: %s is not missing: %d units were for sale", c, it.SKU, n)
				}
			}
		}
	case c.err == nil && c.verb == 'C':
		if b == nil || b.state != Confirmed {
			l.fault("%v: the journals have %+v", c, b)
		}
	case c.err == nil && c.verb == 'X':
		if b != nil && b.state != Cancelled {
			l.fault("%v: the journals have %+v", c, b)
		}
	case errors.Is(c.err, ErrNotFound):
		if b != nil && b.at < at {
			l.fault("%v: it was granted at %d: %+v", c, b.at, b)
		}
	}
}

// summary is for the log of a test.
func (l *ledger) summary() string {
	var told []string
	for _, err := range slices.SortedFunc(maps.Keys(l.told), func(a, b error) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		told = append(told, fmt.Sprintf("%d × %v", l.told[err], err))
	}
	return fmt.Sprintf("%d journal ops, %d transfers, %d answers from memory; told: %s", l.steps, len(l.gives), l.memory, strings.Join(told, ", "))
}

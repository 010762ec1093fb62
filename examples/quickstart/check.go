package main

import (
	"fmt"
	"time"

	"github.com/spillway-go/spillway/stock"
)

// A verdict is one promise and whether the journal shows it kept.
type verdict struct {
	promise string
	found   string // what was counted
	broken  string // the first place where it was not kept, or empty
}

func (v *verdict) fail(format string, args ...any) {
	if v.broken == "" {
		v.broken = fmt.Sprintf(format, args...)
	}
}

// A ledger keeps the books while it reads the journal, twice: left follows the units
// that each op names, orders follows what became of each order. What was done twice,
// or half, makes the two differ.
type ledger struct {
	chain, oversold, balance, once, limit, events verdict

	loaded, left, most int64
	orders             map[string]*account
	owned              map[string]int64 // by user: units held and paid for
	held, paid         int64            // by orders
	cancelled, expired int64

	crossed  bool // the last op sold out the stock or brought it back
	version  int64
	sellOuts int
	returns  int
}

type account struct {
	state stock.State
	user  string
	units int64
}

// check replays the journal and compares it with what the buyers were told, and with
// the level that Redis reports.
func check(journal []stock.Entry, told map[string]stock.State, level stock.Level) []verdict {
	b := ledger{orders: make(map[string]*account), owned: make(map[string]int64)}
	last := "0-0"
	for _, entry := range journal {
		if entry.Prev != last {
			b.chain.fail("entry %s follows %s, not %s", entry.ID, entry.Prev, last)
		}
		last = entry.ID
		for _, op := range entry.Ops {
			b.read(entry.ID, op)
		}
		if sum := b.paid + b.held + b.left; sum != b.loaded {
			b.balance.fail("entry %s: paid %d + held %d + left %d = %d", entry.ID, b.paid, b.held, b.left, sum)
		}
	}
	if b.crossed {
		b.events.fail("no event at the end of the journal")
	}

	b.chain.say("the journal is a chain without a gap", "%s entries", grouped(int64(len(journal))))
	b.oversold.say("never oversold, at no step", "at most %d of %d held or paid", b.most, b.loaded)
	b.balance.say("the units always add up", "%d paid + %d held + %d left = %d", b.paid, b.held, b.left, b.loaded)
	b.once.say("each order ends, and gives back, once", "%d paid, %d cancelled, %d expired",
		len(b.orders)-int(b.cancelled+b.expired), b.cancelled, b.expired)
	b.limit.say(fmt.Sprintf("no buyer ever had more than %d", limit), "%d buyers had a unit", len(b.owned))
	b.events.say("one event per sell-out and return", "%d sell-outs, %d returns", b.sellOuts, b.returns)
	return []verdict{b.chain, b.oversold, b.balance, b.once, b.limit, b.events,
		b.compareTold(told), b.allSold(), b.compareLevel(level)}
}

func (v *verdict) say(promise, format string, args ...any) {
	v.promise, v.found = promise, fmt.Sprintf(format, args...)
}

// read enters one op into the books.
func (b *ledger) read(at string, op stock.Op) {
	if op.Kind == stock.OpCrossing {
		if !b.crossed || op.Event.Left != b.left || op.Event.Version <= b.version {
			b.events.fail("entry %s: event %+v, with %d left and version %d before", at, op.Event, b.left, b.version)
		}
		b.crossed, b.version = false, op.Event.Version
		if op.Event.Left == 0 {
			b.sellOuts++
		} else {
			b.returns++
		}
		return
	}
	if b.crossed {
		b.events.fail("entry %s: no event when %d were left", at, b.left)
	}
	before, units := b.left, int64(0)
	for _, it := range op.Items {
		units += it.Qty
	}
	switch op.Kind {
	case stock.OpLoad:
		b.loaded, b.left = b.loaded+units, b.left+units
	case stock.OpReserve:
		b.left -= units
		b.begin(at, op, units)
	case stock.OpConfirm:
		b.end(at, op, units, stock.Confirmed)
	case stock.OpCancel:
		b.left, b.cancelled = b.left+units, b.cancelled+1
		b.end(at, op, units, stock.Cancelled)
	case stock.OpExpire:
		b.left, b.expired = b.left+units, b.expired+1
		b.end(at, op, units, stock.Expired)
	default:
		b.once.fail("entry %s: nobody in this sale makes a %v", at, op.Kind)
	}
	b.most = max(b.most, b.held+b.paid)
	if b.left < 0 || b.held+b.paid > b.loaded {
		b.oversold.fail("entry %s: order %s makes it %d of %d", at, op.ID, b.held+b.paid, b.loaded)
	}
	b.crossed = op.Kind != stock.OpLoad && (before == 0) != (b.left == 0)
}

func (b *ledger) begin(at string, op stock.Op, units int64) {
	if b.orders[op.ID] != nil {
		b.once.fail("entry %s: order %s is granted again", at, op.ID)
		return
	}
	b.orders[op.ID] = &account{state: stock.Reserved, user: op.User, units: units}
	b.held += units
	b.owned[op.User] += units
	if have := b.owned[op.User]; have > limit {
		b.limit.fail("entry %s: %s has %d", at, op.User, have)
	}
}

func (b *ledger) end(at string, op stock.Op, units int64, end stock.State) {
	o := b.orders[op.ID]
	if o == nil || o.state != stock.Reserved || o.units != units || o.user != op.User {
		b.once.fail("entry %s: %v of order %s (%d units of %s), which is %+v", at, op.Kind, op.ID, units, op.User, o)
		return
	}
	o.state = end
	b.held -= units
	if end == stock.Confirmed {
		b.paid += units
	} else {
		b.owned[op.User] -= units
	}
}

// compareTold: who was told yes has an order that ended as told, and nobody else has.
func (b *ledger) compareTold(told map[string]stock.State) (v verdict) {
	v.say("a yes is one order, a no is none", "%d told yes, all as in the journal", len(told))
	for id, end := range told {
		if o := b.orders[id]; o == nil {
			v.fail("the buyer of %s was told %v; the journal has no such order", id, end)
		} else if o.state != end {
			v.fail("the buyer of %s was told %v; the journal says %v", id, end, o.state)
		}
	}
	for id, o := range b.orders {
		if _, ok := told[id]; !ok {
			v.fail("the journal says that %s is %v; its buyer was never told", id, o.state)
		}
	}
	return v
}

func (b *ledger) allSold() (v verdict) {
	v.say("all units sold, the last one too", "%d of %d paid", b.paid, b.loaded)
	if b.paid != b.loaded || b.loaded == 0 {
		v.fail("%d of %d paid, %d held, %d left", b.paid, b.loaded, b.held, b.left)
	}
	return v
}

func (b *ledger) compareLevel(l stock.Level) (v verdict) {
	v.say("Redis's own figures agree", "sold %d, reserved %d, left %d", l.Sold, l.Reserved, l.Left)
	if l.Sold != b.paid || l.Reserved != b.held || l.Left != b.left {
		v.fail("Redis: sold %d, reserved %d, left %d; journal: %d, %d, %d", l.Sold, l.Reserved, l.Left, b.paid, b.held, b.left)
	}
	return v
}

// report prints the verdicts and returns the exit status.
func report(show screen, verdicts []verdict, took time.Duration) int {
	show.say("\nWhat the journal says, read from its first entry, beside what each buyer was told:\n\n")
	broken := 0
	for _, v := range verdicts {
		word, found := "PASS", v.found
		if v.broken != "" {
			word, found = "FAIL", v.broken
			broken++
		}
		show.say("  %s  %-38s  %s\n", word, v.promise, found)
	}
	if broken > 0 {
		show.say("\nFAIL: %d of %d promises broken, in %.1f s.\n", broken, len(verdicts), took.Seconds())
		return 1
	}
	show.say("\nPASS: all %d promises kept, in %.1f s.\n", len(verdicts), took.Seconds())
	return 0
}

package stock

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"time"
)

// An OpKind is what happened in an activity.
type OpKind byte

// The kinds of journal ops.
const (
	OpLoad     OpKind = 'L' // Items came into being
	OpRestock  OpKind = 'A' // Items were added under the restock id ID
	OpDeduct   OpKind = 'D' // Items were sold to the order
	OpReserve  OpKind = 'R' // Items are held for the order
	OpConfirm  OpKind = 'C' // the order's Items are sold for good
	OpCancel   OpKind = 'X' // the order's Items came back
	OpExpire   OpKind = 'E' // the order's hold ended, its Items came back
	OpCrossing OpKind = 'V' // Event: a SKU sold out or came back
	OpGive     OpKind = 'G' // Items left this bucket for another one, under the transfer id ID
	OpTake     OpKind = 'T' // Items that another bucket gave under the transfer id ID arrived
)

func (k OpKind) String() string {
	switch k {
	case OpLoad:
		return "load"
	case OpRestock:
		return "restock"
	case OpDeduct:
		return "deduct"
	case OpReserve:
		return "reserve"
	case OpConfirm:
		return "confirm"
	case OpCancel:
		return "cancel"
	case OpExpire:
		return "expire"
	case OpCrossing:
		return "crossing"
	case OpGive:
		return "give"
	case OpTake:
		return "take"
	}
	return fmt.Sprintf("OpKind(%q)", byte(k))
}

// An Op is one thing that happened, complete in itself: a cancel repeats the items
// it gave back.
type Op struct {
	Kind  OpKind
	ID    string // of the order or restock
	User  string
	Items []Item // what was granted, held, sold, given back or added
	// Reason is why an order was cancelled. Of a take it is an entry of the giver's journal,
	// the one before that which gave.
	Reason string
	Event  Event // of a crossing
	// Held says of a confirm or cancel that the order was reserved, not deducted, and
	// Partial of an order, or of its end, that Order.Partial was set.
	Held, Partial bool
}

// Move returns by how many units, for each unit of an item, the op changes what is
// left, reserved and sold: -1, 0 or 1.
func (o Op) Move() (left, reserved, sold int64) {
	switch o.Kind {
	case OpLoad, OpRestock, OpTake:
		return 1, 0, 0
	case OpGive:
		return -1, 0, 0
	case OpDeduct:
		return -1, 0, 1
	case OpReserve:
		return -1, 1, 0
	case OpExpire:
		return 1, -1, 0
	case OpConfirm:
		if o.Held {
			return 0, -1, 1
		}
	case OpCancel:
		if o.Held {
			return 1, -1, 0
		}
		return 1, 0, -1
	}
	return 0, 0, 0
}

// An Entry is what one script call did: the ops of a batch, in order. Ops of one
// entry happened together.
type Entry struct {
	ID   string // stream id
	Prev string // id of the entry before, "0-0" in the first: an unbroken chain lost nothing
	At   time.Time
	Hold time.Duration // of the reserves in Ops, zero if there are none
	Ops  []Op
	// Bucket is whose journal this is, from 0; see Options.Buckets.
	Bucket int
}

// An Event says that a SKU sold out (Left is 0) or came back (Left is not). The
// version of a SKU's events only grows: keep the highest and ignore what is older.
type Event struct {
	SKU     string
	Version int64
	Left    int64
}

// entriesPage is how many entries one round trip reads.
const entriesPage = 128

var entryID = regexp.MustCompile(`^\d{1,20}-\d{1,20}$`)

// Entries returns the journal's entries after the one with the id from ("" for the
// beginning) up to the newest, oldest first. An error ends the sequence. One round
// trip per 128 entries.
//
// An activity with buckets has a journal in each: "" returns them one after the
// other, and an Entry's ID what follows it in its own bucket. There an ID is the
// bucket, a slash and the id in the stream, "2/0-0" before the first of bucket 2.
// What happened in two buckets has no order but that an OpTake follows its OpGive.
func (a *Activity) Entries(ctx context.Context, from string) iter.Seq2[Entry, error] {
	if a.buckets != nil {
		return a.entriesOfBuckets(ctx, from)
	}
	if from == "" {
		from = "0-0"
	}
	return func(yield func(Entry, error) bool) {
		if !entryID.MatchString(from) {
			yield(Entry{}, fmt.Errorf("%w: from %q is not the ID of an Entry", ErrInvalid, from))
			return
		}
		for {
			page, err := a.rdb.XRangeN(ctx, a.keys.stream, "("+from, "+", entriesPage).Result()
			if err != nil {
				yield(Entry{}, a.readError(err))
				return
			}
			for _, m := range page {
				e, err := parseEntry(m.ID, m.Values)
				e.Bucket = a.bucket
				if !yield(e, err) || err != nil {
					return
				}
				from = m.ID
			}
			if len(page) < entriesPage {
				return
			}
		}
	}
}

func parseEntry(id string, values map[string]any) (Entry, error) {
	text := func(k string) string { s, _ := values[k].(string); return s }
	at, err1 := strconv.ParseInt(text("t"), 10, 64)
	hold, err2 := strconv.ParseInt(text("h"), 10, 64)
	ops, err3 := parseOps(text("o"))
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return Entry{}, fmt.Errorf("stock: cannot read journal entry %s, written by another version? %w", id, err)
		}
	}
	return Entry{ID: id, Prev: text("p"), At: time.UnixMilli(at), Hold: time.Duration(hold) * time.Millisecond, Ops: ops}, nil
}

func parseOps(s string) ([]Op, error) {
	var ops []Op
	r := reader{rest: s}
	for r.rest != "" {
		o := Op{Kind: OpKind(r.byte())}
		id := r.field()
		switch o.Kind {
		case OpCrossing:
			o.Event = Event{SKU: id, Version: r.number(' '), Left: r.number('.')}
		case OpLoad, OpRestock, OpDeduct, OpReserve, OpConfirm, OpCancel, OpExpire, OpGive, OpTake:
			verb := r.byte() // that created the order
			o.Held = (verb == 'R' || verb == 'Q') && (o.Kind == OpConfirm || o.Kind == OpCancel)
			o.Partial = verb == 'P' || verb == 'Q'
			o.ID, o.User, o.Items = id, r.netstring(), r.items()
			if o.Kind == OpCancel || o.Kind == OpTake {
				o.Reason = r.netstring()
			}
			if o.Kind == OpLoad {
				o.ID = ""
			}
		default:
			r.fail()
		}
		if r.bad {
			return nil, fmt.Errorf("ops %q", s)
		}
		ops = append(ops, o)
	}
	return ops, nil
}

package stock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// An Item is a quantity, in units, of one SKU.
type Item struct {
	SKU string // 1 to 128 bytes
	Qty int64  // 1 to 2^52
}

// An Order asks for items, once: the same ID again gets the first answer.
type Order struct {
	ID    string // chosen by the caller, unique in the activity; 1 to 256 bytes
	User  string // whom limits and eligibility are counted for; 1 to 256 bytes
	Items []Item // 1 to 100 different SKUs
	// Partial takes the items that can be had in full and names the others in
	// Result.Missing; otherwise an order gets all its items or none.
	Partial bool
	// Retry says that this ID may have been sent before, by this or another process,
	// as the second of two clicks: the answer then always comes from Redis. Without
	// it, a second click may be told "sold out" from memory (Result.FromMemory)
	// although the first got the last unit.
	Retry bool
}

// A Ref names an order. The user is needed to find it and must be the order's.
type Ref struct{ ID, User string }

// A State is where an order stands.
type State uint8

// The states of an order. Reserved and Sold hold units and can still be confirmed
// or cancelled; the other three are final.
const (
	None      State = iota // nothing is known of the order
	Reserved               // held until Result.Expires
	Sold                   // deducted
	Confirmed              // paid for; cannot be cancelled any more
	Cancelled              // its units are back, or it was cancelled before it arrived
	Expired                // the hold ended; its units are back
	restocked              // a restock id, not an order
)

var stateNames = [...]string{"none", "reserved", "sold", "confirmed", "cancelled", "expired", "restocked"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// A Result is where an order stands after a call. Beside an error it tells what
// is known of the order: with ErrExpired from Confirm, State is Expired.
type Result struct {
	State    State
	Items    []Item    // what was granted
	Missing  []Item    // what a partial order did not get
	At       time.Time // of the answer, on Redis's clock
	Expires  time.Time // when the hold ends; zero unless State is Reserved
	Replayed bool      // the id had been settled before: this is that outcome
	// FromMemory says that Redis was not asked (or, where there are buckets, home alone):
	// the answer means "nothing for a new order", and an earlier outcome of this id was not
	// looked up.
	FromMemory bool
	// Durable says that Options.WaitReplicas replicas had the outcome when it was told.
	// It is false where that is not known: replicas that did not answer in time, a
	// replay, or no WaitReplicas.
	Durable bool
}

// An InsufficientError tells which SKU there was not enough of.
type InsufficientError struct {
	SKU        string
	Left       int64
	FromMemory bool // Redis was not asked; see Result.FromMemory
}

func (e *InsufficientError) Error() string {
	if e.FromMemory {
		return fmt.Sprintf("stock: sku %q is sold out (known for less than Options.SoldOutFor)", e.SKU)
	}
	return fmt.Sprintf("stock: sku %q: only %d left", e.SKU, e.Left)
}

// Is makes errors.Is(err, ErrInsufficient) true.
func (e *InsufficientError) Is(target error) bool { return target == ErrInsufficient }

// A LimitError tells which limit per user an order would exceed.
type LimitError struct {
	SKU   string // empty: the limit of the whole activity
	Have  int64  // units the user holds and has bought
	Limit int64
}

func (e *LimitError) Error() string {
	what := "in this activity"
	if e.SKU != "" {
		what = fmt.Sprintf("of sku %q", e.SKU)
	}
	return fmt.Sprintf("stock: user has %d of at most %d units %s", e.Have, e.Limit, what)
}

// Is makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// Deduct sells the order's items at once. Confirm makes the sale final; until
// then Cancel takes it back, which is how an order that is not paid for returns
// its units where stock is taken at order.
//
// An id that was settled before gets that outcome again, whatever the stock is
// now: Replayed with no error while it stands, ErrCancelled or ErrExpired
// otherwise. A refusal is not remembered: the same order may succeed later.
//
// One round trip, shared with the calls of other goroutines. O(items).
func (a *Activity) Deduct(ctx context.Context, o Order) (Result, error) {
	return a.order(ctx, 'D', o)
}

// Reserve holds the order's items for Options.Hold; otherwise it is like Deduct.
func (a *Activity) Reserve(ctx context.Context, o Order) (Result, error) {
	return a.order(ctx, 'R', o)
}

func (a *Activity) order(ctx context.Context, verb byte, o Order) (Result, error) {
	if err := checkOrder(&o); err != nil {
		return Result{}, err
	}
	if a.closed.Load() {
		return Result{}, fmt.Errorf("%w: activity %q", ErrClosed, a.name)
	}
	if !o.Retry && a.opts.SoldOutFor > 0 {
		if err := a.soldOut(&o); err != nil {
			return Result{FromMemory: true}, err
		}
	}
	switch {
	case o.Partial && verb == 'D':
		verb = 'P'
	case o.Partial && verb == 'R':
		verb = 'Q'
	}
	op := newOp(verb, ':', o.ID, o.User, o.Items)
	if a.buckets != nil {
		return a.orderHome(ctx, op, o)
	}
	return a.do(ctx, op)
}

// Confirm makes an order final: the units that it held are sold. A hold that
// ended before is ErrExpired, a cancelled order ErrCancelled; confirming twice
// is no error. One shared round trip.
func (a *Activity) Confirm(ctx context.Context, ref Ref) (Result, error) {
	if err := checkRef(ref); err != nil {
		return Result{}, err
	}
	return a.home(ref.User).do(ctx, newOp('C', ':', ref.ID, ref.User, nil))
}

// Cancel ends a reserved or deducted order and gives its units back; the reason,
// up to 256 bytes, goes into the journal. An order that is not there yet, or never
// will be, is cancelled all the same, which Result.Items shows by being empty: when
// it arrives, it gets ErrCancelled. Cancelling twice is no error; ErrExpired and
// ErrConfirmed say that another end came first.
//
// A cancel that Redis refused because it was out of memory is tried again by Run.
// One shared round trip.
func (a *Activity) Cancel(ctx context.Context, ref Ref, reason string) (Result, error) {
	if err := checkRef(ref); err != nil {
		return Result{}, err
	}
	if len(reason) > maxID {
		return Result{}, fmt.Errorf("%w: reason of %d bytes, want at most %d", ErrInvalid, len(reason), maxID)
	}
	o := newOp('X', ':', ref.ID, ref.User, nil)
	o.reason = reason
	home := a.home(ref.User)
	res, err := home.do(ctx, o)
	if err != nil && errors.Is(err, ErrUnavailable) && isOOM(err) {
		home.undone.add(ref, reason)
	}
	if a.buckets != nil {
		a.memory.forget(res.Items)
	}
	return res, err
}

// Lookup tells where an order stands without changing it: the call to make after
// ErrUnknown. ErrNotFound means that nothing was settled under this id so far. An
// attempt of an unknown outcome may still arrive; Cancel forbids it. A hold that
// is over is released by the look. One shared round trip.
func (a *Activity) Lookup(ctx context.Context, ref Ref) (Result, error) {
	if err := checkRef(ref); err != nil {
		return Result{}, err
	}
	return a.home(ref.User).do(ctx, newOp('S', ':', ref.ID, ref.User, nil))
}

func checkOrder(o *Order) error {
	if err := checkID("Order.ID", o.ID); err != nil {
		return err
	}
	if err := checkID("Order.User", o.User); err != nil {
		return err
	}
	return checkItems("Order.Items", o.Items)
}

func checkRef(r Ref) error {
	if err := checkID("Ref.ID", r.ID); err != nil {
		return err
	}
	return checkID("Ref.User", r.User)
}

func checkID(field, s string) error {
	if s == "" || len(s) > maxID {
		return fmt.Errorf("%w: %s of %d bytes, want 1 to %d", ErrInvalid, field, len(s), maxID)
	}
	return nil
}

func checkItems(field string, items []Item) error {
	if len(items) == 0 || len(items) > maxItems {
		return fmt.Errorf("%w: %d %s, want 1 to %d", ErrInvalid, len(items), field, maxItems)
	}
	total := int64(0)
	for i, it := range items {
		if it.SKU == "" || len(it.SKU) > maxSKU {
			return fmt.Errorf("%w: %s[%d].SKU of %d bytes, want 1 to %d", ErrInvalid, field, i, len(it.SKU), maxSKU)
		}
		if it.Qty <= 0 || it.Qty > maxQty || total > maxQty-it.Qty {
			return fmt.Errorf("%w: %s[%d].Qty %d of sku %q, want 1 to 2^52, 2^52 in all", ErrInvalid, field, i, it.Qty, it.SKU)
		}
		total += it.Qty
		for _, before := range items[:i] {
			if before.SKU == it.SKU {
				return fmt.Errorf("%w: %s[%d].SKU %q is there twice; add the quantities", ErrInvalid, field, i, it.SKU)
			}
		}
	}
	return nil
}

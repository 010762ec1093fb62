package stock

import (
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/internal/coalesce"
)

// The codes of settle.lua's verdicts.
const (
	codeDone = iota
	codeReplay
	codeConflict
	codeHalted
	codeNotOpen
	codeEnded
	codeNotEligible
	codeNoSKU
	codeInsufficient
	codeLimit
	codeNotFound
	codeJournalFull
	codeOverflow   = 13
	codeSuperseded = 14 // an earlier attempt of this call was refused, and so is every other
	codeBuckets    = 15
)

// failure names what happened to a call that got no answer.
func (a *Activity) failure(o *op, err error) error {
	switch {
	case errors.Is(err, coalesce.ErrClosed):
		return fmt.Errorf("%w: activity %q", ErrClosed, a.name)
	case errors.Is(err, coalesce.ErrUnsent):
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, coalesce.ErrUnknown):
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if errors.Is(err, ErrUnknown) {
		a.doubts.add(o.field, a.opts.Retention)
		a.stats.unknown.Add(1)
	}
	return a.wrap(o, err)
}

// result tells the caller of o what out means.
func (a *Activity) result(o *op, out outcome) (Result, error) {
	res := Result{At: time.UnixMicro(out.us), Durable: out.durable}
	switch out.code {
	case codeDone, codeReplay:
		res.Replayed = out.code == codeReplay
		if out.record == "" { // an order or restock granted in full
			res.Items = o.items
			switch o.verb {
			case 'R', 'Q':
				res.State, res.Expires = Reserved, time.UnixMilli(out.us/1000).Add(a.opts.Hold)
			case 'D', 'P':
				res.State = Sold
			}
			return res, nil
		}
		rec, err := parseRecord(out.record)
		if err != nil {
			return res, err
		}
		if rec.state == restocked {
			res.Items = rec.granted
			return res, nil
		}
		res.State, res.Items, res.Missing, res.Expires = rec.state, rec.granted, rec.missing(), rec.due
		return res, a.wrap(o, ended(o.verb, rec.state))
	case codeConflict:
		if out.sku != "" {
			return res, a.wrap(o, fmt.Errorf("%w: sku %q was loaded with %d units; Restock adds to it", ErrConflict, out.sku, out.a))
		}
		if o.items == nil {
			return res, a.wrap(o, fmt.Errorf("%w: the order is another user's", ErrConflict))
		}
		return res, a.wrap(o, ErrConflict)
	case codeHalted:
		return res, a.wrap(o, fmt.Errorf("%w: %s", ErrHalted, out.sku))
	case codeJournalFull:
		return res, a.wrap(o, fmt.Errorf("%w by more than %v", ErrJournalFull, a.opts.MaxLag))
	case codeNotOpen:
		return res, a.wrap(o, fmt.Errorf("%w: opens at %s", ErrNotOpen, a.opts.OpensAt.Format(time.RFC3339)))
	case codeEnded:
		return res, a.wrap(o, fmt.Errorf("%w at %s", ErrEnded, a.opts.ClosesAt.Format(time.RFC3339)))
	case codeNotEligible:
		return res, a.wrap(o, ErrNotEligible)
	case codeNoSKU:
		return res, a.wrap(o, fmt.Errorf("%w: %q", ErrNoSKU, out.sku))
	case codeInsufficient:
		a.stats.insufficient.Add(1)
		return res, a.wrap(o, &InsufficientError{SKU: out.sku, Left: out.a})
	case codeLimit:
		return res, a.wrap(o, &LimitError{SKU: out.sku, Have: out.a, Limit: out.b})
	case codeNotFound:
		return res, a.wrap(o, ErrNotFound)
	case codeSuperseded:
		// Its reply was lost, and with it the reason; what is left is that nothing
		// happened and nothing will. Mostly nobody listens any more.
		return res, a.wrap(o, fmt.Errorf("%w: refused, and the reason was lost: try again", ErrUnavailable))
	case codeBuckets:
		return res, a.wrap(o, a.otherBuckets(out.sku))
	case codeOverflow:
		return res, a.wrap(o, fmt.Errorf("%w: more than 2^52 units of sku %q", ErrInvalid, out.sku))
	}
	return res, a.wrap(o, fmt.Errorf("%w: verdict %d", ErrUnknown, out.code))
}

func (a *Activity) wrap(o *op, err error) error {
	if err == nil {
		return nil
	}
	if o.verb == 'L' { // its id is ours
		return fmt.Errorf("stock: activity %q: load: %w", a.name, err)
	}
	return fmt.Errorf("stock: activity %q, id %q: %w", a.name, o.id, err)
}

// ended is the error of a call that met an order which had reached state.
func ended(verb byte, state State) error {
	switch {
	case verb == 'S':
		return nil
	case state == Expired:
		return ErrExpired
	case state == Cancelled && verb != 'X':
		return ErrCancelled
	case state == Confirmed && verb == 'X':
		return ErrConfirmed
	}
	return nil
}

func parseVerdict(v any) outcome {
	if code, ok := v.(int64); ok {
		return outcome{code: code}
	}
	r, ok := v.([]any)
	if !ok || len(r) == 0 {
		return outcome{err: fmt.Errorf("%w: verdict %v of settle.lua", ErrUnknown, v)}
	}
	at := func(i int) (string, int64) {
		if i >= len(r) {
			return "", 0
		}
		s, _ := r[i].(string)
		n, _ := r[i].(int64)
		return s, n
	}
	var out outcome
	_, out.code = at(0)
	text, _ := at(1)
	switch out.code {
	case codeDone, codeReplay:
		out.record = text
	default:
		out.sku = text
		_, out.a = at(2)
		_, out.b = at(3)
	}
	return out
}

package sale

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/stock"
)

// The states of a payment.
const (
	paymentBegun    = "begun"    // the wallet may have been charged, the order confirmed
	paymentTaken    = "taken"    // the ledger has the confirm: paid for good
	paymentRefunded = "refunded" // the order was not to be had any more: the money went back
	paymentVoid     = "void"     // the wallet was never charged, and the order is over
)

const (
	// settleAfter is how old a payment is before others than its own call look after it.
	settleAfter = 2 * time.Second
	// lostAfter is for how long an order may be unknown to Redis before its money goes
	// back: a sale that lost its data is rebuilt within a second or two, with all orders
	// that SQL has.
	lostAfter = 5 * time.Second
	// voidAfter is when no call that wants to charge the wallet can be on its way any more.
	voidAfter = time.Hour
)

// A payment is a row of payments. Its fen are the order's price until it is charged,
// and then what was charged.
type payment struct {
	order, uid, room, fen int64
	state                 string
	begun                 int64 // ms
}

func (p payment) ref() string { return strconv.FormatInt(p.order, 10) }

func (p payment) stockRef() stock.Ref {
	return stock.Ref{ID: p.ref(), User: strconv.FormatInt(p.uid, 10)}
}

// A Receipt is the answer to Pay and PayWith.
type Receipt struct {
	OrderID int64  `json:"order_id"`
	State   string `json:"state"`
	Fen     int64  `json:"fen"` // what was charged
	Balance int64  `json:"balance"`
}

// Pay pays for an order, in full. A payment that comes too late is refunded, and the
// answer says so. Again, it is not charged twice: the answer is the first one, also if
// that was to PayWith.
func (s *Sale) Pay(ctx context.Context, uid, id int64) (Receipt, error) {
	return s.pay(ctx, uid, id, func(_ context.Context, _ *sql.Tx, p payment) (int64, error) { return p.fen, nil })
}

// pay charges what cost says, which is called in the transaction of the charge.
func (s *Sale) pay(ctx context.Context, uid, id int64, cost func(context.Context, *sql.Tx, payment) (fen int64, err error)) (Receipt, error) {
	room, err := s.roomOf(ctx, uid, id)
	if err != nil {
		return Receipt{}, err
	}
	p, err := s.begin(ctx, uid, id, room)
	if err != nil {
		return Receipt{}, err
	}
	r := Receipt{OrderID: id, Fen: p.fen}
	switch p.state {
	case paymentVoid:
		return r, errOver
	case paymentRefunded:
		r.State = Refunded
		r.Balance, err = s.wallet.Balance(ctx, uid)
		return r, err
	}
	r.Fen, r.Balance, err = s.wallet.PayWithin(ctx, uid, account.Platform, "order", p.ref(), func(ctx context.Context, tx *sql.Tx) (int64, error) {
		return cost(ctx, tx, p)
	})
	if errors.Is(err, account.ErrPoor) {
		return r, &api.Error{Status: http.StatusPaymentRequired, Code: "poor", Msg: "the balance does not suffice"}
	}
	if err != nil {
		return r, err // asked again, it is charged once
	}
	// From here on the money is taken, and the order gets to its end whoever dies.
	if r.State, err = s.settle(ctx, p); err == nil && r.State == Refunded {
		r.Balance, err = s.wallet.Balance(ctx, uid)
	}
	return r, err
}

var errOver = api.Conflict("cancelled", "the order was not paid in time")

// begin writes down that an order is about to be paid, if it can be, and returns the
// payment that there is then. One that has begun needs no Redis to be found.
func (s *Sale) begin(ctx context.Context, uid, id, room int64) (payment, error) {
	p, err := s.payment(ctx, id)
	if !errors.Is(err, sql.ErrNoRows) {
		return p, err
	}
	p = payment{order: id, uid: uid, room: room, state: paymentBegun, begun: s.now()}
	l, err := s.of(ctx, room)
	if err != nil {
		return p, err
	}
	res, err := l.stock.Lookup(ctx, p.stockRef())
	switch {
	case errors.Is(err, stock.ErrNotFound):
		return p, errNoOrder
	case errors.Is(err, stock.ErrExpired), err == nil && res.State != stock.Reserved:
		// Another click may have begun since, and be through.
		if p, err = s.payment(ctx, id); errors.Is(err, sql.ErrNoRows) {
			err = errOver
		}
		return p, err
	case err != nil:
		return p, err
	}
	if p.fen, err = s.cost(ctx, room, linesOf(res.Items)); err != nil {
		return p, err
	}
	inserted, err := s.env.DB.ExecContext(ctx, s.env.InsertNew("payments", "order_id", "uid", "room", "fen", "state", "begun_ms"),
		p.order, p.uid, p.room, p.fen, p.state, p.begun)
	if err != nil {
		return p, err
	}
	if n, err := inserted.RowsAffected(); err != nil || n == 1 {
		return p, err
	}
	return s.payment(ctx, id) // another click's
}

// cost returns what an order costs. The price of a product in a room does not change, so
// that the shelf in memory is asked first, which may not have the newest product yet.
func (s *Sale) cost(ctx context.Context, room int64, lines []Line) (fen int64, err error) {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return 0, err
	}
	all := v.goods()
	if slices.ContainsFunc(lines, func(l Line) bool { return v.item(l.SKU) == nil }) {
		if all, err = s.goods(ctx, room); err != nil {
			return 0, err
		}
	}
	_, fen = price(lines, all)
	return fen, nil
}

func (s *Sale) payment(ctx context.Context, id int64) (p payment, err error) {
	err = s.env.DB.QueryRowContext(ctx, "SELECT order_id, uid, room, fen, state, begun_ms FROM payments WHERE order_id = ?", id).
		Scan(&p.order, &p.uid, &p.room, &p.fen, &p.state, &p.begun)
	return p, err
}

// settle brings an order whose payment was charged to its end: paid, or refunded
// because it is not to be had any more. Every step may be repeated, by anybody. After
// an error the chores come back to it.
//
// That Redis confirmed is not yet the end of the payment: Redis may lose it before SQL
// has it. It is the end of it when the ledger has it; see putEnds.
func (s *Sale) settle(ctx context.Context, p payment) (state string, err error) {
	if p.state == paymentTaken {
		return Paid, nil
	}
	l, err := s.of(ctx, p.room)
	if err != nil {
		return "", err
	}
	_, err = l.stock.Confirm(ctx, p.stockRef())
	switch {
	case err == nil:
		return Paid, nil
	case errors.Is(err, stock.ErrExpired), errors.Is(err, stock.ErrCancelled):
	case errors.Is(err, stock.ErrNotFound):
		if s.now()-p.begun < lostAfter.Milliseconds() {
			return "", errRepairing
		}
		// It is in no copy of anything, and this keeps it so.
		if _, err := l.stock.Cancel(ctx, p.stockRef(), "lost"); err != nil {
			return "", err
		}
	default:
		return "", err
	}
	return Refunded, s.refund(ctx, p)
}

func (s *Sale) refund(ctx context.Context, p payment) error {
	// The ledger is asked once more: Redis may have forgotten an order that is paid for.
	if state, err := s.ledgerState(ctx, p); err != nil || state == Paid {
		return errors.Join(err, s.mark(ctx, p, paymentTaken))
	}
	_, _, err := s.wallet.PayWithin(ctx, account.Platform, p.uid, "refund", p.ref(), func(ctx context.Context, tx *sql.Tx) (fen int64, err error) {
		// What was charged: p may have been read before a coupon made it less.
		if fen, err = charged(ctx, tx, p); err != nil {
			return 0, err
		}
		return fen, returnCoupon(ctx, tx, p.order)
	})
	if err != nil {
		return err
	}
	if err := s.mark(ctx, p, paymentRefunded); err != nil {
		return err
	}
	if err := s.announcer.Tell(ctx, p.uid, "order", OrderFrame{p.order, Refunded}); err != nil {
		s.troubled(ctx, "tell", p.room, err)
	}
	return nil
}

// charged returns what a payment took from the wallet; 0 if nothing, yet.
func charged(ctx context.Context, tx *sql.Tx, p payment) (fen int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT -fen FROM wallet_log WHERE kind = 'order' AND ref = ? AND uid = ?", p.ref(), p.uid).Scan(&fen)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return fen, err
}

// ledgerState returns where the ledger has an order; empty if nowhere.
func (s *Sale) ledgerState(ctx context.Context, p payment) (state string, err error) {
	v, err := s.shelf(ctx, p.room)
	if err != nil {
		return "", err
	}
	marks, args := among(journalsOf(p.room, v.Buckets))
	kinds, err := column[string](s.env.DB.QueryContext(ctx, "SELECT kind FROM spillway_stock_row WHERE journal IN "+marks+" AND order_id = ?",
		append(args, []byte(p.ref()))...))
	for _, kind := range kinds {
		if end := endState(kind); end != "" {
			return end, err
		}
		state = Pending
	}
	return state, err
}

func (s *Sale) mark(ctx context.Context, p payment, state string) error {
	_, err := s.env.DB.ExecContext(ctx, "UPDATE payments SET state = ? WHERE order_id = ? AND state = ?", state, p.order, paymentBegun)
	return err
}

// isCharged holds for a row of payments whose price was taken from the wallet.
const isCharged = `EXISTS (SELECT 1 FROM wallet_log l
	WHERE l.kind = 'order' AND l.ref = CAST(payments.order_id AS CHAR) AND l.uid = payments.uid)`

// settleAll looks after payments whose call did not: its server was killed, Redis did
// not answer, or has lost what it had confirmed. Those of buyers who were too poor, or are
// just paying, are left alone until nobody can be paying any more.
func (s *Sale) settleAll(ctx context.Context) error {
	errs := []error{s.voidAll(ctx)}
	open, err := s.chargedPayments(ctx)
	errs = append(errs, err)
	for _, p := range open {
		errs = append(errs, s.lookAfter(ctx, p))
	}
	return errors.Join(errs...)
}

func (s *Sale) voidAll(ctx context.Context) error {
	return s.env.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE payments SET state = ? WHERE state = ? AND begun_ms < ? AND NOT "+isCharged,
			paymentVoid, paymentBegun, s.now()-voidAfter.Milliseconds()-s.opts.Hold.Milliseconds())
		return err
	})
}

// chargedPayments returns those that have not met their end, the oldest first.
func (s *Sale) chargedPayments(ctx context.Context) (open []payment, err error) {
	rows, err := s.env.DB.QueryContext(ctx, `SELECT order_id, uid, room, fen, state, begun_ms FROM payments
		WHERE state = ? AND begun_ms < ? AND `+isCharged+" ORDER BY begun_ms LIMIT 1000", paymentBegun, s.now()-settleAfter.Milliseconds())
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	for rows.Next() {
		var p payment
		if err := rows.Scan(&p.order, &p.uid, &p.room, &p.fen, &p.state, &p.begun); err != nil {
			return nil, err
		}
		open = append(open, p)
	}
	return open, rows.Err()
}

func (s *Sale) lookAfter(ctx context.Context, p payment) error {
	if state, err := s.ledgerState(ctx, p); err != nil || state == Paid {
		return errors.Join(err, s.mark(ctx, p, paymentTaken))
	}
	_, err := s.settle(ctx, p)
	return err
}

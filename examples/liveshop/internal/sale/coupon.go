package sale

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// What a new user gets.
const (
	welcomeOff  = 200                 // fen
	welcomeMin  = 900                 // fen
	welcomeKept = 30 * 24 * time.Hour // to be used
)

// A Coupon takes something off the price of one order, which the shop bears.
type Coupon struct {
	Coupon  string `json:"coupon"`
	Off     int64  `json:"off"`     // fen
	Min     int64  `json:"min_fen"` // what the order costs at least, before
	Expires int64  `json:"expires_ms"`
}

// Coupons are those that a user may use.
type Coupons struct {
	Coupons []Coupon `json:"coupons"`
	Resting bool     `json:"resting"` // there may be some, and for now they are of no use
}

var errCouponsOff = &api.Error{
	Status: http.StatusServiceUnavailable, Code: "coupons_off", RetryAfter: 30 * time.Second,
	Msg: "coupons rest for now: pay in full, or wait",
}

// resting: the operator has taken coupons away, to save what they cost. Nothing but a
// refund touches their table then, which gives back what was used before; and the
// registration of users, who have to have theirs afterwards.
func (s *Sale) resting() bool { return s.env.Switches.On(infra.NoCoupons) }

// Welcome gives a new user a coupon, in the transaction that makes the user. It has
// the user in its name, so that there is one.
func (s *Sale) Welcome(ctx context.Context, tx *sql.Tx, uid int64) error {
	_, err := tx.ExecContext(ctx, s.env.InsertNew("coupons", "coupon", "uid", "off_fen", "min_fen", "expires_ms", "used_ms"),
		"welcome-"+strconv.FormatInt(uid, 10), uid, welcomeOff, welcomeMin, s.now()+welcomeKept.Milliseconds(), 0)
	return err
}

// couponsOf says unused by the time. By the order, which is unique in its table, SQLite
// would look through the unused coupons of everybody.
const couponsOf = `SELECT coupon, off_fen, min_fen, expires_ms FROM coupons
	WHERE uid = ? AND used_ms = 0 AND expires_ms > ? ORDER BY expires_ms, coupon LIMIT 20`

// Coupons returns what a user has that is neither used nor expired.
func (s *Sale) Coupons(ctx context.Context, uid int64) (Coupons, error) {
	all := Coupons{Coupons: []Coupon{}, Resting: s.resting()}
	if all.Resting {
		return all, nil
	}
	rows, err := s.env.DB.QueryContext(ctx, couponsOf, uid, s.now())
	if err != nil {
		return all, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	for rows.Next() {
		var c Coupon
		if err := rows.Scan(&c.Coupon, &c.Off, &c.Min, &c.Expires); err != nil {
			return all, err
		}
		all.Coupons = append(all.Coupons, c)
	}
	return all, rows.Err()
}

// PayWith is Pay with a coupon, which is used in the transaction that charges the
// rest: once, by its user, for one order. An order that was paid for already keeps the
// coupon that it has, or has none.
func (s *Sale) PayWith(ctx context.Context, uid, id int64, coupon string) (Receipt, error) {
	if s.resting() {
		return Receipt{}, errCouponsOff
	}
	return s.pay(ctx, uid, id, func(ctx context.Context, tx *sql.Tx, p payment) (int64, error) {
		return s.useCoupon(ctx, tx, p, coupon)
	})
}

// useCoupon marks a coupon as that of an order, and returns what is left to be paid.
func (s *Sale) useCoupon(ctx context.Context, tx *sql.Tx, p payment, coupon string) (fen int64, err error) {
	now := s.now()
	res, err := tx.ExecContext(ctx, `UPDATE coupons SET order_id = ?, used_ms = ?
		WHERE coupon = ? AND uid = ? AND order_id IS NULL AND min_fen <= ? AND expires_ms > ?`, p.order, now, coupon, p.uid, p.fen, now)
	if err != nil {
		return 0, err
	}
	used, err := res.RowsAffected()
	if err != nil {
		return 0, err
	}
	var c Coupon
	var order sql.NullInt64
	err = tx.QueryRowContext(ctx, "SELECT off_fen, min_fen, expires_ms, order_id FROM coupons WHERE coupon = ? AND uid = ?", coupon, p.uid).
		Scan(&c.Off, &c.Min, &c.Expires, &order)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, api.NotFound("coupon")
	case err != nil:
		return 0, err
	case used == 0 && order.Valid:
		return 0, api.Conflict("coupon_used", "the coupon was used")
	case used == 0 && c.Expires <= now:
		return 0, api.Conflict("coupon_expired", "the coupon has expired")
	case used == 0:
		return 0, api.Conflict("coupon_minimum", "the order costs less than the coupon is for")
	}
	fen = p.fen - c.Off
	_, err = tx.ExecContext(ctx, "UPDATE payments SET fen = ? WHERE order_id = ?", fen, p.order)
	return fen, err
}

// returnCoupon gives back what was used for an order, if anything: its payment went back.
func returnCoupon(ctx context.Context, tx *sql.Tx, order int64) error {
	_, err := tx.ExecContext(ctx, "UPDATE coupons SET order_id = NULL, used_ms = 0 WHERE order_id = ?", order)
	return err
}

package sale

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/stock"
)

// How many orders the history has, and while the operator has it shortened.
const (
	historyLong  = 20
	historyShort = 5
)

// An Order is one that was placed.
type Order struct {
	OrderID int64    `json:"order_id"`
	Room    int64    `json:"room"`
	State   string   `json:"state"`
	Items   []Priced `json:"items"`
	Fen     int64    `json:"fen"`
	Off     int64    `json:"off,omitempty"` // of fen, what a coupon paid for
	Created int64    `json:"created_ms,omitempty"`
	Expires int64    `json:"expires_at,omitempty"` // ms
	PaidAt  int64    `json:"paid_ms,omitempty"`
}

const orderColumns = `SELECT o.order_id, o.room, o.items, o.fen, o.fen - COALESCE(p.fen, o.fen), o.created_ms, o.expires_ms, o.paid_ms,
	CASE WHEN p.state = 'refunded' THEN 'refunded' ELSE o.state END
	FROM orders o LEFT JOIN payments p ON p.order_id = o.order_id `

func scanOrder(scan func(...any) error) (o Order, err error) {
	var items string
	if err = scan(&o.OrderID, &o.Room, &items, &o.Fen, &o.Off, &o.Created, &o.Expires, &o.PaidAt, &o.State); err == nil {
		err = json.Unmarshal([]byte(items), &o.Items)
	}
	return o, err
}

// Order returns one of the user's orders as it is now: from SQL when it has met its
// end there, else from Redis, which knows first.
func (s *Sale) Order(ctx context.Context, uid, id int64) (Order, error) {
	o, err := scanOrder(s.env.DB.QueryRowContext(ctx, orderColumns+"WHERE o.order_id = ? AND o.uid = ?", id, uid).Scan)
	if err == nil && o.State != Pending {
		return o, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return o, err
	}
	inSQL := err == nil
	room, err := s.roomOf(ctx, uid, id)
	if err != nil {
		return o, err
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return o, err
	}
	p := payment{order: id, uid: uid}
	res, err := l.stock.Lookup(ctx, p.stockRef())
	switch {
	case errors.Is(err, stock.ErrNotFound) && inSQL:
		return o, nil // Redis lost it, and is about to get it back
	case errors.Is(err, stock.ErrNotFound):
		return o, errNoOrder
	case err != nil && !errors.Is(err, stock.ErrExpired):
		return o, err
	}
	o.State = stateOf(res.State)
	if !inSQL {
		all, err := s.goods(ctx, room)
		if err != nil {
			return o, err
		}
		o.OrderID, o.Room = id, room
		o.Items, o.Fen = price(linesOf(res.Items), all)
		if p, err = s.payment(ctx, id); err == nil {
			o.Off = o.Fen - p.fen
		} else if !errors.Is(err, sql.ErrNoRows) {
			return o, err
		}
		if !res.Expires.IsZero() {
			o.Expires = res.Expires.UnixMilli()
		}
	}
	return o, nil
}

// History returns the user's last orders, the newest first: those that are in SQL by
// now.
func (s *Sale) History(ctx context.Context, uid int64) ([]Order, error) {
	limit := historyLong
	if s.env.Switches.On(infra.ShortHistory) {
		limit = historyShort
	}
	rows, err := s.env.DB.QueryContext(ctx, orderColumns+"WHERE o.uid = ? ORDER BY o.created_ms DESC, o.order_id DESC LIMIT ?", uid, limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	orders := []Order{}
	for rows.Next() {
		o, err := scanOrder(rows.Scan)
		if err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

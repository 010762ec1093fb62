package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// moneyAddsUp: what users have, and the shop, and what is on its way, is what was
// recharged. Each payment is two rows whose sum is 0, each wallet the sum of its rows,
// and none is negative.
func moneyAddsUp(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	var recharged, held, users, shop, uneven, wallets, poor int64
	for _, q := range []struct {
		to   *int64
		text string
		args []any
	}{
		{&recharged, "SELECT -SUM(fen) FROM wallet_log WHERE uid = ?", []any{account.Outside}},
		{&shop, "SELECT SUM(fen) FROM wallet_log WHERE uid = ?", []any{account.Platform}},
		{&held, "SELECT SUM(fen) FROM wallet_log WHERE uid > 0", nil},
		{&users, "SELECT SUM(fen) FROM wallets", nil},
		{&uneven, "SELECT COUNT(*) FROM (SELECT ref FROM wallet_log GROUP BY kind, ref HAVING SUM(fen) <> 0 OR COUNT(*) <> 2) bad", nil},
		{&wallets, `SELECT COUNT(*) FROM wallets w LEFT JOIN (SELECT uid, SUM(fen) AS fen FROM wallet_log GROUP BY uid) l
			ON l.uid = w.uid WHERE w.fen <> COALESCE(l.fen, 0)`, nil},
		{&poor, "SELECT COUNT(*) FROM wallets WHERE fen < 0", nil},
	} {
		if *q.to, err = number(ctx, env, q.text, q.args...); err != nil {
			return nil, "", err
		}
	}
	if users+shop != recharged || users != held {
		wrong = append(wrong, fmt.Sprintf("users have %d, by their log %d; the shop has %d; %d were recharged", users, held, shop, recharged))
	}
	for n, what := range map[*int64]string{&uneven: "payments are not two rows that add up", &wallets: "wallets are not the sum of their log", &poor: "wallets are negative"} {
		if *n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", *n, what))
		}
	}
	return wrong, fmt.Sprintf("users %d + shop %d = recharged %d fen", users, shop, recharged), nil
}

// An orderMoney is what is known of the money for an order.
type orderMoney struct {
	state, payment   string
	price, begun     int64
	off, due         int64 // by the coupon; by the payment
	charged, repaid  int64
	charges, refunds int
}

// paidIsSold: who was charged for an order has it, or was refunded, or the payment is on
// its way to one of the two; who has an order was charged its price, less its coupon,
// once.
func paidIsSold(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	now, err := redisTime(ctx, env)
	if err != nil {
		return nil, "", err
	}
	all, err := moneyOfOrders(ctx, env)
	if err != nil {
		return nil, "", err
	}
	paid, refunded, onTheWay := 0, 0, 0
	for id, m := range all {
		net := m.charged - m.repaid
		switch {
		case m.charges > 1 || m.refunds > 1 || m.repaid > m.charged:
			wrong = append(wrong, fmt.Sprintf("order %s was charged %d times and refunded %d times", id, m.charges, m.refunds))
		case m.charges > 0 && m.payment != "" && m.charged != m.due:
			wrong = append(wrong, fmt.Sprintf("order %s was charged %d, and its payment is of %d", id, m.charged, m.due))
		case m.state == "paid" && net != m.price-m.off:
			wrong = append(wrong, fmt.Sprintf("order %s costs %d, less %d by coupon, and %d were paid", id, m.price, m.off, net))
		case m.state != "paid" && net != 0 && m.payment != "begun":
			wrong = append(wrong, fmt.Sprintf("%d were paid for order %q, which is %q", net, id, m.state))
		case m.charges > 0 && m.payment == "begun" && now-m.begun > overdue+60_000:
			wrong = append(wrong, fmt.Sprintf("the payment of order %s is on its way for %d s", id, (now-m.begun)/1000))
		case m.state == "paid":
			paid++
		case m.refunds > 0:
			refunded++
		case m.charges > 0:
			onTheWay++
		}
	}
	return wrong, fmt.Sprintf("%d paid, %d refunded, %d on their way", paid, refunded, onTheWay), nil
}

func moneyOfOrders(ctx context.Context, env *infra.Env) (map[string]*orderMoney, error) {
	all := map[string]*orderMoney{}
	of := func(id string) *orderMoney {
		if all[id] == nil {
			all[id] = &orderMoney{}
		}
		return all[id]
	}
	err1 := query(ctx, env, func(scan func(...any) error) error {
		var kind, ref string
		var fen int64
		if err := scan(&kind, &ref, &fen); err != nil {
			return err
		}
		m := of(ref)
		if kind == "order" {
			m.charges++
			m.charged -= fen
		} else {
			m.refunds++
			m.repaid += fen
		}
		return nil
	}, "SELECT kind, ref, fen FROM wallet_log WHERE kind IN ('order', 'refund') AND uid > 0")
	err2 := query(ctx, env, func(scan func(...any) error) error {
		var id, fen, begun int64
		var state string
		err := scan(&id, &state, &fen, &begun)
		m := of(strconv.FormatInt(id, 10))
		m.payment, m.due, m.begun = state, fen, begun
		return err
	}, "SELECT order_id, state, fen, begun_ms FROM payments")
	err3 := query(ctx, env, func(scan func(...any) error) error {
		var id, fen int64
		var state string
		err := scan(&id, &state, &fen)
		m := of(strconv.FormatInt(id, 10))
		m.state, m.price = state, fen
		return err
	}, "SELECT order_id, state, fen FROM orders")
	err4 := query(ctx, env, func(scan func(...any) error) error {
		var id, off int64
		err := scan(&id, &off)
		of(strconv.FormatInt(id, 10)).off = off
		return err
	}, "SELECT order_id, off_fen FROM coupons WHERE order_id IS NOT NULL")
	return all, errors.Join(err1, err2, err3, err4)
}

package check

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
)

const off = 20 // fen, of the coupon of these tests

// coupon gives the buyer one.
func (s *shop) coupon(t *testing.T) string {
	t.Helper()
	s.exec(t, "INSERT INTO coupons (coupon, uid, off_fen, min_fen, expires_ms, used_ms) VALUES ('c', ?, ?, ?, ?, 0)", buyer, off, price, int64(1)<<50)
	return "c"
}

// saved returns an order that was paid for with the coupon.
func (s *shop) saved(t *testing.T) int64 {
	t.Helper()
	id := s.order(t)
	receipt, err := s.sale.PayWith(t.Context(), buyer, id, s.coupon(t))
	require.NoError(t, err)
	require.Equal(t, int64(price-off), receipt.Fen)
	s.settled(t)
	return id
}

// discount charges less for an order than it costs, and confirms it.
func (s *shop) discount(t *testing.T, id int64) {
	t.Helper()
	s.pay(t, buyer, account.Platform, price-off, "order", strconv.FormatInt(id, 10))
	_, err := s.stock.Confirm(t.Context(), ref(id))
	require.NoError(t, err)
	s.settled(t)
}

func TestAHealthyCoupon(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.saved(t)
	verdicts, err := All(t.Context(), s.env)
	require.NoError(t, err)
	for _, v := range verdicts {
		require.True(t, v.OK, "%s: %s", v.Name, v.Detail)
	}
}

// Each is a way to lose count of coupons.
func TestNaiveCoupons(t *testing.T) {
	const paid, spent = "what is paid for is sold", "coupons are spent once"
	for _, naive := range []struct {
		name string
		do   func(t *testing.T, s *shop)
		want string // the invariant that breaks
	}{
		{"takes something off without a coupon", func(t *testing.T, s *shop) {
			s.discount(t, s.held)
		}, paid},
		{"does not mark the coupon in the transaction: another order has it, too", func(t *testing.T, s *shop) {
			s.saved(t)
			s.discount(t, s.held)
		}, paid},
		{"marks the coupon, whoever has it: the last one wins", func(t *testing.T, s *shop) {
			s.saved(t)
			s.exec(t, "UPDATE coupons SET order_id = ?", s.held)
			s.discount(t, s.held)
		}, paid},
		{"takes the coupon and charges all the same", func(t *testing.T, s *shop) {
			s.coupon(t)
			s.exec(t, "UPDATE coupons SET order_id = ?", s.paid)
		}, paid},
		{"writes another sum into the payment than was charged", func(t *testing.T, s *shop) {
			s.exec(t, "UPDATE payments SET fen = fen - 1 WHERE order_id = ?", s.saved(t))
		}, paid},
		{"uses the coupon first, and dies before it charges", func(t *testing.T, s *shop) {
			s.coupon(t)
			s.exec(t, "UPDATE coupons SET order_id = ?", s.held)
		}, spent},
		{"uses it for an order that there is not", func(t *testing.T, s *shop) {
			s.coupon(t)
			s.exec(t, "UPDATE coupons SET order_id = 4711")
		}, spent},
		{"keeps the coupon when the money goes back", func(t *testing.T, s *shop) {
			s.pay(t, account.Platform, buyer, price-off, "refund", strconv.FormatInt(s.saved(t), 10))
		}, spent},
		{"asks for a coupon by its name alone", func(t *testing.T, s *shop) {
			s.saved(t)
			s.exec(t, "UPDATE coupons SET uid = ?", buyer+1)
		}, spent},
		{"does not look at the price", func(t *testing.T, s *shop) {
			s.saved(t)
			s.exec(t, "UPDATE coupons SET min_fen = ?", price+1)
		}, spent},
		{"does not look at the clock", func(t *testing.T, s *shop) {
			s.saved(t)
			s.exec(t, "UPDATE coupons SET expires_ms = used_ms")
		}, spent},
	} {
		t.Run(naive.name, func(t *testing.T) {
			t.Parallel()
			breaks(t, naive.want, naive.do)
		})
	}
}

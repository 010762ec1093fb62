package sale

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/stock"
)

var couponsMade atomic.Int64

// coupon gives a user one that takes 30 fen off 100.
func (sh *shop) coupon(t testing.TB, uid int64) string {
	t.Helper()
	name := fmt.Sprint("test-", couponsMade.Add(1))
	_, err := sh.env.DB.ExecContext(t.Context(), "INSERT INTO coupons (coupon, uid, off_fen, min_fen, expires_ms, used_ms) VALUES (?, ?, 30, 100, ?, 0)",
		name, uid, time.Now().Add(time.Hour).UnixMilli())
	require.NoError(t, err)
	return name
}

// payEither pays with a coupon, if the user has one: every third does.
func (sh *shop) payEither(ctx context.Context, uid, id int64) (Receipt, error) {
	if uid%3 > 0 {
		return sh.Pay(ctx, uid, id)
	}
	env, name := sh.Sale.env, fmt.Sprint("crowd-", uid)
	_, err := env.DB.ExecContext(ctx, env.InsertNew("coupons", "coupon", "uid", "off_fen", "min_fen", "expires_ms", "used_ms"), name, uid, 30, 100, int64(1)<<50, 0)
	if err != nil {
		return Receipt{}, err
	}
	r, err := sh.PayWith(ctx, uid, id, name)
	if e := new(api.Error); errors.As(err, &e) && e.Code == "coupon_used" { // for an order before
		return sh.Pay(ctx, uid, id)
	}
	return r, err
}

// has returns the names of the coupons that a user may use.
func (sh *shop) has(t testing.TB, uid int64) []string {
	t.Helper()
	all, err := sh.Coupons(t.Context(), uid)
	require.NoError(t, err)
	require.False(t, all.Resting)
	names := []string{}
	for _, c := range all.Coupons {
		names = append(names, c.Coupon)
	}
	return names
}

// What is refused leaves everything as it was: the order is paid in full, and the coupon
// is still there.
func coupons(t *testing.T, sh *shop) {
	sh.opened(t, 6, Product{SKU: "lamp", Total: 100, Fen: 100}, Product{SKU: "bulb", Total: 100, Fen: 99})
	ctx := t.Context()
	for _, c := range []struct {
		name, sku string
		spoil     func(uid int64, coupon string) string // the statement that spoils it, or ""
		want      string                                // "": it is good
	}{
		{"good", "lamp", nil, ""},
		{"the order is too small", "bulb", nil, "coupon_minimum"},
		{"expired", "lamp", func(int64, string) string { return "expires_ms = 1" }, "coupon_expired"},
		{"somebody else's", "lamp", func(uid int64, _ string) string { return fmt.Sprintf("uid = %d", uid+1_000_000) }, "not_found"},
		{"used", "lamp", func(uid int64, _ string) string { return fmt.Sprintf("order_id = %d, used_ms = 1", -uid) }, "coupon_used"},
		{"nobody's", "lamp", func(_ int64, coupon string) string { return fmt.Sprintf("coupon = 'was-%s'", coupon) }, "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			uid := sh.users(t, 1, 1000)[0]
			coupon := sh.coupon(t, uid)
			p, err := sh.order(ctx, uid, 6, Line{c.sku, 1})
			require.NoError(t, err)
			if c.spoil != nil {
				_, err := sh.env.DB.ExecContext(ctx, "UPDATE coupons SET "+c.spoil(uid, coupon)+" WHERE coupon = ?", coupon)
				require.NoError(t, err)
			}
			before := sh.number(t, "SELECT COUNT(*) FROM coupons WHERE order_id IS NULL")
			r, err := sh.PayWith(ctx, uid, p.OrderID, coupon)
			if c.want == "" {
				require.NoError(t, err)
				require.Equal(t, Receipt{p.OrderID, Paid, 70, 930}, r)
				require.Empty(t, sh.has(t, uid))
				o, err := sh.Order(ctx, uid, p.OrderID)
				require.NoError(t, err)
				require.Equal(t, []int64{100, 30}, []int64{o.Fen, o.Off})
				eventually(t, "it is in the history", func() bool {
					all, err := sh.History(ctx, uid)
					return err == nil && len(all) == 1 && all[0].State == Paid && all[0].Fen == 100 && all[0].Off == 30
				})
				return
			}
			refused(t, err, c.want)
			require.Equal(t, before, sh.number(t, "SELECT COUNT(*) FROM coupons WHERE order_id IS NULL"))
			r, err = sh.Pay(ctx, uid, p.OrderID)
			require.NoError(t, err)
			require.Equal(t, Receipt{p.OrderID, Paid, p.Fen, 1000 - p.Fen}, r)
			// What the test itself has spoiled is not for package check.
			_, err = sh.env.DB.ExecContext(ctx, "DELETE FROM coupons WHERE order_id < 0")
			require.NoError(t, err)
		})
	}
}

// Fifty clicks at once pay for two orders with one coupon: one order has it, and each
// order one answer.
func couponsAtOnce(t *testing.T, sh *shop) {
	sh.opened(t, 7, Product{SKU: "rug", Total: 100, Fen: 100})
	ctx := t.Context()
	for range 3 {
		uid := sh.users(t, 1, 1000)[0]
		coupon := sh.coupon(t, uid)
		var orders [2]int64
		for i := range orders {
			p, err := sh.order(ctx, uid, 7, Line{"rug", 1})
			require.NoError(t, err)
			orders[i] = p.OrderID
		}
		var answers [50]Receipt
		var errs [50]error
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				answers[i], errs[i] = sure(ctx, func() (Receipt, error) { return sh.PayWith(ctx, uid, orders[i%2], coupon) })
			})
		}
		wg.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		for i := range answers {
			if i%2 == winner {
				require.NoError(t, errs[i])
				require.Equal(t, Receipt{orders[winner], Paid, 70, 930}, answers[i])
			} else {
				refused(t, errs[i], "coupon_used")
			}
		}
		r, err := sh.Pay(ctx, uid, orders[1-winner])
		require.NoError(t, err)
		require.Equal(t, Receipt{orders[1-winner], Paid, 100, 830}, r)

		// One order, with either of two coupons or in full: whatever was first.
		p, err := sh.order(ctx, uid, 7, Line{"rug", 1})
		require.NoError(t, err)
		two := [2]string{sh.coupon(t, uid), sh.coupon(t, uid)}
		for i := range answers {
			wg.Go(func() {
				answers[i], errs[i] = sure(ctx, func() (Receipt, error) {
					if i%3 == 2 {
						return sh.Pay(ctx, uid, p.OrderID)
					}
					return sh.PayWith(ctx, uid, p.OrderID, two[i%3])
				})
			})
		}
		wg.Wait()
		for i := range answers {
			require.NoError(t, errs[i])
			require.Equal(t, answers[0], answers[i])
		}
		require.Equal(t, 830-answers[0].Fen, answers[0].Balance)
		left := map[int64]int{70: 1, 100: 2}[answers[0].Fen]
		require.Len(t, sh.has(t, uid), left)
	}
}

// A lostAnswer is a wallet that does what it is asked, and if lose is set says once that
// nobody knows.
type lostAnswer struct {
	Wallet
	lose atomic.Bool
}

func (w *lostAnswer) PayWithin(ctx context.Context, from, to int64, kind, ref string, decide func(context.Context, *sql.Tx) (int64, error)) (int64, int64, error) {
	fen, balance, err := w.Wallet.PayWithin(ctx, from, to, kind, ref, decide)
	if w.lose.Swap(false) {
		return 0, 0, errors.Join(err, stock.ErrUnknown)
	}
	return fen, balance, err
}

// Who did not hear the answer asks again, in any way, and gets the first one.
func TestCouponRetry(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 100, Fen: 100})
	ctx := t.Context()
	wallet := &lostAnswer{Wallet: sh.wallet}
	sh.wallet = wallet
	for _, again := range []struct {
		name string
		pay  func(uid, order int64, used, other string) (Receipt, error)
	}{
		{"with the same coupon", func(uid, order int64, used, _ string) (Receipt, error) { return sh.PayWith(ctx, uid, order, used) }},
		{"with another", func(uid, order int64, _, other string) (Receipt, error) { return sh.PayWith(ctx, uid, order, other) }},
		{"with none that there is", func(uid, order int64, _, _ string) (Receipt, error) { return sh.PayWith(ctx, uid, order, "x") }},
		{"without", func(uid, order int64, _, _ string) (Receipt, error) { return sh.Pay(ctx, uid, order) }},
	} {
		uid := sh.users(t, 1, 1000)[0]
		used, other := sh.coupon(t, uid), sh.coupon(t, uid)
		p, err := sh.order(ctx, uid, 1, Line{"tea", 1})
		require.NoError(t, err)
		wallet.lose.Store(true)
		_, err = sh.PayWith(ctx, uid, p.OrderID, used)
		require.ErrorIs(t, err, stock.ErrUnknown)
		for range 2 {
			r, err := again.pay(uid, p.OrderID, used, other)
			require.NoError(t, err, again.name)
			require.Equal(t, Receipt{p.OrderID, Paid, 70, 930}, r, again.name)
		}
		require.Equal(t, []string{other}, sh.has(t, uid), again.name)
	}
	holds(t, sh.env)
}

// Too poor even with the coupon: it is not used, and works when there is money.
func TestCouponOfThePoor(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 5, Fen: 100})
	uid := sh.users(t, 1, 69)[0]
	coupon := sh.coupon(t, uid)
	p, err := sh.order(t.Context(), uid, 1, Line{"tea", 1})
	require.NoError(t, err)
	_, err = sh.PayWith(t.Context(), uid, p.OrderID, coupon)
	refused(t, err, "poor")
	require.Equal(t, []string{coupon}, sh.has(t, uid))
	require.Equal(t, int64(100), sh.number(t, "SELECT fen FROM payments WHERE order_id = ?", p.OrderID))
	_, err = sh.accounts.Wallet.Pay(t.Context(), -1, uid, 1, "recharge", "one")
	require.NoError(t, err)
	r, err := sh.PayWith(t.Context(), uid, p.OrderID, coupon)
	require.NoError(t, err)
	require.Equal(t, Receipt{p.OrderID, Paid, 70, 0}, r)
	holds(t, sh.env)
}

// The money comes too late: it goes back as it came, and the coupon with it, once,
// however many look after it. Then it is good for the next order.
func TestCouponComesBack(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 5, Fen: 100})
	ctx := t.Context()
	uid := sh.users(t, 1, 1000)[0]
	coupon := sh.coupon(t, uid)
	p, err := sh.order(ctx, uid, 1, Line{"tea", 1})
	require.NoError(t, err)
	l, err := sh.of(ctx, 1)
	require.NoError(t, err)
	stale, err := sh.begin(ctx, uid, p.OrderID, 1)
	require.NoError(t, err)
	require.Equal(t, int64(100), stale.fen)
	_, err = l.stock.Cancel(ctx, stale.stockRef(), "time is over")
	require.NoError(t, err)
	for range 2 {
		r, err := sh.PayWith(ctx, uid, p.OrderID, coupon)
		require.NoError(t, err)
		require.Equal(t, Receipt{p.OrderID, Refunded, 70, 1000}, r)
		// Others came by, too: one of them read the payment before it was charged.
		require.NoError(t, sh.refund(ctx, stale))
		require.NoError(t, sh.settleAll(ctx))
		require.Equal(t, []string{coupon}, sh.has(t, uid))
	}
	next, err := sh.order(ctx, uid, 1, Line{"tea", 1})
	require.NoError(t, err)
	r, err := sh.PayWith(ctx, uid, next.OrderID, coupon)
	require.NoError(t, err)
	require.Equal(t, Receipt{next.OrderID, Paid, 70, 930}, r)
	r, err = sh.PayWith(ctx, uid, p.OrderID, coupon)
	require.NoError(t, err)
	require.Equal(t, Refunded, r.State, "the old order stays as it is")
	require.NoError(t, sh.refund(ctx, stale), "and does not take the coupon from the new one")
	require.Empty(t, sh.has(t, uid))
	holds(t, sh.env)
}

// While coupons rest nothing asks for them: their table may be away.
func TestCouponsRest(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 10, Fen: 100})
	ctx := t.Context()
	uid := sh.users(t, 1, 1000)[0]
	coupon := sh.coupon(t, uid)
	orders := make([]int64, 3)
	for i := range orders {
		p, err := sh.order(ctx, uid, 1, Line{"tea", 1})
		require.NoError(t, err)
		orders[i] = p.OrderID
	}
	first, err := sh.PayWith(ctx, uid, orders[0], coupon)
	require.NoError(t, err)
	_, err = env.DB.ExecContext(ctx, "ALTER TABLE coupons RENAME TO coupons_away")
	require.NoError(t, err)
	_, err = sh.Coupons(ctx, uid)
	require.Error(t, err, "it is asked: this test can fail")
	_, err = sh.PayWith(ctx, uid, orders[1], "c")
	require.Error(t, err)

	r, err := sh.Pay(ctx, uid, orders[1])
	require.NoError(t, err, "who has no coupon does not need the table")
	require.Equal(t, Receipt{orders[1], Paid, 100, 830}, r)

	env.Switches.SetHere(infra.NoCoupons, true)
	all, err := sh.Coupons(ctx, uid)
	require.NoError(t, err)
	require.Equal(t, Coupons{Coupons: []Coupon{}, Resting: true}, all)
	for _, id := range orders {
		_, err = sh.PayWith(ctx, uid, id, coupon)
		refused(t, err, "coupons_off")
		require.Equal(t, 503, api.Failure(err).Status)
		require.Positive(t, api.Failure(err).RetryAfter)
	}
	require.Zero(t, sh.number(t, "SELECT COUNT(*) FROM payments WHERE order_id = ?", orders[2]), "refused before anything happened")
	r, err = sh.Pay(ctx, uid, orders[0])
	require.NoError(t, err, "who asks again in full for what was paid with a coupon")
	require.Equal(t, first, r)
	r, err = sh.Pay(ctx, uid, orders[2])
	require.NoError(t, err)
	require.Equal(t, Receipt{orders[2], Paid, 100, 730}, r)
	eventually(t, "the history, which tells of the discount", func() bool {
		all, err := sh.History(ctx, uid)
		require.NoError(t, err)
		off, paid := int64(0), 0
		for _, o := range all {
			off += o.Off
			if o.State == Paid {
				paid++
			}
		}
		return paid == 3 && off == 30
	})

	_, err = env.DB.ExecContext(ctx, "ALTER TABLE coupons_away RENAME TO coupons")
	require.NoError(t, err)
	env.Switches.SetHere(infra.NoCoupons, false)
	require.Empty(t, sh.has(t, uid))
	holds(t, env)
}

// A new user has one coupon, and pays with it as the page does.
func TestCouponRoutes(t *testing.T) {
	t.Parallel()
	require.Less(t, welcomeOff, welcomeMin, "nothing is for nothing")
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.accounts.OnRegister(sh.Welcome)
	m, err := api.New(sh.env, sh.accounts.Authenticate)
	require.NoError(t, err)
	sh.accounts.Routes(m)
	sh.Routes(m)
	web := httptest.NewServer(m)
	t.Cleanup(web.Close)
	sh.opened(t, 1, Product{SKU: "tea", Total: 3, Fen: welcomeMin})
	ctx := t.Context()
	buyer := client.Client{HTTP: web.Client(), Base: web.URL}
	refused(t, buyer.Call(ctx, "GET /coupons", nil, nil), "unauthorized")
	var mine Coupons
	for range 2 { // the second login is no registration
		require.NoError(t, buyer.LogIn(ctx, "13800000001"))
		require.NoError(t, buyer.Call(ctx, "GET /coupons", nil, &mine))
		require.Len(t, mine.Coupons, 1)
	}
	require.Equal(t, int64(welcomeOff), mine.Coupons[0].Off)
	require.NoError(t, buyer.Call(ctx, "POST /recharge", map[string]any{"fen": 3000, "key": "k"}, nil))
	p, err := sh.order(ctx, buyer.Me.UID, 1, Line{"tea", 1})
	require.NoError(t, err)
	pay := fmt.Sprintf("POST /orders/%d/pay", p.OrderID)
	refused(t, buyer.Call(ctx, pay, map[string]string{"voucher": "x"}, nil), "bad_request")
	var r Receipt
	require.NoError(t, buyer.Call(ctx, pay, map[string]string{"coupon": mine.Coupons[0].Coupon}, &r))
	require.Equal(t, Receipt{p.OrderID, Paid, welcomeMin - welcomeOff, 3000 - welcomeMin + welcomeOff}, r)
	for _, body := range []any{nil, map[string]string{}} {
		var again Receipt
		require.NoError(t, buyer.Call(ctx, pay, body, &again))
		require.Equal(t, r, again)
	}
	require.NoError(t, buyer.Call(ctx, "GET /coupons", nil, &mine))
	require.Empty(t, mine.Coupons)
	sh.env.Switches.SetHere(infra.NoCoupons, true)
	require.NoError(t, buyer.Call(ctx, "GET /coupons", nil, &mine))
	require.True(t, mine.Resting)
}

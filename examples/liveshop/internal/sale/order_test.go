package sale

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/stock"
)

// What is refused before it costs anything, and what Redis refuses.
func TestRefusals(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	now := time.Now().UnixMilli()
	sh.opened(t, 1,
		Product{SKU: "tea", Total: 5, PerUser: 2},
		Product{SKU: "early", Total: 5, PerUser: 2, Opens: now + 3_600_000},
		Product{SKU: "late", Total: 5, PerUser: 2, Closes: now - 1},
		Product{SKU: "far", Total: 5, PerUser: 2, Elsewhere: true},
		Product{SKU: "none", Total: 0, PerUser: 2},
	)
	u := sh.users(t, 3, 1000)
	ctx := t.Context()
	for _, no := range []struct {
		code  string
		uid   int64
		room  int64
		lines []Line
	}{
		{"not_found", u[0], 2, []Line{{"tea", 1}}},
		{"not_found", u[0], 1, []Line{{"cup", 1}}},
		{"forbidden", hostOf(1), 1, []Line{{"tea", 1}}},
		{"bad_request", u[0], 1, nil},
		{"bad_request", u[0], 1, []Line{{"tea", 0}}},
		{"bad_request", u[0], 1, []Line{{"tea", 1}, {"tea", 1}}},
		{"limit", u[0], 1, []Line{{"tea", 3}}},
		{"not_open", u[0], 1, []Line{{"early", 1}}},
		{"ended", u[0], 1, []Line{{"late", 1}}},
		{"elsewhere", u[0], 1, []Line{{"far", 1}}},
	} {
		id, err := sh.Token(ctx, no.uid)
		require.NoError(t, err)
		_, err = sh.Place(ctx, no.uid, id, no.room, no.lines)
		refused(t, err, no.code)
		require.Zero(t, sh.env.Redis.Exists(ctx, claimKey(id, no.uid)).Val(), "Redis was not asked: the token is as it was")
	}

	_, err := sh.order(ctx, u[0], 1, Line{"none", 1})
	refused(t, err, "sold_out")
	_, err = sh.order(ctx, u[0], 1, Line{"tea", 2})
	require.NoError(t, err)
	_, err = sh.order(ctx, u[0], 1, Line{"tea", 1})
	refused(t, err, "limit")
	_, err = sh.order(ctx, u[1], 1, Line{"tea", 2})
	require.NoError(t, err)
	_, err = sh.order(ctx, u[2], 1, Line{"tea", 2})
	refused(t, err, "sold_out")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 5}, Product{SKU: "cup", Total: 1})
	u := sh.users(t, 2, 1000)
	ctx := t.Context()
	tea := []Line{{"tea", 1}}
	id, err := sh.Token(ctx, u[0])
	require.NoError(t, err)
	require.Less(t, id, int64(1)<<53, "browsers read it as a double")
	next, err := sh.Token(ctx, u[0])
	require.NoError(t, err)
	require.NotEqual(t, id+1, next, "it tells nothing of the one before")

	for _, wrong := range []int64{0, -1, 12345, idDomain} {
		_, err = sh.Place(ctx, u[0], wrong, 1, tea)
		refused(t, err, "no_token")
	}
	_, err = sh.Place(ctx, u[1], id, 1, tea)
	refused(t, err, "no_token")
	for _, key := range []string{tokenKey(id), claimKey(id, u[1])} {
		require.Positive(t, sh.env.Redis.TTL(ctx, key).Val(), "what a stranger tried does not stay for ever")
	}
	require.Zero(t, sh.env.Redis.Exists(ctx, claimKey(12345, u[0])).Val())

	p, err := sh.Place(ctx, u[0], id, 1, tea)
	require.NoError(t, err, "the stranger took nothing")
	_, err = sh.Place(ctx, u[0], id, 1, []Line{{"tea", 2}})
	refused(t, err, "conflict")
	for _, key := range []string{tokenKey(id), claimKey(id, u[0])} {
		require.True(t, sh.env.Redis.Expire(ctx, key, time.Minute).Val())
	}
	_, err = sh.Place(ctx, u[0], id, 1, tea)
	require.NoError(t, err)
	for _, key := range []string{tokenKey(id), claimKey(id, u[0])} {
		require.Greater(t, sh.env.Redis.TTL(ctx, key).Val(), tokenKept, "who asks again may once more")
	}

	// The last unit, clicked for twice at once: one order, and nobody hears "sold out" alone.
	for range 20 {
		last, err := sh.Token(ctx, u[1])
		require.NoError(t, err)
		var errs [2]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = sh.Place(ctx, u[1], last, 1, []Line{{"cup", 1}}) })
		}
		wg.Wait()
		require.True(t, errs[0] == nil || errs[1] == nil)
		l, err := sh.of(ctx, 1)
		require.NoError(t, err)
		levels, err := l.stock.Stock(ctx)
		require.NoError(t, err)
		require.Equal(t, int64(1), levels["cup"].Reserved)
		r := payment{order: last, uid: u[1]}
		_, err = l.stock.Cancel(ctx, r.stockRef(), "again")
		require.NoError(t, err)
	}
	o, err := sh.Order(ctx, u[0], p.OrderID)
	require.NoError(t, err)
	require.Equal(t, Pending, o.State)
	_, err = sh.Order(ctx, u[1], p.OrderID)
	require.ErrorIs(t, err, errNoOrder)
	_, err = sh.Order(ctx, u[1], next)
	require.ErrorIs(t, err, errNoOrder, "a token is no order yet")
}

// What costs something is known also of a product that came to the shelf a moment ago.
func TestCost(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	ctx := t.Context()
	sh.opened(t, 1, Product{SKU: "tea", Total: 5, Fen: 30})
	_, err := sh.shelf(ctx, 1)
	require.NoError(t, err)
	for _, statement := range []string{
		"INSERT INTO products SELECT 'cup', host, title, image, fen, total, per_user, opens_ms, closes_ms, elsewhere, version FROM products",
		"INSERT INTO sale_items SELECT room, 'cup', 7, loaded, units, returned FROM sale_items",
	} {
		_, err = sh.env.DB.ExecContext(ctx, statement)
		require.NoError(t, err)
	}
	for want, lines := range map[int64][]Line{60: {{"tea", 2}}, 81: {{"tea", 2}, {"cup", 3}}} {
		fen, err := sh.cost(ctx, 1, lines)
		require.NoError(t, err)
		require.Equal(t, want, fen)
	}
}

// Who has the last unit hears so again, also where it is remembered that there is none.
func TestLastUnitAgain(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "cup", Total: 1})
	u := sh.users(t, 2, 1000)
	p, err := sh.order(t.Context(), u[0], 1, Line{"cup", 1})
	require.NoError(t, err)
	_, err = sh.order(t.Context(), u[1], 1, Line{"cup", 1})
	refused(t, err, "sold_out")
	again, err := sh.Place(t.Context(), u[0], p.OrderID, 1, []Line{{"cup", 1}})
	require.NoError(t, err)
	require.Equal(t, p, again)
}

// A payment is found again in SQL alone, whatever became of its room.
func TestBegunIsFound(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	was := payment{order: 5, uid: 7, room: 999, fen: 3, state: paymentRefunded, begun: 1}
	_, err := sh.env.DB.ExecContext(t.Context(), sh.env.InsertNew("payments", "order_id", "uid", "room", "fen", "state", "begun_ms"),
		was.order, was.uid, was.room, was.fen, was.state, was.begun)
	require.NoError(t, err)
	p, err := sh.begin(t.Context(), 7, 5, 999)
	require.NoError(t, err)
	require.Equal(t, was, p)
}

// Who lost the answer gets it also when the room has closed since, or the time of the
// product is over.
func TestPlacedBefore(t *testing.T) { both(t, placedBefore) }

func placedBefore(t *testing.T, star bool) {
	sh := newShop(t, shoptest.Env(t), Options{})
	ctx := t.Context()
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 5}, Product{SKU: "cup", Total: 1})
	u := sh.users(t, 3, 1000)
	wanted := []Line{{"tea", 1}, {"cup", 1}}
	whole, err := sh.order(ctx, u[0], 1, wanted...)
	require.NoError(t, err)
	part, err := sh.order(ctx, u[1], 1, wanted...)
	require.NoError(t, err)
	require.Len(t, part.Failed, 1)
	none, err := sh.Token(ctx, u[2])
	require.NoError(t, err)
	_, err = sh.Place(ctx, u[2], none, 1, wanted[1:])
	refused(t, err, "sold_out")
	unused, err := sh.Token(ctx, u[2])
	require.NoError(t, err)

	look := func(code string) {
		for i, p := range []Placed{whole, part} {
			again, err := sh.Place(ctx, u[i], p.OrderID, 1, wanted)
			require.NoError(t, err)
			require.Equal(t, p, again)
			_, err = sh.Place(ctx, u[i], p.OrderID, 1, wanted[:1])
			refused(t, err, code)
			_, err = sh.Place(ctx, u[2], p.OrderID, 1, wanted)
			refused(t, err, code)
		}
		for _, id := range []int64{none, unused, 0} {
			_, err = sh.Place(ctx, u[2], id, 1, wanted[1:])
			refused(t, err, code)
		}
		require.Zero(t, sh.env.Redis.Exists(ctx, claimKey(unused, u[2])).Val())
	}
	for _, sku := range []string{"tea", "cup"} {
		p, err := product(ctx, sh.env.DB, sku)
		require.NoError(t, err)
		p.Opens, p.Closes = 1, 2
		_, err = sh.Update(ctx, p)
		require.NoError(t, err)
	}
	look("ended")
	require.NoError(t, sh.CloseRoom(ctx, 1))
	look("closed")
	_, err = sh.Pay(ctx, u[0], whole.OrderID)
	require.NoError(t, err)
	again, err := sh.Place(ctx, u[0], whole.OrderID, 1, wanted)
	require.NoError(t, err)
	require.Equal(t, Paid, again.State)
	l, err := sh.of(ctx, 1)
	require.NoError(t, err)
	_, err = l.stock.Cancel(ctx, payment{order: part.OrderID, uid: u[1]}.stockRef(), "over")
	require.NoError(t, err)
	_, err = sh.Place(ctx, u[1], part.OrderID, 1, wanted)
	refused(t, err, "cancelled")
	holds(t, sh.env)
}

// An order that nobody pays for: its units come back, in Redis, in SQL, and on the pages.
func TestNotPaid(t *testing.T) { both(t, notPaid) }

func notPaid(t *testing.T, star bool) {
	sh := newShop(t, shoptest.Env(t), Options{Hold: 3 * time.Second})
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 1})
	u := sh.users(t, 2, 1000)
	p, err := sh.order(t.Context(), u[0], 1, Line{"tea", 1})
	require.NoError(t, err)
	_, err = sh.order(t.Context(), u[1], 1, Line{"tea", 1})
	refused(t, err, "sold_out")
	eventually(t, "two events, in order", func() bool {
		f := sh.heard.flips("tea")
		return len(f) == 2 && f[0].Left == 0 && f[1].Left == 1 && f[0].Version < f[1].Version
	})
	eventually(t, "the buyer is told", func() bool {
		sh.heard.mu.Lock()
		defer sh.heard.mu.Unlock()
		return len(sh.heard.orders) == 1 && sh.heard.orders[0] == OrderFrame{p.OrderID, Cancelled}
	})
	o, err := sh.Order(t.Context(), u[0], p.OrderID)
	require.NoError(t, err)
	require.Equal(t, Cancelled, o.State)
	_, err = sh.Pay(t.Context(), u[0], p.OrderID)
	require.ErrorIs(t, err, errOver)
	balance, err := sh.accounts.Wallet.Balance(t.Context(), u[0])
	require.NoError(t, err)
	require.Equal(t, int64(1000), balance)
	_, err = sh.order(t.Context(), u[1], 1, Line{"tea", 1})
	require.NoError(t, err)
	holds(t, sh.env)
}

// A slow wallet is one in which something happens between the charge and the confirm.
type slowWallet struct {
	Wallet
	after func(kind string)
}

func (w slowWallet) PayWithin(ctx context.Context, from, to int64, kind, ref string, decide func(context.Context, *sql.Tx) (int64, error)) (int64, int64, error) {
	fen, balance, err := w.Wallet.PayWithin(ctx, from, to, kind, ref, decide)
	w.after(kind)
	return fen, balance, err
}

// The money comes when the order is over.
func TestLatePayment(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 1, Fen: 300})
	u := sh.users(t, 1, 1000)
	p, err := sh.order(t.Context(), u[0], 1, Line{"tea", 1})
	require.NoError(t, err)
	l, err := sh.of(t.Context(), 1)
	require.NoError(t, err)
	sh.wallet = slowWallet{sh.wallet, func(kind string) {
		if kind == "order" {
			_, err := l.stock.Cancel(t.Context(), payment{order: p.OrderID, uid: u[0]}.stockRef(), "time is over")
			require.NoError(t, err)
		}
	}}
	for range 2 {
		r, err := sh.Pay(t.Context(), u[0], p.OrderID)
		require.NoError(t, err)
		require.Equal(t, Receipt{p.OrderID, Refunded, 300, 1000}, r)
	}
	o, err := sh.Order(t.Context(), u[0], p.OrderID)
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool {
		o, err = sh.Order(t.Context(), u[0], p.OrderID)
		return err == nil && o.State == Refunded
	})
	holds(t, sh.env)
}

// The server dies between the charge and the confirm: another one confirms.
func TestPaymentIsLookedAfter(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 3, Fen: 300})
	u := sh.users(t, 2, 1000)
	ctx := t.Context()
	p, err := sh.order(ctx, u[0], 1, Line{"tea", 1})
	require.NoError(t, err)
	begun, err := sh.begin(ctx, u[0], p.OrderID, 1)
	require.NoError(t, err)
	_, err = sh.accounts.Wallet.Pay(ctx, u[0], account.Platform, begun.fen, "order", begun.ref())
	require.NoError(t, err)

	// Somebody too poor is not charged later, when they have money, unasked.
	poor, err := sh.order(ctx, u[1], 1, Line{"tea", 2})
	require.NoError(t, err)
	_, err = sh.accounts.Wallet.Pay(ctx, u[1], account.Platform, 900, "gift", "all")
	require.NoError(t, err)
	_, err = sh.Pay(ctx, u[1], poor.OrderID)
	refused(t, err, "poor")

	eventually(t, "it is paid", func() bool {
		o, err := sh.Order(ctx, u[0], p.OrderID)
		return err == nil && o.State == Paid && sh.number(t, "SELECT COUNT(*) FROM payments WHERE state = 'taken'") == 1
	})
	_, err = sh.accounts.Wallet.Pay(ctx, account.Outside, u[1], 1000, "recharge", "more")
	require.NoError(t, err)
	require.NoError(t, sh.settleAll(ctx))
	o, err := sh.Order(ctx, u[1], poor.OrderID)
	require.NoError(t, err)
	require.Equal(t, Pending, o.State)
	r, err := sh.Pay(ctx, u[1], poor.OrderID)
	require.NoError(t, err)
	require.Equal(t, Paid, r.State)
	holds(t, sh.env)
}

func TestHistory(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 100})
	u := sh.users(t, 1, 1000)[0]
	for range historyLong + 1 {
		_, err := sh.order(t.Context(), u, 1, Line{"tea", 1})
		require.NoError(t, err)
	}
	eventually(t, "all are in SQL", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == historyLong+1 })
	orders, err := sh.History(t.Context(), u)
	require.NoError(t, err)
	require.Len(t, orders, historyLong)
	require.Equal(t, sh.number(t, "SELECT MAX(created_ms) FROM orders"), orders[0].Created)
	sh.env.Switches.SetHere(infra.ShortHistory, true)
	orders, err = sh.History(t.Context(), u)
	require.NoError(t, err)
	require.Len(t, orders, historyShort)
}

func TestStates(t *testing.T) {
	require.Equal(t, Pending, stateOf(stock.Reserved))
	require.Equal(t, Paid, stateOf(stock.Confirmed))
	require.Equal(t, Cancelled, stateOf(stock.Expired))
	require.Equal(t, Cancelled, stateOf(stock.Cancelled))
}

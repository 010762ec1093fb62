package sale

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// From the order to the rows in SQL.
func TestReservePaySQL(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		sh := newShop(t, env, Options{})
		sh.opened(t, 1, Product{SKU: "tea", Total: 3, Fen: 100}, Product{SKU: "cup", Total: 1, Fen: 250})
		u := sh.users(t, 2, 1000)
		ctx := t.Context()

		p, err := sh.order(ctx, u[0], 1, Line{"tea", 2}, Line{"cup", 1})
		require.NoError(t, err)
		require.Equal(t, Pending, p.State)
		require.Equal(t, int64(450), p.Fen)
		require.Empty(t, p.Failed)
		require.InDelta(t, time.Now().Add(15*time.Minute).UnixMilli(), p.Expires, 5000)
		again, err := sh.Place(ctx, u[0], p.OrderID, 1, []Line{{"cup", 1}, {"tea", 2}})
		require.NoError(t, err, "the second click, with its lines in another order")
		require.Equal(t, p, again)

		part, err := sh.order(ctx, u[1], 1, Line{"tea", 1}, Line{"cup", 1})
		require.NoError(t, err)
		require.Equal(t, []Priced{{Line{"tea", 1}, goods{"tea", 100}}}, part.Items)
		require.Equal(t, []Priced{{Line{"cup", 1}, goods{"cup", 250}}}, part.Failed)

		r, err := sh.Pay(ctx, u[0], p.OrderID)
		require.NoError(t, err)
		require.Equal(t, Receipt{p.OrderID, Paid, 450, 550}, r)
		r, err = sh.Pay(ctx, u[0], p.OrderID)
		require.NoError(t, err, "paid twice is paid once")
		require.Equal(t, Receipt{p.OrderID, Paid, 450, 550}, r)
		_, err = sh.Pay(ctx, u[1], p.OrderID)
		require.ErrorIs(t, err, errNoOrder, "somebody else's")

		eventually(t, "the orders are in SQL", func() bool {
			return sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'paid'") == 1 &&
				sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'pending'") == 1
		})
		orders, err := sh.History(ctx, u[0])
		require.NoError(t, err)
		require.Len(t, orders, 1)
		require.Equal(t, Paid, orders[0].State)
		require.Equal(t, int64(450), orders[0].Fen)
		require.Equal(t, p.Items, orders[0].Items)
		require.NotZero(t, orders[0].PaidAt)
		require.Equal(t, int64(1), sh.number(t, "SELECT COUNT(*) FROM payments WHERE state = 'taken'"))

		eventually(t, "both sell-outs are announced", func() bool { return len(sh.heard.frames()) == 2 })
		offers, err := sh.Offers(ctx, 1)
		require.NoError(t, err)
		for _, f := range sh.heard.frames() {
			require.Zero(t, f.Left)
			require.Positive(t, f.Version)
		}
		require.Len(t, offers, 2)
	})
}

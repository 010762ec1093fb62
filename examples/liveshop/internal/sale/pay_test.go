package sale

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
)

// A thousand who were too poor to pay keep nobody else's payment from its end, and theirs
// are void when they cannot be paying any more.
func poorPayments(t *testing.T, sh *shop) {
	const poor = 1000
	sh.opened(t, 12, Product{SKU: "kite", Total: 5})
	ctx := t.Context()
	u := sh.users(t, 2, 1000)
	require.NoError(t, sh.env.Tx(ctx, func(tx *sql.Tx) error {
		for i := range poor {
			_, err := tx.ExecContext(ctx, "INSERT INTO payments (order_id, uid, room, fen, state, begun_ms) VALUES (?, ?, 12, 100, ?, ?)",
				idDomain+i, u[1], paymentBegun, sh.now()-600_000)
			if err != nil {
				return err
			}
		}
		return nil
	}))
	count := func(state string) int64 {
		return sh.number(t, "SELECT COUNT(*) FROM payments WHERE order_id >= ? AND state = ?", idDomain, state)
	}
	older := func(by time.Duration, which string, args ...any) {
		require.NoError(t, sh.env.Tx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE payments SET begun_ms = begun_ms - ? WHERE "+which, append([]any{by.Milliseconds()}, args...)...)
			return err
		}))
	}
	charge := func() (order int64) { // and the server dies
		p, err := sh.order(ctx, u[0], 12, Line{"kite", 1})
		require.NoError(t, err)
		begun, err := sh.begin(ctx, u[0], p.OrderID, 12)
		require.NoError(t, err)
		_, err = sh.accounts.Wallet.Pay(ctx, u[0], account.Platform, begun.fen, "order", begun.ref())
		require.NoError(t, err)
		return p.OrderID
	}
	taken := func(order int64) bool {
		return sh.number(t, "SELECT COUNT(*) FROM payments WHERE order_id = ? AND state = 'taken'", order) == 1
	}
	order := charge()
	older(settleAfter, "order_id = ?", order)
	eventually(t, "who was charged has the order", func() bool { return taken(order) })
	require.Equal(t, int64(poor), count(paymentBegun))

	order = charge()
	older(2*time.Hour, "order_id >= ? OR order_id = ?", idDomain, order)
	eventually(t, "the poor are void, and who was charged is not", func() bool { return count(paymentVoid) == poor && taken(order) })
}

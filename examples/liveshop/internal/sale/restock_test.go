package sale

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// idle returns another server of the same shop, which does not run.
func (sh *shop) idle(t *testing.T) *Sale {
	t.Helper()
	cfg := sh.env.Config
	cfg.Server = "idle"
	s, err := New(t.Context(), shoptest.Open(t, cfg, false), sh.accounts.Wallet, sh.heard, Options{})
	require.NoError(t, err)
	return s
}

// Redis loses units that were added and that SQL has not heard of: they are added again,
// in a room that is open, and before the sale ends in one that is closing.
func TestRestockOutlivesRedis(t *testing.T) {
	both(t, func(t *testing.T, star bool) {
		t.Run("open", func(t *testing.T) { t.Parallel(); restockOutlivesRedis(t, star, false) })
		t.Run("closing", func(t *testing.T) { t.Parallel(); restockOutlivesRedis(t, star, true) })
	})
}

func restockOutlivesRedis(t *testing.T, star, closing bool) {
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 20})
	ctx := t.Context()
	eventually(t, "SQL has what was loaded", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM spillway_stock_level") == int64(bucketsOf(star))
	})
	sh.stop() // what Redis hears from now on SQL does not

	idle := sh.idle(t)
	p, err := product(ctx, env.DB, "tea")
	require.NoError(t, err)
	p.Total = 30
	_, err = idle.Update(ctx, p)
	require.NoError(t, err)
	l, err := idle.of(ctx, 1)
	require.NoError(t, err)
	levels, err := l.stock.Stock(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(30), levels["tea"].Left)
	if closing {
		require.NoError(t, idle.CloseRoom(ctx, 1))
	}
	require.NoError(t, env.Redis.FlushAll(ctx).Err())
	require.NoError(t, idle.Close(ctx))

	cfg := env.Config
	cfg.Server = "s2"
	last := newShop(t, shoptest.Open(t, cfg, false), Options{})
	if closing {
		eventually(t, "the sale has ended", func() bool {
			return last.number(t, "SELECT COUNT(*) FROM sales WHERE state = 'ended'") == 1
		})
		require.Equal(t, int64(30), last.number(t, "SELECT returned FROM sale_items"))
	} else {
		u := last.users(t, 1, 10_000)
		eventually(t, "all units can be had", func() bool {
			_ = last.load(ctx, 1) // as its Run does every 15 s; before the rebuild it fails
			_, err := last.order(ctx, u[0], 1, Line{"tea", 30})
			return err == nil
		})
		eventually(t, "and SQL is known to have them", func() bool {
			require.NoError(t, last.load(ctx, 1))
			return last.number(t, "SELECT COUNT(*) FROM restocks WHERE done = 0") == 0
		})
	}
	holds(t, env)
}

// Units that are still to come keep a sale from ending.
func TestEndAwaitsRestocks(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 20})
	ctx := t.Context()
	l, err := sh.of(ctx, 1)
	require.NoError(t, err)
	sh.stop()
	exec := func(query string) {
		_, err := sh.env.DB.ExecContext(ctx, query)
		require.NoError(t, err)
	}
	exec("UPDATE sales SET state = 'closing'")
	exec("INSERT INTO restocks (room, sku, version, qty, done) VALUES (1, 'tea', 7, 4, 0)")
	end := func() (state string) {
		require.NoError(t, sh.env.Tx(ctx, func(tx *sql.Tx) error {
			_, err := sh.end(ctx, tx, l, map[string]ledgerLevel{})
			return err
		}))
		require.NoError(t, sh.env.DB.QueryRowContext(ctx, "SELECT state FROM sales").Scan(&state))
		return state
	}
	require.Equal(t, stateClosing, end())
	exec("UPDATE restocks SET done = 1")
	require.Equal(t, stateEnded, end())
}

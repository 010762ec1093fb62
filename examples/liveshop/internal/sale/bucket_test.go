package sale

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/stock"
)

// journalOf returns the journal in SQL that has an op of a kind.
func (sh *shop) journalOf(t *testing.T, kind string) (journal string) {
	t.Helper()
	var name []byte
	require.NoError(t, sh.env.DB.QueryRowContext(t.Context(), "SELECT DISTINCT journal FROM spillway_stock_row WHERE kind = ?", kind).Scan(&name))
	return string(name)
}

// On one server nothing is gained by buckets.
func TestBucketsOfAStar(t *testing.T) {
	t.Parallel()
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		sh := newShop(t, env, Options{})
		for _, star := range []bool{true, false} {
			n, err := sh.buckets(t.Context(), star)
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}
	})
}

// A sale is at its end when SQL has the journal of each bucket, and what one gave another
// has arrived.
func TestDrained(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opens(t, 1, true, Product{SKU: "tea", Total: 3})
	ctx := t.Context()
	u := sh.users(t, 1, 1000)[0]
	p, err := sh.order(ctx, u, 1, Line{"tea", 2}) // more than its bucket has
	require.NoError(t, err)
	l, err := sh.of(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, l.stock.Halt(ctx, "closed"))
	over := func() bool {
		over, err := sh.drained(ctx, l)
		require.NoError(t, err)
		return over
	}
	require.False(t, over(), "an order is not paid")
	require.NoError(t, l.stock.Resume(ctx))
	_, err = sh.Pay(ctx, u, p.OrderID)
	require.NoError(t, err)
	require.NoError(t, l.stock.Halt(ctx, "closed"))
	eventually(t, "SQL has all of it", over)

	sh.stop() // what SQL lacks from now on it does not get
	exec := func(query string, args ...any) {
		_, err := sh.env.DB.ExecContext(ctx, query, args...)
		require.NoError(t, err)
	}
	require.Len(t, l.journals(), starBuckets)
	for _, journal := range l.journals() {
		at, err := sh.store.Checkpoint(ctx, journal)
		require.NoError(t, err)
		const move = "UPDATE spillway_stock_journal SET position = ? WHERE journal = ?"
		exec(move, "1-1", []byte(journal))
		require.False(t, over(), "SQL lacks the last of %s", journal)
		exec(move, at, []byte(journal))
		require.True(t, over())
	}
	exec("UPDATE spillway_stock_row SET kind = 'took' WHERE kind = 'take'")
	require.False(t, over(), "a unit is on its way")
}

// A bucket was loaded, was given units by another, and sold them, and SQL heard nothing of
// it before Redis lost everything: the sale has all its units again.
func TestRebuiltWithoutTheJournalOfABucket(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opens(t, 1, true, Product{SKU: "tea", Total: 3})
	ctx := t.Context()
	u := sh.users(t, 2, 1000)
	_, err := sh.order(ctx, u[0], 1, Line{"tea", 2})
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	sh.stop()
	unheard := sh.journalOf(t, "reserve")
	require.NotEqual(t, unheard, sh.journalOf(t, "give"))
	for _, table := range []string{"spillway_stock_row", "spillway_stock_level", "spillway_stock_journal"} {
		_, err := env.DB.ExecContext(ctx, "DELETE FROM "+table+" WHERE journal = ?", []byte(unheard))
		require.NoError(t, err)
	}
	_, err = env.DB.ExecContext(ctx, "UPDATE order_positions SET entry_ms = 0, entry_seq = 0 WHERE journal = ?", unheard)
	require.NoError(t, err)
	_, err = env.DB.ExecContext(ctx, "DELETE FROM orders")
	require.NoError(t, err)
	require.NoError(t, env.Redis.FlushAll(ctx).Err())

	// Before anybody has noticed, nothing is loaded: what the others have sold would be sold again.
	cfg := env.Config
	cfg.Server = "s2"
	idle, err := New(ctx, shoptest.Open(t, cfg, false), sh.accounts.Wallet, sh.heard, Options{}) // it does not run
	require.NoError(t, err)
	require.NoError(t, idle.writeFigures(ctx))
	l, err := idle.of(ctx, 1)
	require.NoError(t, err)
	levels, err := l.stock.Stock(ctx)
	require.NoError(t, err)
	require.Empty(t, levels)
	require.NoError(t, idle.Close(ctx))

	cfg.Server = "s3"
	last := newShop(t, shoptest.Open(t, cfg, false), Options{})
	eventually(t, "all units can be had", func() bool {
		_, err := last.order(ctx, u[1], 1, Line{"tea", 3})
		return err == nil
	})
	eventually(t, "SQL has them", func() bool { return last.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	holds(t, env)
}

// A server died when it had loaded one bucket of three: another one loads the rest.
func TestLoadedHalfWay(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opens(t, 1, true, Product{SKU: "tea", Total: 30})
	l, err := sh.of(t.Context(), 1)
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM spillway_stock_level") == starBuckets })
	sh.stop()
	half := l.journals()[1]
	for _, table := range []string{"spillway_stock_row", "spillway_stock_level", "spillway_stock_journal"} {
		_, err := env.DB.ExecContext(t.Context(), "DELETE FROM "+table+" WHERE journal = ?", []byte(half))
		require.NoError(t, err)
	}
	keys, err := env.Redis.Keys(t.Context(), "liveshop:stock1:{"+half+".*").Result()
	require.NoError(t, err)
	require.NotEmpty(t, keys)
	require.NoError(t, env.Redis.Del(t.Context(), keys...).Err())

	cfg := env.Config
	cfg.Server = "s2"
	last := newShop(t, shoptest.Open(t, cfg, false), Options{})
	u := last.users(t, 1, 1000)
	require.NoError(t, last.load(t.Context(), 1)) // as its Run does every 15 s
	eventually(t, "all units can be had", func() bool {
		_, err := last.order(t.Context(), u[0], 1, Line{"tea", 30})
		return err == nil
	})
	holds(t, env)
}

// The last units moved all the time: it is not sold out, and who hears this tries again.
func TestContended(t *testing.T) {
	no := api.Failure(refusal(stock.ErrContended))
	require.Equal(t, http.StatusServiceUnavailable, no.Status)
	require.Equal(t, "contended", no.Code)
	require.Positive(t, no.RetryAfter)
}

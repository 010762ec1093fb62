package sale

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// Rows are found by what there are few of, and not by their state, or among everybody's.
func TestPlans(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	require.NoError(t, Migrate(t.Context(), env))
	these := "(?" + strings.Repeat(", ?", putRows-1) + ")"
	for statement, index := range map[string]string{
		couponsOf:            "coupons USING INDEX coupons_by_user (uid=?)",
		takePayments + these: "payments USING INDEX sqlite_autoindex_payments_1 (order_id=?)",
		endOrders + these:    "orders USING INDEX sqlite_autoindex_orders_1 (order_id=?)",
	} {
		var plan string
		args := make([]any, strings.Count(statement, "?"))
		err := env.DB.QueryRowContext(t.Context(), "EXPLAIN QUERY PLAN "+statement, args...).Scan(new(any), new(any), new(any), &plan)
		require.NoError(t, err)
		require.Contains(t, plan, index)
	}
}

// Orders are written many at a time, each with its own end; and twice like once.
func TestManyOrdersAreWritten(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		ctx := t.Context()
		require.NoError(t, Migrate(ctx, env))
		s := &Sale{env: env}
		const n = 3*putRows + 1
		var changes []change
		for i := range int64(n) {
			changes = append(changes, change{kind: "reserve", order: i, uid: 7, at: 1000, hold: 50, lines: []Line{{"tea", i}}})
		}
		for i := range int64(n) {
			switch i % 4 {
			case 0:
				changes = append(changes, change{kind: "confirm", order: i, at: 2000 + i%3}, change{kind: "cancel", order: i, at: 2500})
			case 1:
				changes = append(changes, change{kind: "cancel", order: i, at: 3000})
			case 2:
				changes = append(changes, change{kind: "expire", order: i, at: 3000})
			}
			state := paymentBegun
			if i == 8 {
				state = paymentRefunded
			}
			_, err := env.DB.ExecContext(ctx, env.InsertNew("payments", "order_id", "uid", "room", "fen", "state", "begun_ms"), i, 7, 1, 3, state, 1)
			require.NoError(t, err)
		}
		for range 2 {
			require.NoError(t, env.Tx(ctx, func(tx *sql.Tx) error {
				return errors.Join(s.putNew(ctx, tx, 1, changes, map[string]goods{"tea": {"Tea", 3}}), s.putEnds(ctx, tx, changes))
			}))
		}
		for i := range int64(n) {
			var o struct{ uid, fen, created, expires, paid, version int64 }
			var items, state, payment string
			err := env.DB.QueryRowContext(ctx, `SELECT o.uid, o.items, o.fen, o.state, o.created_ms, o.expires_ms, o.paid_ms, o.version, p.state
				FROM orders o JOIN payments p ON p.order_id = o.order_id WHERE o.order_id = ?`, i).
				Scan(&o.uid, &items, &o.fen, &state, &o.created, &o.expires, &o.paid, &o.version, &payment)
			require.NoError(t, err)
			want, paid, version, taken := Pending, int64(0), int64(1), paymentBegun
			switch i % 4 {
			case 0:
				want, paid, version, taken = Paid, 2000+i%3, 2, paymentTaken
			case 1, 2:
				want, version = Cancelled, 2
			}
			if i == 8 {
				taken = paymentRefunded
			}
			require.Equal(t, []any{want, taken, int64(7), 3 * i, int64(1000), int64(1050), paid, version},
				[]any{state, payment, o.uid, o.fen, o.created, o.expires, o.paid, o.version}, i)
			require.JSONEq(t, fmt.Sprintf(`[{"sku":"tea","qty":%d,"title":"Tea","fen":3}]`, i), items)
		}
	})
}

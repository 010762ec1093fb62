package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Likewise for what is in buckets.
func TestNaiveBuckets(t *testing.T) {
	for _, naive := range []struct {
		name string
		do   func(t *testing.T, s *shop, home, other string) // journals: the buyer's, and one more
		want string
		says string // the contradiction
	}{
		{"writes down the orders of one bucket, and not of all", func(t *testing.T, s *shop, home, _ string) {
			s.exec(t, "DELETE FROM order_positions WHERE journal = ?", home)
			s.order(t)
		}, "an order ends once", `is pending in the ledger and "" in orders`},
		{"tries one bucket after the other, and an order again after a restock", func(t *testing.T, s *shop, home, other string) {
			s.exec(t, `INSERT INTO spillway_stock_row SELECT ?, entry_ms, entry_seq + 1000, op, item, kind, order_id, user_id, sku, qty,
				left_diff, held_diff, sold_diff, partial, reason, at_ms, hold_ms FROM spillway_stock_row
				WHERE journal = ? AND kind = 'reserve'`, []byte(other), []byte(home))
		}, "an order ends once", "is in two journals"},
		{"brings the journal of one bucket to SQL, and not of all", func(t *testing.T, s *shop, _, other string) {
			s.exec(t, "DELETE FROM spillway_stock_row WHERE journal = ?", []byte(other))
		}, "SQL is as Redis", "room 1: Redis"},
		{"ends a sale while units are on their way", func(t *testing.T, s *shop, home, _ string) {
			s.exec(t, "DELETE FROM spillway_stock_row WHERE journal = ? AND kind = 'take'", []byte(home))
			s.exec(t, "UPDATE sales SET state = 'ended' WHERE room = ?", room)
		}, "stock adds up", "sold is not 5"},
	} {
		t.Run(naive.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, true)
			var home []byte
			require.NoError(t, s.env.DB.QueryRowContext(t.Context(),
				"SELECT DISTINCT journal FROM spillway_stock_row WHERE kind = 'reserve'").Scan(&home))
			other := slices.DeleteFunc(slices.Clone(s.journals), func(j string) bool { return j == string(home) })[0]
			i := slices.IndexFunc(invariants, func(inv invariant) bool { return inv.name == naive.want })
			look := func() []string {
				wrong, _, err := invariants[i].look(t.Context(), s.env)
				require.NoError(t, err)
				return wrong
			}
			require.Empty(t, look())
			naive.do(t, s, string(home), other)
			var wrong []string
			require.Eventually(t, func() bool { wrong = look(); return len(wrong) > 0 }, time.Minute, 20*time.Millisecond)
			require.Contains(t, strings.Join(wrong, "; "), naive.says)
		})
	}
}

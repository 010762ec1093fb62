package sale

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
)

// A sale whose room was never opened, or was closed without it, gives back what its host
// has to sell. One whose room is open stays, and so does one whose room may be on its way.
func abandoned(t *testing.T, sh *shop) {
	ctx := t.Context()
	for room, sku := range map[int64]string{8: "sofa", 9: "desk", 10: "chair", 11: "stool"} {
		sh.opened(t, room, Product{SKU: sku, Total: 5})
	}
	exec := func(query string) {
		require.NoError(t, sh.env.Tx(ctx, func(tx *sql.Tx) error { // which outlives a deadlock with the chores
			_, err := tx.ExecContext(ctx, query)
			return err
		}))
	}
	exec("DELETE FROM rooms WHERE id IN (8, 11)") // the server was killed before it wrote it
	exec("UPDATE rooms SET live = NULL, closed_ms = 1 WHERE id = 9")
	exec("UPDATE sales SET since_ms = since_ms - 61000 WHERE room IN (8, 9, 10)")
	exec("UPDATE sales SET since_ms = since_ms + 600000 WHERE room = 11") // it is new, however slow this machine is
	eventually(t, "two sales have ended", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM sales WHERE room IN (8, 9) AND state = 'ended'") == 2
	})
	require.Equal(t, int64(2), sh.number(t, "SELECT COUNT(*) FROM sales WHERE room IN (10, 11) AND state = 'open'"))
	tx, err := sh.env.DB.BeginTx(ctx, nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	for _, sku := range []string{"sofa", "desk"} {
		free, err := unloaded(ctx, tx, sku)
		require.NoError(t, err)
		require.Equal(t, int64(5), free)
	}
}

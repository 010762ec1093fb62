package sale

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// Who closes a room dies behind SQL: whoever does the chores next takes the shelf that is
// still open out of the cache.
func TestClosedHalfWay(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 9})
	u := sh.users(t, 1, 1000)
	sh.stop()

	idle := anotherServer(t, sh)
	order := func() error {
		id, err := idle.Token(t.Context(), u[0])
		require.NoError(t, err)
		_, err = idle.Place(t.Context(), u[0], id, 1, []Line{{"tea", 1}})
		return err
	}
	require.NoError(t, order())
	_, err := env.DB.ExecContext(t.Context(), "UPDATE sales SET state = ? WHERE room = 1", stateClosing)
	require.NoError(t, err)
	require.NoError(t, order(), "nobody has noticed: there is something to mend")
	require.NoError(t, idle.chores(t.Context()))
	require.ErrorIs(t, order(), errClosed)
}

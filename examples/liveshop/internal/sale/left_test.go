package sale

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// What pages are shown between a sell-out and a return: all that the room sells, their
// own and what is sold elsewhere, as the shelf has it.
func TestLeft(t *testing.T) {
	t.Parallel()
	d := &depot{left: map[string]int64{"far": 3}}
	sh := newShop(t, shoptest.Env(t), Options{Warehouse: d})
	ctx := t.Context()
	left := func() []LeftItem {
		t.Helper()
		v, err := sh.Left(ctx, 1)
		require.NoError(t, err)
		if v == nil {
			return nil
		}
		return v.(LeftFrame).Items
	}
	require.Nil(t, left(), "a room that sells nothing")

	sh.opened(t, 1, Product{SKU: "far", Elsewhere: true}, Product{SKU: "tea", Total: 3})
	eventually(t, "the figures of both", func() bool { return left()[0].Left == 3 && left()[1].Left == 3 })
	before := left()
	u := sh.users(t, 1, 1000)
	_, err := sh.order(ctx, u[0], 1, Line{"tea", 2})
	require.NoError(t, err)
	eventually(t, "the order to be seen", func() bool { return left()[1].Left == 1 })
	require.Equal(t, before[1].Version, left()[1].Version, "the version is that of the frames of stock: nothing crossed zero")
	require.Equal(t, before[0], left()[0])

	products, err := sh.Registered(ctx, hostOf(1))
	require.NoError(t, err)
	require.Len(t, products, 2)
	tea := products[1]
	require.Equal(t, "tea", tea.SKU)
	none, err := sh.Registered(ctx, u[0])
	require.NoError(t, err)
	require.Empty(t, none)
	tea.Total = 5
	_, err = sh.Update(ctx, tea)
	require.NoError(t, err)
	eventually(t, "the new units", func() bool {
		return left()[1] == LeftItem{SKU: "tea", Left: 3, Version: before[1].Version, Total: 5, Edited: 2}
	})

	require.NoError(t, sh.CloseRoom(ctx, 1))
	eventually(t, "nothing more to be had", func() bool { return left()[0].Left == 0 && left()[1].Left == 0 })
}

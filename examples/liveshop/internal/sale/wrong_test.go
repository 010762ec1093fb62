package sale

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// What a call forgot is not taken for nought.
func TestNotSaid(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	sh.opened(t, 1, Product{SKU: "tea", Total: 3}, Product{SKU: "far", Elsewhere: true})
	call := shoptest.Caller(t, sh.env, sh)
	uid := sh.users(t, 1, 1000)[0]
	require.Equal(t, 200, call(uid, "PUT /rooms/1/cart", `{"sku":"tea","qty":2}`).Status)
	require.Equal(t, 400, call(uid, "PUT /rooms/1/cart", `{"sku":"tea"}`).Status)
	lines, err := sh.Cart(t.Context(), uid, 1)
	require.NoError(t, err)
	require.Len(t, lines, 1)
	require.Equal(t, 200, call(0, "PUT /admin/warehouse/far", `{"units":7}`).Status)
	require.Equal(t, 400, call(0, "PUT /admin/warehouse/far", `{}`).Status)
	left, err := table{sh.env}.Left(t.Context(), []string{"far"})
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"far": 7}, left)
}

// A sale begins at a time that one can wait for.
func TestOpensSometime(t *testing.T) {
	t.Parallel()
	p := Product{SKU: "tea", Host: 1, Title: "Tea", Fen: 1, Opens: maxMs}
	require.NoError(t, p.check())
	require.Positive(t, time.Duration(p.Opens)*time.Millisecond)
	for _, p.Opens = range []int64{-1, maxMs + 1, 1<<63 - 1} {
		refused(t, p.check(), "bad_request")
	}
	p.Opens, p.Closes = 0, maxMs+1
	refused(t, p.check(), "bad_request")
}

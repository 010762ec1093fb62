package sale

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// As the page calls it.
func TestRoutes(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	m, err := api.New(sh.env, sh.accounts.Authenticate)
	require.NoError(t, err)
	sh.accounts.Routes(m)
	sh.Routes(m)
	web := httptest.NewServer(m)
	t.Cleanup(web.Close)
	buyer := client.Client{HTTP: web.Client(), Base: web.URL}
	ctx := t.Context()
	call := func(pattern string, in, out any) {
		t.Helper()
		require.NoError(t, buyer.Call(ctx, pattern, in, out))
	}
	tea := Product{SKU: "tea", Host: hostOf(1), Title: "Tea", Fen: 100, Total: 3}
	call("POST /admin/products", tea, &tea)
	tea.Title = "Green tea"
	call("PUT /admin/products/tea", tea, &tea)
	require.Equal(t, int64(2), tea.Version)
	refused(t, buyer.Call(ctx, "PUT /admin/products/cup", tea, nil), "bad_request")
	call("POST /admin/products", Product{SKU: "far", Host: hostOf(1), Title: "Far", Fen: 5, Elsewhere: true}, nil)
	for _, units := range []int64{3, 7} {
		call("PUT /admin/warehouse/far", map[string]int64{"units": units}, nil)
	}
	refused(t, buyer.Call(ctx, "PUT /admin/warehouse/far", map[string]int64{"units": -1}, nil), "bad_request")
	sh.live(t, 1)
	require.NoError(t, sh.Open(ctx, 1, hostOf(1), false))

	var shelf struct{ Products []Offer }
	call("GET /rooms/1/products", nil, &shelf)
	require.Equal(t, "Green tea", shelf.Products[1].Title)
	require.Equal(t, int64(3), shelf.Products[1].Left)
	eventually(t, "the warehouse was looked at", func() bool {
		call("GET /rooms/1/products", nil, &shelf)
		return shelf.Products[0].Left == 7
	})
	refused(t, buyer.Call(ctx, "GET /rooms/9/products", nil, nil), "not_found")
	refused(t, buyer.Call(ctx, "POST /orders/token", nil, nil), "unauthorized")

	require.NoError(t, buyer.LogIn(ctx, "13800000001"))
	refused(t, buyer.Call(ctx, "POST /rooms/1/products", map[string]string{"sku": "tea"}, nil), "forbidden")
	var cart struct{ Items []Priced }
	call("PUT /rooms/1/cart", Line{"tea", 2}, &cart)
	call("GET /rooms/1/cart", nil, &cart)
	require.Equal(t, []Priced{{Line{"tea", 2}, goods{"Green tea", 100}}}, cart.Items)

	var token struct {
		OrderID int64 `json:"order_id"`
	}
	call("POST /orders/token", nil, &token)
	order := map[string]any{"order_id": token.OrderID, "room": 1, "items": []Line{{"tea", 2}}}
	var placed Placed
	call("POST /orders", order, &placed)
	require.Equal(t, token.OrderID, placed.OrderID)
	require.Equal(t, int64(200), placed.Fen)
	call("POST /orders", order, &placed)
	id := payment{order: placed.OrderID}.ref()
	err = buyer.Call(ctx, "POST /orders/"+id+"/pay", nil, nil)
	refused(t, err, "poor")
	require.Equal(t, http.StatusPaymentRequired, api.Failure(err).Status)
	call("POST /recharge", map[string]any{"fen": 600, "key": "k"}, nil)
	var receipt Receipt
	call("POST /orders/"+id+"/pay", nil, &receipt)
	require.Equal(t, Receipt{placed.OrderID, Paid, 200, 400}, receipt)
	var one Order
	call("GET /orders/"+id, nil, &one)
	require.Equal(t, Paid, one.State)
	eventually(t, "it is in the history", func() bool {
		var all struct{ Orders []Order }
		call("GET /orders", nil, &all)
		return len(all.Orders) == 1 && all.Orders[0].State == Paid
	})
}

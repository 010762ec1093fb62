package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// A server that stops tells its sockets, and leaves nothing behind: what was counted
// is stored, what was ordered is in SQL.
func TestStopTellsAndFlushes(t *testing.T) {
	t.Parallel()
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		base, stop := serving(t, env)
		host := &client.Client{HTTP: http.DefaultClient, Base: base}
		require.NoError(t, host.LogIn(t.Context(), "13900000000"))
		product := map[string]any{"sku": "tea", "host": host.Me.UID, "title": "tea", "fen": 100, "total": 5, "per_user": 2}
		require.NoError(t, host.Call(t.Context(), "POST /admin/products", product, nil))
		var room struct{ ID int64 }
		require.NoError(t, host.Call(t.Context(), "POST /rooms", map[string]string{"title": "tea", "kind": "normal"}, &room))

		guest := &client.Client{HTTP: http.DefaultClient, Base: base}
		require.NoError(t, guest.LogIn(t.Context(), "13800000000"))
		var ticket struct{ WS, Token string }
		require.NoError(t, guest.Call(t.Context(), fmt.Sprintf("GET /rooms/%d/im", room.ID), nil, &ticket))
		conn, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(base, "http")+ticket.WS+"?token="+ticket.Token, nil)
		require.NoError(t, err)
		defer res.Body.Close()
		defer conn.Close()
		_, _, err = conn.ReadMessage() // hello: it is one of the room's
		require.NoError(t, err)
		require.NoError(t, guest.Call(t.Context(), fmt.Sprintf("POST /rooms/%d/like", room.ID), map[string]int{"n": 7}, nil))
		var order struct {
			OrderID int64 `json:"order_id"`
		}
		require.NoError(t, guest.Call(t.Context(), "POST /orders/token", nil, &order))
		in := map[string]any{"order_id": order.OrderID, "room": room.ID, "items": []map[string]any{{"sku": "tea", "qty": 2}}}
		require.NoError(t, guest.Call(t.Context(), "POST /orders", in, nil))

		began := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		told := false
		for !told {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, text, err := conn.ReadMessage()
			require.NoError(t, err, "the socket ended without a word")
			var frame struct{ T string }
			require.NoError(t, json.Unmarshal(text, &frame))
			told = frame.T == "bye"
		}
		require.NoError(t, <-stopped)
		require.Less(t, time.Since(began), 10*time.Second)

		var orders int
		require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM orders WHERE uid = ?", guest.Me.UID).Scan(&orders))
		require.Equal(t, 1, orders)
		cfg := env.Config
		cfg.Server = "s2"
		again, _ := serving(t, shoptest.Open(t, cfg, false))
		var seen struct{ Likes int64 }
		host.Base = again
		require.NoError(t, host.Call(t.Context(), fmt.Sprintf("GET /rooms/%d", room.ID), nil, &seen))
		require.Equal(t, int64(7), seen.Likes)
	})
}

package server

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// A host closes the room while packets are about to fall: nobody gets one, and the money
// is back long before they would have fallen to the end.
func TestRainEndsWithItsRoom(t *testing.T) {
	t.Parallel()
	base, _ := serving(t, shoptest.Env(t))
	host := &client.Client{HTTP: http.DefaultClient, Base: base}
	ctx := t.Context()
	call := func(pattern string, in, out any) {
		t.Helper()
		require.NoError(t, host.Call(ctx, pattern, in, out))
	}
	require.NoError(t, host.LogIn(ctx, "13800001234"))
	call("POST /admin/grants", map[string]any{"uid": host.Me.UID, "grant": "rain"}, nil)
	call("POST /recharge", map[string]any{"fen": 600, "key": "k"}, nil)
	var room, rain struct{ ID, Ends int64 }
	call("POST /rooms", map[string]string{"title": "Hats"}, &room)
	of := fmt.Sprintf("/rooms/%d", room.ID)
	call("POST "+of+"/rain/prepare", map[string]any{"total": 500, "count": 5, "key": "k"}, &rain)
	call("POST "+of+"/rain/start", map[string]int64{"id": rain.ID}, &rain)
	call("POST "+of+"/close", nil, nil)
	err := host.Call(ctx, "POST "+of+"/rain/grab", map[string]int64{"id": rain.ID}, nil)
	require.ErrorContains(t, err, "late")
	var inside struct{ Rain any }
	call("GET "+of, nil, &inside)
	require.Nil(t, inside.Rain)
	require.Eventually(t, func() bool {
		var me struct{ Balance int64 }
		call("GET /me", nil, &me)
		return me.Balance == 600
	}, time.Minute, 50*time.Millisecond)
}

package im

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestRoutes(t *testing.T) {
	env := shoptest.Env(t)
	h, err := New(env, Options{
		Name: func(context.Context, int64) (string, error) { return "Ann", nil },
		Enter: func(_ context.Context, room, _ int64) error {
			if room != 5 {
				return api.Conflict("room_closed", "the room is closed")
			}
			return nil
		},
	})
	require.NoError(t, err)
	call := shoptest.Caller(t, env, h)
	require.Equal(t, 401, call(0, "GET /rooms/5/im", "").Status)
	require.Equal(t, "room_closed", call(7, "GET /rooms/6/im", "").Code)
	var in struct{ WS, Token string }
	call(7, "GET /rooms/5/im", "").Into(t, &in)
	require.Equal(t, api.Prefix+socketPath, in.WS)
	got, err := h.redeem(t.Context(), in.Token)
	require.NoError(t, err)
	require.Equal(t, ticket{UID: 7, Name: "Ann", Room: 5}, got)

	for seq, status := range map[string]int{"": 400, "x": 400, "0": 400, "1048576": 400, "1": 200} {
		require.Equal(t, status, call(7, "GET /rooms/5/read?seq="+seq, "").Status, seq)
	}
	s := newSocket(h, nil, ticket{7, "Ann", 5})
	h.rooms[5] = &room{seq: 3}
	require.NoError(t, h.markRead(t.Context(), s, 2))
	for seq, read := range map[string]string{"2": `{"members":1,"read":1}`, "3": `{"members":1,"read":0}`} {
		require.JSONEq(t, read, string(call(7, "GET /rooms/5/read?seq="+seq, "").Data))
	}
}

package rain

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// A room closes while packets fall and others wait. Who has one keeps it, and the host
// gets all others back; also when the call that starts the rain is just under way.
func TestRoomCloses(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		r, h := weather(t, env)
		h.granted.Store(true)
		r.countdown = 0
		call := shoptest.Caller(t, env, r)
		prepare := func(total int) (v Rain, id string) {
			call(host, "POST /rooms/5/rain/prepare", fmt.Sprintf(`{"total":%d,"count":20}`, total)).Into(t, &v)
			return v, fmt.Sprintf(`{"id":%d}`, v.ID)
		}
		falling, id := prepare(5000)
		call(host, "POST /rooms/5/rain/start", id).Into(t, &falling)
		var first, again struct{ Fen int64 }
		call(2, "POST /rooms/5/rain/grab", id).Into(t, &first)
		require.NoError(t, grab.Run(t.Context(), env.Redis, keys(falling.ID), 3, 1e6).Err()) // its server died before it booked it
		prepare(3000)
		require.Equal(t, "poor", call(host, "POST /rooms/5/rain/prepare", `{"total":60000,"count":20}`).Code)
		r.countdown = r.falls
		soon, begun := prepare(2000)
		soon, err := r.schedule(t.Context(), soon)
		require.NoError(t, err)

		require.NoError(t, r.CloseRoom(t.Context(), 5))
		require.NoError(t, r.begin(t.Context(), soon, r.falls))
		require.Equal(t, "late", call(4, "POST /rooms/5/rain/grab", begun).Code)
		require.Equal(t, "late", call(4, "POST /rooms/5/rain/grab", id).Code)
		call(2, "POST /rooms/5/rain/grab", id).Into(t, &again)
		require.Equal(t, first, again)
		require.NoError(t, r.CloseRoom(t.Context(), 5), "as often as one likes")
		on, err := r.Part(t.Context(), h.Room, 0)
		require.NoError(t, err)
		require.Nil(t, on)

		_, err = env.DB.ExecContext(t.Context(), "UPDATE rains SET ends_ms = ends_ms - 5000 WHERE ends_ms > 0") // 5 s later
		require.NoError(t, err)
		require.NoError(t, r.settleAll(t.Context()))
		have, has := h.balances(t)
		require.GreaterOrEqual(t, have, first.Fen+1)
		require.EqualValues(t, 50_000, have+has)
		require.Equal(t, "late", call(4, "POST /rooms/5/rain/grab", id).Code)
		checked(t, env, fmt.Sprintf("4 rains, 2 packets of %d fen", have))
		var open int
		require.NoError(t, env.DB.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM rains WHERE settled = 0").Scan(&open))
		require.Equal(t, 1, open, "what is not paid for may be on its way to be")
	})
}

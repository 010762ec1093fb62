package rain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

// hall is one room whose host may make it rain, and a wallet that can be out of order.
type hall struct {
	*account.Wallet
	room.Room
	granted  atomic.Bool
	unbooked atomic.Int64 // packets that are not paid
	mu       sync.Mutex
	shown    map[string]int
}

func (h *hall) GetOpen(context.Context, int64) (room.Room, error)    { return h.Room, nil }
func (h *hall) Granted(context.Context, int64, string) (bool, error) { return h.granted.Load(), nil }
func (h *hall) name(_ context.Context, uid int64) (string, error) {
	return fmt.Sprint("user ", uid), nil
}
func (h *hall) Pay(ctx context.Context, from, to, fen int64, kind, ref string) (int64, error) {
	if kind == "packet" && h.unbooked.Add(-1) >= 0 {
		return 0, errors.New("no database")
	}
	return h.Wallet.Pay(ctx, from, to, fen, kind, ref)
}

func (h *hall) Publish(_ context.Context, _ int64, _ string, d any, _ im.Class) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shown[d.(im.Named).FrameID()]++
	return nil
}

const host, guests = 1, 60

// weather returns the rains of a room of user 1, who has 500 yuan; users up to 60 have
// nothing.
func weather(t *testing.T, env *infra.Env) (*Rains, *hall) {
	accounts, err := account.New(t.Context(), env)
	require.NoError(t, err)
	for uid := range guests {
		_, err := env.DB.ExecContext(t.Context(), env.InsertNew("wallets", "uid", "fen", "version"), uid+1, 0, 0)
		require.NoError(t, err)
	}
	_, err = accounts.Wallet.Pay(t.Context(), account.Outside, host, 50_000, "recharge", "r")
	require.NoError(t, err)
	h := &hall{Wallet: accounts.Wallet, Room: room.Room{ID: 5, Host: host, Open: true}, shown: map[string]int{}}
	r, err := New(t.Context(), env, Options{Wallet: h, Rooms: h, Announcer: h, Name: h.name})
	require.NoError(t, err)
	r.countdown, r.falls = time.Hour, time.Hour
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, errors.Join(r.Close(ctx), accounts.Close(ctx)))
	})
	return r, h
}

// waits says which rain the host is told to have prepared and not started.
func (h *hall) waits(t *testing.T, call func(int64, string, string) shoptest.Answer, want string) {
	t.Helper()
	a := call(host, "GET /rooms/5/rain", "")
	require.Equal(t, 200, a.Status, a.Code)
	require.JSONEq(t, fmt.Sprintf(`{"granted":%t,"ready":%s}`, h.granted.Load(), want), string(a.Data))
	require.Equal(t, "forbidden", call(host+1, "GET /rooms/5/rain", "").Code)
}

func (h *hall) balances(t *testing.T) (guestsHave, hostHas int64) {
	for uid := int64(1); uid <= guests; uid++ {
		fen, err := h.Balance(t.Context(), uid)
		require.NoError(t, err)
		if uid == host {
			hostHas = fen
		} else {
			guestsHave += fen
		}
	}
	return
}

func checked(t *testing.T, env *infra.Env, want string) {
	t.Helper()
	wrong, detail, err := Check(t.Context(), env)
	require.NoError(t, err)
	require.Empty(t, wrong)
	require.Equal(t, want, detail)
}

// end lets a rain be over, and settles it.
func (r *Rains) end(t *testing.T, id int64) {
	t.Helper()
	now, err := r.now(t.Context())
	require.NoError(t, err)
	past := now - 2*settleAfter.Milliseconds()
	_, err = r.env.DB.ExecContext(t.Context(), "UPDATE rains SET ends_ms = ? WHERE id = ?", past, id)
	require.NoError(t, err)
	require.NoError(t, r.env.Redis.HSet(t.Context(), keys(id)[0], "ends", past).Err())
	require.NoError(t, r.settleAll(t.Context()))
	require.NoError(t, r.settleAll(t.Context()))
}

func TestRain(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		r, h := weather(t, env)
		call := shoptest.Caller(t, env, r)
		prepare := func(uid int64, body string) shoptest.Answer { return call(uid, "POST /rooms/5/rain/prepare", body) }
		const body = `{"total":10000,"count":40,"key":"k"}`
		require.Equal(t, "not_granted", prepare(host, body).Code)
		h.waits(t, call, "null")
		h.granted.Store(true)
		require.Equal(t, 403, prepare(2, body).Status, "not the host")
		require.Equal(t, 400, prepare(host, `{"total":39,"count":40}`).Status)
		require.Equal(t, 402, prepare(host, `{"total":60000,"count":40}`).Status)
		var v Rain
		for range 3 {
			prepare(host, body).Into(t, &v)
		}
		_, has := h.balances(t)
		require.EqualValues(t, 40_000, has, "paid once")
		require.Equal(t, "key_used", prepare(host, `{"total":10001,"count":40,"key":"k"}`).Code)

		id := fmt.Sprintf(`{"id":%d}`, v.ID)
		grab := func(uid int64) (a struct {
			Fen    int64
			Booked bool
			Code   string
		}) {
			res := call(uid, "POST /rooms/5/rain/grab", id)
			if a.Code = res.Code; res.Status == 200 {
				res.Into(t, &a)
			}
			return a
		}
		require.Equal(t, "not_found", grab(2).Code, "before the start")
		var first, again Rain
		call(host, "POST /rooms/5/rain/start", id).Into(t, &first)
		require.Equal(t, "early", grab(2).Code)
		call(host, "POST /rooms/5/rain/start", id).Into(t, &again)
		require.Equal(t, first, again, "started once")
		on, err := r.Part(t.Context(), h.Room, 0)
		require.NoError(t, err)
		require.NotNil(t, on)
		require.NoError(t, env.Redis.HSet(t.Context(), keys(v.ID)[0], "starts", 1).Err())
		require.Equal(t, "ok", grab(2).Code)

		require.Equal(t, "not_found", call(3, "POST /rooms/6/rain/grab", id).Code, "of another room")
		h.unbooked.Store(5) // the database fails for some
		got := make([]int64, guests+1)
		var all sync.WaitGroup
		for uid := int64(2); uid <= guests; uid++ {
			for range 2 {
				all.Go(func() {
					a := grab(uid)
					if a.Code != "ok" {
						require.Equal(t, "empty", a.Code)
						return
					}
					if was := atomic.SwapInt64(&got[uid], a.Fen); was != 0 {
						require.Equal(t, was, a.Fen, "a user has one packet")
					}
				})
			}
		}
		all.Wait()
		packets, fen := 0, int64(0)
		for _, n := range got {
			if n > 0 {
				packets, fen = packets+1, fen+n
			}
		}
		require.Equal(t, 40, packets)
		require.EqualValues(t, 10_000, fen)
		r.end(t, v.ID)
		require.Equal(t, "ok", grab(2).Code, "asked again later, it is the same packet")
		have, has := h.balances(t)
		require.Equal(t, []int64{10_000, 40_000}, []int64{have, has})
		checked(t, env, "2 rains, 40 packets of 10000 fen")
	})
}

// Grabs whose server died before it booked them, too few guests, a rain that nobody
// started, and a Redis that forgot: the money is all there.
func TestSettle(t *testing.T) {
	env := shoptest.Env(t)
	r, h := weather(t, env)
	h.granted.Store(true)
	r.countdown = 0
	call := shoptest.Caller(t, env, r)
	var v Rain
	prepare := func() string {
		call(host, "POST /rooms/5/rain/prepare", `{"total":5000,"count":20}`).Into(t, &v)
		return fmt.Sprintf(`{"id":%d}`, v.ID)
	}
	began := func() string {
		id := prepare()
		require.Equal(t, 200, call(host, "POST /rooms/5/rain/start", id).Status)
		return id
	}
	id := began()
	h.waits(t, call, "null")
	for uid := int64(2); uid <= 8; uid++ {
		if uid <= 5 { // the server dies
			require.NoError(t, grab.Run(t.Context(), env.Redis, keys(v.ID), uid, 1e6).Err())
			continue
		}
		require.Equal(t, 200, call(uid, "POST /rooms/5/rain/grab", id).Status)
	}
	have, has := h.balances(t)
	require.EqualValues(t, 45_000, has)
	r.end(t, v.ID)
	after, has := h.balances(t)
	require.Greater(t, after, have)
	require.EqualValues(t, 50_000, after+has)
	require.Equal(t, "late", call(9, "POST /rooms/5/rain/grab", id).Code)
	checked(t, env, fmt.Sprintf("1 rains, 7 packets of %d fen", after))

	prepare()
	h.waits(t, call, fmt.Sprintf(`{"id":%d,"room":5,"total":5000,"count":20,"starts":0,"ends":0}`, v.ID))
	_, err := env.DB.ExecContext(t.Context(), "UPDATE rains SET created_ms = 1 WHERE id = ?", v.ID)
	require.NoError(t, err)
	require.NoError(t, r.settleAll(t.Context()))
	h.waits(t, call, "null")
	require.Equal(t, 200, call(host, "POST /rooms/5/rain/start", fmt.Sprintf(`{"id":%d}`, v.ID)).Status)
	require.Equal(t, "not_found", call(9, "POST /rooms/5/rain/grab", fmt.Sprintf(`{"id":%d}`, v.ID)).Code, "given up for good")

	id = began()
	require.Equal(t, 200, call(9, "POST /rooms/5/rain/grab", id).Status)
	require.NoError(t, env.Redis.FlushAll(t.Context()).Err())
	require.Equal(t, "not_found", call(10, "POST /rooms/5/rain/grab", id).Code)
	_, err = env.DB.ExecContext(t.Context(), "UPDATE rains SET ends_ms = 1 WHERE id = ?", v.ID)
	require.NoError(t, err)
	require.NoError(t, r.settleAll(t.Context()))
	after, has = h.balances(t)
	require.EqualValues(t, 50_000, after+has)
	wrong, _, err := Check(t.Context(), env)
	require.NoError(t, err)
	require.Empty(t, wrong)
}

// The check must see what naive rains do wrong.
func TestCheckSeesNaive(t *testing.T) {
	for name, naive := range map[string]func(t *testing.T, r *Rains, v Rain){
		"grabs that read and then write": func(t *testing.T, r *Rains, v Rain) {
			k := keys(v.ID)
			fen, err := r.env.Redis.LIndex(t.Context(), k[1], 0).Int64()
			require.NoError(t, err)
			for uid := int64(2); uid <= 3; uid++ { // both have read it
				require.NoError(t, r.env.Redis.HSet(t.Context(), k[2], uid, fen).Err())
				require.NoError(t, r.env.Redis.LPop(t.Context(), k[1]).Err())
				require.NoError(t, r.book(t.Context(), v.ID, uid, fen))
			}
		},
		"a packet that is booked twice": func(t *testing.T, r *Rains, v Rain) {
			res, err := grab.Run(t.Context(), r.env.Redis, keys(v.ID), 2, 1e6).Slice()
			require.NoError(t, err)
			for i := range 2 {
				_, err := r.opts.Wallet.Pay(t.Context(), account.Platform, 2, res[1].(int64), "packet", fmt.Sprintf("rain-%d-2-%d", v.ID, i))
				require.NoError(t, err)
			}
		},
		"a settlement without the grabs": func(t *testing.T, r *Rains, v Rain) {
			require.NoError(t, grab.Run(t.Context(), r.env.Redis, keys(v.ID), 2, 1e6).Err())
			_, err := r.opts.Wallet.Pay(t.Context(), account.Platform, host, v.Total, "packet", v.FrameID()+"-rest")
			require.NoError(t, err)
			_, err = r.env.DB.ExecContext(t.Context(), "UPDATE rains SET settled = 1")
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := shoptest.Env(t)
			r, h := weather(t, env)
			h.granted.Store(true)
			r.countdown = 0
			call := shoptest.Caller(t, env, r)
			var v Rain
			call(host, "POST /rooms/5/rain/prepare", `{"total":5000,"count":20}`).Into(t, &v)
			require.Equal(t, 200, call(host, "POST /rooms/5/rain/start", fmt.Sprintf(`{"id":%d}`, v.ID)).Status)
			naive(t, r, v)
			wrong, _, err := Check(t.Context(), env)
			require.NoError(t, err)
			require.NotEmpty(t, wrong)
		})
	}
}

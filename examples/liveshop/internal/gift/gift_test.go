package gift

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/pk"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func name(_ context.Context, uid int64) (string, error) { return fmt.Sprint("user ", uid), nil }

func TestMain(m *testing.M) { shoptest.Main(m) }

// hall is one room, and shows each frame once, as pages do.
type hall struct {
	room.Room
	mu    sync.Mutex
	shown map[string]any
	sent  int
	down  bool
}

func (h *hall) GetOpen(context.Context, int64) (room.Room, error) { return h.Room, nil }

func (h *hall) Publish(_ context.Context, _ int64, t string, d any, _ im.Class) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return errors.New("nobody hears me")
	}
	h.sent++
	h.shown[d.(im.Named).FrameID()] = d
	return nil
}

func (h *hall) gifts() (fen int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.shown {
		if g, ok := d.(Given); ok {
			fen += g.Fen
		}
	}
	return fen
}

// shop returns a counter in a room of user 1, where users 2 and 3 have 500 yuan each.
func shop(t *testing.T, env *infra.Env) (*Counter, *hall, *account.Wallet) {
	accounts, err := account.New(t.Context(), env)
	require.NoError(t, err)
	for uid := int64(1); uid <= 3; uid++ {
		_, err := env.DB.ExecContext(t.Context(), env.InsertNew("wallets", "uid", "fen", "version"), uid, 0, 0)
		require.NoError(t, err)
		if uid > 1 {
			_, err = accounts.Wallet.Pay(t.Context(), account.Outside, uid, 50_000, "recharge", fmt.Sprint(uid))
			require.NoError(t, err)
		}
	}
	h := &hall{Room: room.Room{ID: 5, Host: 1, Kind: room.PK, Open: true}, shown: map[string]any{}}
	c, err := New(env, Options{
		Wallet: accounts.Wallet, Rooms: h, PK: pk.New(env, h, h, name), Announcer: h,
		Name: name,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, errors.Join(c.Close(ctx), accounts.Close(ctx)))
	})
	return c, h, accounts.Wallet
}

func TestGifts(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		c, h, wallet := shop(t, env)
		call := shoptest.Caller(t, env, c, pk.New(env, h, h, name))
		give := func(uid int64, gift, key string) shoptest.Answer {
			return call(uid, "POST /rooms/5/gifts", fmt.Sprintf(`{"gift":%q,"key":%q}`, gift, key))
		}
		var list []Gift
		call(0, "GET /gifts", "").Into(t, &list)
		require.Equal(t, Gifts, list)
		require.Equal(t, 404, give(2, "moon", "k").Status)
		require.Equal(t, 400, give(2, "rose", "").Status)
		require.Equal(t, 400, give(1, "rose", "k").Status, "to oneself")
		require.Equal(t, 400, call(2, "POST /rooms/5/gifts", `{"gift":"rose","to":3,"key":"k"}`).Status, "3 challenges nobody")
		require.Equal(t, 200, call(3, "POST /rooms/5/pk/join", "").Status)

		var all sync.WaitGroup
		for range 10 { // an impatient finger
			all.Go(func() {
				a := give(2, "car", "k1")
				require.Equal(t, 200, a.Status, a.Code)
				require.JSONEq(t, `{"balance":30000}`, string(a.Data))
			})
		}
		all.Wait()
		require.Equal(t, "key_used", give(2, "rose", "k1").Code)
		require.Equal(t, "key_used", call(2, "POST /rooms/5/gifts", `{"gift":"car","to":3,"key":"k1"}`).Code)
		require.EqualValues(t, 20_000, h.gifts())
		bar, err := c.opts.PK.Get(t.Context(), 5)
		require.NoError(t, err)
		require.EqualValues(t, 70, bar.Left)

		before := h.sent
		a := give(2, "rocket", "k2")
		require.Equal(t, []any{402, "poor"}, []any{a.Status, a.Code})
		require.Equal(t, before, h.sent, "the room heard of a gift that was not paid for")
		require.Equal(t, 200, call(2, "POST /rooms/5/gifts", `{"gift":"car","to":3,"key":"k3"}`).Status)
		host, err := wallet.Balance(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, 20_000, host)
		require.Zero(t, waiting(t, c), "jobs of gifts that were finished")
	})
}

// A server that dies between the money and the room: the gift is shown all the same,
// and counts in the PK, once.
func TestDiesBetween(t *testing.T) {
	env := shoptest.Env(t)
	c, h, _ := shop(t, env)
	call := shoptest.Caller(t, env, c, pk.New(env, h, h, name))
	require.Equal(t, 200, call(3, "POST /rooms/5/pk/join", "").Status)
	h.down = true
	require.Equal(t, 500, call(2, "POST /rooms/5/gifts", `{"gift":"car","key":"k1"}`).Status)
	h.down = false
	require.Zero(t, h.gifts())
	ref := "5:2:k1"
	unpaid := job{Room: 5, Given: Given{From: 2, To: 1, Fen: 100, Ref: "5:2:never"}, Added: time.Now().UnixMilli()}
	require.Error(t, c.finish(t.Context(), unpaid, nil), "it may be paid yet")
	unpaid.Added -= unpaidAfter.Milliseconds()
	require.NoError(t, c.finish(t.Context(), unpaid, nil))

	require.NoError(t, c.jobs.Reschedule(t.Context(), ref, time.Now()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	require.Eventually(t, func() bool { return h.gifts() == 20_000 }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool {
		bar, err := c.opts.PK.Get(t.Context(), 5)
		return err == nil && bar.Left == 70
	}, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, 200, call(2, "POST /rooms/5/gifts", `{"gift":"car","key":"k1"}`).Status)
	bar, err := c.opts.PK.Get(t.Context(), 5)
	require.NoError(t, err)
	require.EqualValues(t, 70, bar.Left)
	require.EqualValues(t, 20_000, h.gifts())
}

// A gift that was shown is not shown again by who asks again, neither soon nor when the
// queue has long forgotten its job; nor does it move a PK that began later.
func TestAskedAgain(t *testing.T) {
	env := shoptest.Env(t)
	c, h, _ := shop(t, env)
	call := shoptest.Caller(t, env, c, pk.New(env, h, h, name))
	give := func(gift string) shoptest.Answer {
		return call(2, "POST /rooms/5/gifts", fmt.Sprintf(`{"gift":%q,"key":"k1"}`, gift))
	}
	require.Equal(t, 200, give("rocket").Status)
	require.Equal(t, 200, call(3, "POST /rooms/5/pk/join", "").Status)
	for range 2 {
		sent := h.sent
		for range 3 {
			a := give("rocket")
			require.Equal(t, 200, a.Status, a.Code)
			require.JSONEq(t, `{"balance":0}`, string(a.Data))
		}
		require.Equal(t, "key_used", give("rose").Code)
		require.Equal(t, sent, h.sent)
		require.Zero(t, waiting(t, c))
		bar, err := c.opts.PK.Get(t.Context(), 5)
		require.NoError(t, err)
		require.EqualValues(t, 50, bar.Left)

		require.NoError(t, env.Redis.FlushAll(t.Context()).Err())
		require.Equal(t, 200, call(3, "POST /rooms/5/pk/join", "").Status)
	}
	other := job{Room: 5, Given: Given{From: 2, To: 1, Fen: 100, Ref: "5:2:k1"}, Added: time.Now().UnixMilli()}
	require.Error(t, c.finish(t.Context(), other, nil), "a rocket was paid for, no rose")
}

// Who was too poor may have the money later, for the same key: the gift is shown then,
// also if its server dies before, and once.
func TestPoorThenPaid(t *testing.T) {
	env := shoptest.Env(t)
	c, h, wallet := shop(t, env)
	call := shoptest.Caller(t, env, c)
	want := int64(0)
	for i, dies := range []bool{false, true} {
		give := func() int {
			return call(2, "POST /rooms/5/gifts", fmt.Sprintf(`{"gift":"rocket","key":"k%d"}`, i)).Status
		}
		_, err := wallet.Pay(t.Context(), 2, account.Platform, 50_000, "order", fmt.Sprint(i))
		require.NoError(t, err)
		require.Equal(t, 402, give())
		require.Zero(t, waiting(t, c))
		_, err = wallet.Pay(t.Context(), account.Outside, 2, 100_000, "recharge", fmt.Sprint("more ", i))
		require.NoError(t, err)
		h.down = dies
		if want += 50_000; dies {
			require.Equal(t, 500, give())
			h.down = false
			require.EqualValues(t, 1, waiting(t, c))
			paid := job{Room: 5, Given: Given{From: 2, To: 1, Fen: 50_000, Ref: fmt.Sprintf("5:2:k%d", i)}}
			require.NoError(t, c.finish(t.Context(), paid, nil))
		} else {
			require.Equal(t, 200, give())
			require.Zero(t, waiting(t, c))
		}
		require.Equal(t, want, h.gifts())
		sent := h.sent
		require.Equal(t, 200, give())
		require.Equal(t, sent, h.sent)
	}
}

func waiting(t *testing.T, c *Counter) int64 {
	t.Helper()
	st, err := c.jobs.Inspect(t.Context())
	require.NoError(t, err)
	return st.Waiting
}

package pk

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

// hall is one room, and hears what is announced in it.
type hall struct {
	room.Room
	mu     sync.Mutex
	frames []Bar
}

func (h *hall) GetOpen(context.Context, int64) (room.Room, error) { return h.Room, nil }

func (h *hall) Publish(_ context.Context, _ int64, _ string, d any, _ im.Class) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b, ok := d.(*Bar); ok {
		d = *b
	}
	h.frames = append(h.frames, d.(Bar))
	return nil
}

func (h *hall) name(_ context.Context, uid int64) (string, error) {
	return fmt.Sprint("user ", uid), nil
}

func pkRoom(t *testing.T, env *infra.Env) (*PK, *hall) {
	require.NoError(t, room.Migrate(t.Context(), env))
	_, err := env.DB.ExecContext(t.Context(), env.InsertNew("rooms", "id", "host", "title", "kind", "star", "opened_ms", "closed_ms"), 1, 7, "", room.PK, 0, 1, 0)
	require.NoError(t, err)
	h := &hall{Room: room.Room{ID: 1, Host: 7, Kind: room.PK, Open: true}}
	return New(env, h, h, h.name), h
}

func checked(t *testing.T, env *infra.Env, want string) {
	t.Helper()
	wrong, detail, err := Check(t.Context(), env)
	require.NoError(t, err)
	require.Empty(t, wrong)
	require.Equal(t, want, detail)
}

func TestPK(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		p, h := pkRoom(t, env)
		call := shoptest.Caller(t, env, p)
		gift := func(to, fen int64, key string) *Bar {
			require.NoError(t, p.Gift(t.Context(), 1, to, fen, key))
			b, err := p.Get(t.Context(), 1)
			require.NoError(t, err)
			return b
		}
		require.Nil(t, gift(7, 20_000, "early"))
		require.Equal(t, "own_room", call(7, "POST /rooms/1/pk/join", "").Code)
		var joined [20]int
		var all sync.WaitGroup
		for i := range joined {
			all.Go(func() { joined[i] = call(int64(100+i), "POST /rooms/1/pk/join", "").Status })
		}
		all.Wait()
		first := int64(0)
		for i, status := range joined {
			if status == 200 {
				require.Zero(t, first, "two challengers")
				first = int64(100 + i)
			} else {
				require.Equal(t, 409, status)
			}
		}
		require.NotZero(t, first)
		require.Equal(t, 200, call(first, "POST /rooms/1/pk/join", "").Status, "asked again, the first is still the first")

		b := gift(7, 20_000, "early")
		require.Equal(t, []int64{50, 50}, []int64{b.Left, b.Right}, "a gift from before the PK moves nothing when it comes again")
		b = gift(7, 20_000, "g1")
		require.Equal(t, []int64{70, 30}, []int64{b.Left, b.Right}, "200 yuan are 20")
		require.Equal(t, b, gift(7, 20_000, "g1"), "a gift that comes again moves nothing")
		require.Equal(t, b, gift(55, 20_000, "g2"), "a gift to somebody else moves nothing")
		b = gift(first, 1_050, "g3")
		require.Equal(t, []int64{68, 32}, []int64{b.Left, b.Right})
		checked(t, env, "1 rounds, 0 wins")

		var winning sync.WaitGroup
		for i := range 40 {
			winning.Go(func() {
				require.NoError(t, p.Gift(t.Context(), 1, []int64{7, first}[i%2], 60_000, fmt.Sprint("w", i%30)))
			})
		}
		winning.Wait()
		b, err := p.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, "won", b.State)
		require.Contains(t, []int64{7, first}, b.Winner)
		checked(t, env, "1 rounds, 1 wins")
		require.Equal(t, *b, gift2(t, p, 7, 1_000_000, "late"), "the end is the end")
		require.Equal(t, "taken", call(first, "POST /rooms/1/pk/join", "").Code, "the winner is seen for a while")
		for _, f := range h.frames {
			require.EqualValues(t, 100, f.Left+f.Right)
			require.Equal(t, []string{"user 7", fmt.Sprint("user ", first)}, []string{f.AName, f.BName})
		}
	})
}

func gift2(t *testing.T, p *PK, to, fen int64, key string) Bar {
	require.NoError(t, p.Gift(t.Context(), 1, to, fen, key))
	b, err := p.Get(t.Context(), 1)
	require.NoError(t, err)
	return *b
}

// A PK that nobody wins is drawn, and the next one begins at 50:50; gifts of the one
// before do not count in it.
func TestRounds(t *testing.T) {
	env := shoptest.Env(t)
	p, _ := pkRoom(t, env)
	call := shoptest.Caller(t, env, p)
	require.Equal(t, 200, call(8, "POST /rooms/1/pk/join", "").Status)
	require.EqualValues(t, 90, gift2(t, p, 7, 40_000, "g1").Left)
	require.NoError(t, env.Redis.HSet(t.Context(), keys(1)[0], "ends", time.Now().UnixMilli()-1).Err())
	require.Equal(t, "drawn", gift2(t, p, 8, 40_000, "g2").State)
	require.Equal(t, 200, call(9, "POST /rooms/1/pk/join", "").Status)
	for _, key := range []string{"g1", "g2"} {
		b := gift2(t, p, 7, 40_000, key)
		require.Equal(t, []int64{2, 50, 9}, []int64{b.Round, b.Left, b.B})
	}
	checked(t, env, "2 rounds, 0 wins")
}

// The check must see a PK that reads, thinks and writes, as one does without a script.
func TestCheckSeesNaive(t *testing.T) {
	env := shoptest.Env(t)
	p, _ := pkRoom(t, env)
	call := shoptest.Caller(t, env, p)
	k := keys(1)
	const fen = 50_000
	var read sync.WaitGroup // all read before any writes, as may happen
	naive := func(to int64) {
		ctx := t.Context()
		bar, err := env.Redis.HGetAll(ctx, k[0]).Result()
		require.NoError(t, err)
		read.Done()
		read.Wait()
		left, err := strconv.Atoi(bar["left"])
		require.NoError(t, err)
		if to == 7 {
			left = min(whole, left+fen)
		} else {
			left = max(0, left-fen)
		}
		if left == 0 || left == whole {
			require.NoError(t, env.Redis.RPush(ctx, k[2], bar["round"]+" "+fmt.Sprint(to)).Err())
		}
		require.NoError(t, env.Redis.HSet(ctx, k[0], "left", left, "right", whole-left, "state", "won", "winner", to).Err())
	}
	require.Equal(t, 200, call(8, "POST /rooms/1/pk/join", "").Status)
	var all sync.WaitGroup
	for i := range 2 {
		read.Add(1)
		all.Go(func() { naive([]int64{7, 8}[i]) })
	}
	all.Wait()
	wrong, _, err := Check(t.Context(), env)
	require.NoError(t, err)
	require.NotEmpty(t, wrong)

	// The two halves written one after the other, and a server that dies between.
	require.NoError(t, env.Redis.Del(t.Context(), k...).Err())
	require.Equal(t, 200, call(8, "POST /rooms/1/pk/join", "").Status)
	require.NoError(t, env.Redis.HIncrBy(t.Context(), k[0], "left", 1000).Err())
	wrong, _, err = Check(t.Context(), env)
	require.NoError(t, err)
	require.Len(t, wrong, 1)
}

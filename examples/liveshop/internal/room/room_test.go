package room

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

func name(_ context.Context, uid int64) (string, error) { return fmt.Sprint("user ", uid), nil }

// rooms returns the rooms of one server, on which nothing runs yet.
func rooms(t *testing.T, env *infra.Env) (*Rooms, *im.Hub) {
	t.Helper()
	hub, err := im.New(env, im.Options{Name: name, Enter: func(context.Context, int64, int64) error { return nil }})
	require.NoError(t, err)
	r, err := New(t.Context(), env, hub, name)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, r.Close(ctx))
	})
	return r, hub
}

func run(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

type page struct {
	Rooms []card
	Next  int64
}

// A room from its opening to its end.
func TestRoom(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		r, hub := rooms(t, env)
		var opened, closed []int64
		var mu sync.Mutex
		note := func(ids *[]int64) func(context.Context, Room) error {
			return func(_ context.Context, v Room) error {
				mu.Lock()
				defer mu.Unlock()
				*ids = append(*ids, v.ID)
				return nil
			}
		}
		r.OnOpen(note(&opened))
		r.OnClose(note(&closed))
		r.Part("shelf", func(_ context.Context, v Room, uid int64) (any, error) { return []int64{v.ID, uid}, nil })
		r.Part("broken", func(context.Context, Room, int64) (any, error) { return nil, errors.New("out of order") })
		r.partTimeout = 10 * time.Second
		r.News("feed", func(_ context.Context, uid int64) (any, error) { return fmt.Sprint("for ", uid), nil })
		stop := run(t, r.Run)
		call := shoptest.Caller(t, env, r)

		require.Equal(t, 401, call(0, "POST /rooms", `{"title":"x"}`).Status)
		require.Equal(t, 400, call(7, "POST /rooms", `{"title":"x","kind":"disco"}`).Status)
		require.Equal(t, 404, call(0, "GET /rooms/1", "").Status) // which is remembered, but must not last
		require.Equal(t, 200, call(0, "POST /admin/grants", `{"uid":7,"grant":"star"}`).Status)
		var v Room
		call(7, "POST /rooms", `{"title":" Shoes ","kind":"pk"}`).Into(t, &v)
		require.Equal(t, Room{ID: v.ID, Host: 7, Title: "Shoes", Kind: PK, Star: true, Open: true, Opened: v.Opened}, v)
		require.Equal(t, []int64{v.ID}, opened)
		var again Room
		call(7, "POST /rooms", `{"title":"Shoes"}`).Into(t, &again)
		require.Equal(t, v, again, "a second click opens no second room")
		require.Len(t, opened, 1)
		var own struct{ Room *Room }
		call(7, "GET /rooms/mine", "").Into(t, &own)
		require.Equal(t, &v, own.Room)
		call(8, "GET /rooms/mine", "").Into(t, &own)
		require.Nil(t, own.Room)
		var clicks sync.WaitGroup
		var got [8]Room
		for i := range got {
			clicks.Go(func() { call(5, "POST /rooms", `{"title":"Hats"}`).Into(t, &got[i]) })
		}
		clicks.Wait()
		for _, one := range got {
			require.Equal(t, got[0], one)
		}
		require.ElementsMatch(t, opened, append(closed, v.ID, got[0].ID), "what was prepared for rooms that did not come to be is taken back")

		var in struct {
			Room       Room
			Host       struct{ Name string }
			Shelf      []int64
			Broken     any
			Missing    []string
			Likes      int64
			Unread     int64
			ServerTime int64 `json:"server_time"`
		}
		path := fmt.Sprintf("/rooms/%d", v.ID)
		require.NoError(t, hub.Publish(t.Context(), v.ID, "gift", 1, im.Reliable))
		require.Equal(t, 200, call(8, "POST "+path+"/like", `{"n":3}`).Status)
		require.Equal(t, 400, call(8, "POST "+path+"/like", `{"n":21}`).Status)
		call(8, "GET "+path, "").Into(t, &in)
		require.Equal(t, v, in.Room)
		require.Equal(t, "user 7", in.Host.Name)
		require.Equal(t, []int64{v.ID, 8}, in.Shelf)
		require.Equal(t, []string{"broken"}, in.Missing)
		require.EqualValues(t, 3, in.Likes)
		require.Equal(t, 200, call(5, fmt.Sprintf("POST /rooms/%d/close", got[0].ID), "").Status)
		require.InDelta(t, time.Now().UnixMilli(), in.ServerTime, 60_000)

		var all page
		require.Eventually(t, func() bool {
			call(0, "GET /rooms?kind=pk", "").Into(t, &all)
			return len(all.Rooms) == 1 && all.Rooms[0].Likes == 3
		}, time.Minute, 10*time.Millisecond)
		require.Equal(t, "user 7", all.Rooms[0].HostName)
		require.Eventually(t, func() bool { // the hats were closed
			call(0, "GET /rooms?kind=normal", "").Into(t, &all)
			return len(all.Rooms) == 0
		}, time.Minute, 10*time.Millisecond)

		var news struct {
			Rooms map[string]int64
			Dots  map[string]dot
			Feed  string
		}
		require.Eventually(t, func() bool {
			call(8, "GET /unread", "").Into(t, &news)
			return news.Rooms[fmt.Sprint(v.ID)] == 1
		}, time.Minute, 10*time.Millisecond)
		require.Len(t, news.Rooms, 1)
		require.Equal(t, "for 8", news.Feed)
		require.True(t, news.Dots["live"].Lit)
		require.Equal(t, 200, call(8, "POST /unread/seen", fmt.Sprintf(`{"area":"live","at":%d}`, news.Dots["live"].Newest)).Status)
		news.Dots = nil
		call(8, "GET /unread", "").Into(t, &news)
		require.False(t, news.Dots["live"].Lit)

		var link struct{ Code, URL string }
		call(0, "POST "+path+"/share", "").Into(t, &link)
		first := link
		call(9, "POST "+path+"/share", "").Into(t, &link)
		require.Equal(t, first, link)
		a := call(0, "GET "+link.URL, "")
		require.Equal(t, 302, a.Status)
		require.Equal(t, []string{fmt.Sprintf("/?room=%d", v.ID)}, a.Header["Location"])
		require.Equal(t, 404, call(0, "GET /s/nothing", "").Status)

		require.Equal(t, 403, call(8, "POST "+path+"/close", "").Status)
		for range 2 {
			call(7, "POST "+path+"/close", "").Into(t, &v)
			require.False(t, v.Open)
		}
		require.Equal(t, "room_closed", call(8, "POST "+path+"/like", `{"n":1}`).Code)
		require.Eventually(t, func() bool {
			call(0, "GET /rooms", "").Into(t, &all)
			return len(all.Rooms) == 0
		}, time.Minute, 10*time.Millisecond)
		call(7, "POST /rooms", `{"title":"Shoes again"}`).Into(t, &again)
		require.NotEqual(t, v.ID, again.ID)
		stop()
	})
}

// A part that takes too long is left out.
func TestSlowPart(t *testing.T) {
	r, _ := rooms(t, shoptest.Env(t))
	r.partTimeout = time.Millisecond
	slow := func(ctx context.Context, _ Room, _ int64) (any, error) { <-ctx.Done(); return nil, ctx.Err() }
	fast := func(context.Context, Room, int64) (any, error) { return 1, nil }
	out := r.read(t.Context(), Room{}, 0, map[string]Part{"slow": slow, "fast": fast})
	require.Equal(t, map[string]any{"slow": nil, "fast": 1, "missing": []string{"slow"}}, out)
}

// A room whose shelf cannot be filled is not opened, and what was done for it is taken
// back: also when the time for it is over.
func TestOpenFails(t *testing.T) {
	env := shoptest.Env(t)
	r, _ := rooms(t, env)
	ctx, cancel := context.WithCancel(t.Context())
	var opened, closed []int64
	r.OnOpen(func(_ context.Context, v Room) error {
		opened = append(opened, v.ID)
		cancel()
		return errors.New("no stock")
	})
	r.OnClose(func(ctx context.Context, v Room) error {
		closed = append(closed, v.ID)
		return ctx.Err()
	})
	_, err := r.Open(ctx, 7, "Shoes", Normal)
	require.ErrorContains(t, err, "no stock")
	require.Len(t, opened, 1)
	require.Equal(t, opened, closed)
	live, err := r.live(t.Context())
	require.NoError(t, err)
	require.Empty(t, live)
}

// One process of three builds the list; another one goes on when it is gone. Pages are
// full, and readers never see half a list.
func TestListOfFleet(t *testing.T) {
	env := shoptest.Env(t)
	var fleet []*Rooms
	var stops []func()
	for range 3 {
		r, _ := rooms(t, shoptest.Open(t, infra.Config{Redis: env.Config.Redis, DB: env.Config.DB}, false))
		fleet = append(fleet, r)
	}
	for host := range int64(45) {
		_, err := fleet[0].Open(t.Context(), host+1, "Shoes", []string{Normal, PK}[host%2])
		require.NoError(t, err)
	}
	for _, r := range fleet {
		stops = append(stops, run(t, r.Run))
	}
	call := shoptest.Caller(t, env, fleet[0])
	turn := func() (sizes []int) {
		for next := int64(0); ; {
			var p page
			call(0, fmt.Sprintf("GET /rooms?page=%d", next), "").Into(t, &p)
			sizes = append(sizes, len(p.Rooms))
			if next = p.Next; next == 0 {
				return sizes
			}
		}
	}
	require.Eventually(t, func() bool { return len(turn()) == 3 }, time.Minute, 10*time.Millisecond)
	builders := func() (n int) {
		for _, r := range fleet {
			n += int(min(1, r.locks.Stats().Acquired))
		}
		return n
	}
	require.Equal(t, 1, builders())
	for range 50 {
		require.Equal(t, []int{20, 20, 5}, turn())
	}
	for i, r := range fleet {
		if r.locks.Stats().Acquired > 0 {
			stops[i]()
			break
		}
	}
	require.Eventually(t, func() bool { return builders() == 2 }, time.Minute, time.Millisecond)
	require.Equal(t, []int{20, 20, 5}, turn())
}

// Likes are shown in the room, at most once a second whatever their number.
func TestLikesAreShown(t *testing.T) {
	env := shoptest.Env(t)
	r, _ := rooms(t, env)
	said := &announcer{Messages: r.messages}
	r.messages = said
	r.building = builder{map[int64]int64{}, map[int64]int64{}}
	v, err := r.Open(t.Context(), 7, "Shoes", Normal)
	require.NoError(t, err)
	require.NoError(t, r.build(t.Context(), 1))
	for range 1000 {
		require.NoError(t, r.counts.Add(v.ID, "likes", 2))
	}
	require.NoError(t, r.build(t.Context(), 1))
	require.NoError(t, r.build(t.Context(), 1))
	require.Equal(t, []string{"like map[count:2000]"}, said.frames)
}

// What is unread counts for the room it was said in, however the list is sorted.
func TestUnreadOfEachRoom(t *testing.T) {
	r, hub := rooms(t, shoptest.Env(t))
	r.building = builder{map[int64]int64{}, map[int64]int64{}}
	var ids, want []int64
	for host := range int64(4) {
		v, err := r.Open(t.Context(), host+1, "Shoes", Normal)
		require.NoError(t, err)
		for range host {
			require.NoError(t, hub.Publish(t.Context(), v.ID, "gift", 1, im.Reliable))
		}
		ids, want = append(ids, v.ID), append(want, host)
	}
	require.NoError(t, r.build(t.Context(), 1))
	got, err := hub.Unread(t.Context(), 9, ids)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

type announcer struct {
	Messages
	frames []string
}

func (a *announcer) Publish(_ context.Context, _ int64, t string, d any, _ im.Class) error {
	a.frames = append(a.frames, fmt.Sprint(t, " ", d))
	return nil
}

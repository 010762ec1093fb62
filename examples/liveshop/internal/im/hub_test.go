package im

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/internal/redistest"
)

// Frames reach the room on every server, in one order, and no server without members.
func TestRooms(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		elsewhere := spy(t, rdb, "one", "two", "three")
		start(t, b.Client(), "three")

		a, c := one.viewer(1, 10), two.viewer(1, 11)
		other := two.viewer(2, 12)
		settle()
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				require.NoError(t, []*node{one, two}[i%2].Publish(t.Context(), 1, "gift", i, Reliable))
			})
		}
		all.Wait()
		settle()
		require.Len(t, a.of("gift"), 60)
		require.Equal(t, a.of("gift"), c.of("gift"))
		require.Empty(t, other.of("gift"))
		require.Zero(t, a.Report().Lost+c.Report().Lost)
		require.Equal(t, 60, c.Report().Reliable)

		n := elsewhere()
		require.Zero(t, n["three"], "a server without members of the room gets its frames")
		require.Equal(t, n["one"], n["two"])
		require.Less(t, n["one"], 40, "frames that are published together go to a server together: one by one they are 60")
		balanced(t, one, two)
	})
}

// spy counts the messages on the channels of servers.
func spy(t *testing.T, rdb redis.UniversalClient, servers ...string) (count func() map[string]int) {
	var names []string
	for _, s := range servers {
		names = append(names, channels+s)
	}
	sub := rdb.Subscribe(t.Context(), names...)
	t.Cleanup(func() { _ = sub.Close() })
	for range names {
		_, err := sub.Receive(t.Context())
		require.NoError(t, err)
	}
	ch := sub.Channel(redis.WithChannelSize(10_000))
	return func() map[string]int {
		n := map[string]int{}
		for {
			select {
			case m := <-ch:
				n[strings.TrimPrefix(m.Channel, channels)]++
			default:
				return n
			}
		}
	}
}

// Notes go together, and those that wait when the server ends still go.
func TestNotify(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		a := two.viewer(1, 10)
		for i := range 500 {
			one.Notify(10, "balance", i)
			one.Notify(11, "balance", i) // not connected
		}
		one.stop()
		settle()
		require.Len(t, a.of("balance"), 500)
		require.Equal(t, "499", a.of("balance")[499])
	})
}

// Sockets and servers that give no sign are gone after 15 s.
func TestPresence(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		k := keysOf(1)
		require.NoError(t, present.Run(t.Context(), rdb, []string{k.numbers, k.servers, k.online}, "dead", 5, gone.Milliseconds(), 1e6, 1e6).Err())
		a, c := one.viewer(1, 10), two.viewer(1, 11)
		settle()
		online, err := one.Online(t.Context(), 1)
		require.NoError(t, err)
		require.EqualValues(t, 7, online)
		time.Sleep(gone + heartbeat)
		settle()
		counts := a.of("online")
		require.Equal(t, `{"count":2}`, counts[len(counts)-1])

		c.silent.Store(true)
		time.Sleep(gone + 2*heartbeat)
		<-c.done
		settle()
		counts = a.of("online")
		require.Equal(t, `{"count":1}`, counts[len(counts)-1])
		a.leave()
		time.Sleep(2 * heartbeat)
		require.Zero(t, rdb.Exists(t.Context(), k.servers, k.online).Val())
		require.Empty(t, one.rooms)
		require.Empty(t, two.users)
	})
}

// A server that stops says so, lets clients have what is queued, and is forgotten.
func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		a := one.viewer(1, 10)
		stuck := one.viewer(1, 11, func(v *viewer) { v.pause = time.Hour })
		one.gifts(1, 1, 5)
		began := time.Now()
		one.stop()
		require.Less(t, time.Since(began), 5*time.Second)
		<-a.done
		require.Equal(t, []string{`{"reason":"server stops"}`}, a.of("bye"))
		require.True(t, websocket.IsCloseError(a.ends, websocket.CloseServiceRestart), a.ends)
		require.Zero(t, one.Counts().Sockets)
		require.Zero(t, b.Client().Exists(t.Context(), keysOf(1).servers).Val())
		a.connect(two)
		two.gifts(1, 6, 6)
		settle()
		require.Equal(t, numbers(1, 6), a.of("gift"))
		require.Zero(t, a.Report().Lost)
		time.Sleep(time.Hour)
		<-stuck.done
		balanced(t, one, two)
	})
}

// Who was let in a moment before is told, too.
func TestLeaveWhileASocketOpens(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		one := start(t, b.Client(faults.Options), "one")
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "getdel", Delay: time.Second})
		time.AfterFunc(time.Second/2, func() { one.Leave(t.Context()) })
		token, err := one.mint(t.Context(), ticket{10, "user 10", 1})
		require.NoError(t, err)
		d := websocket.Dialer{NetDialContext: one.wire.dial}
		conn, res, err := d.DialContext(t.Context(), "ws://shop/api/v1/ws?token="+token, nil)
		require.NoError(t, err)
		defer res.Body.Close()
		defer conn.Close()
		_, _, err = conn.ReadMessage()
		require.True(t, websocket.IsCloseError(err, websocket.CloseServiceRestart), err)
	})
}

// The same on servers, where scripts are not miniredis's and slots are real.
func TestOnServers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		require.NoError(t, rdb.Del(t.Context(), countsKey).Err())
		one, two := start(t, rdb, "one"), start(t, rdb, "two")
		const room = 77
		a, c := one.viewer(room, 10), two.viewer(room, 11)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		until := func(what string, ok func() bool) {
			t.Helper()
			require.Eventually(t, ok, time.Minute, time.Millisecond, what)
		}
		before := len(a.of("gift"))
		publishMany(one, room, 300)
		a.say(`{"t":"barrage","d":{"text":"hi"}}`)
		require.NoError(t, two.Tell(ctx, 10, "balance", 1))
		until("all frames", func() bool {
			return len(a.of("gift")) == before+300 && len(c.of("gift")) == 300 && len(c.of("barrage")) == 1 && len(a.of("balance")) == 1
		})
		c.leave()
		two.gifts(room, 300, 310)
		c.connect(one)
		until("resumed", func() bool { return len(c.of("gift")) == 311 && c.Report().Resumed == 1 })
		c.say(`{"t":"read","seq":5}`)
		standings, err := one.Standings(ctx, []int64{room, room + 1})
		require.NoError(t, err)
		require.GreaterOrEqual(t, standings[0].Seq, int64(312))
		require.Zero(t, standings[1])
		require.Zero(t, a.Report().Lost+c.Report().Lost)
		one.stop()
		two.stop()
		<-a.done
		wrong, detail, err := Check(ctx, &infra.Env{Redis: rdb})
		require.NoError(t, err)
		require.Empty(t, wrong)
		require.Contains(t, detail, "by 2 servers")
	})
}

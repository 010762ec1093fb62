package im

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
		require.Less(t, n["one"], 10, "frames that are published together go to a server together")
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

// A client that comes back gets what it missed, at any server, or is told that it
// does not.
func TestResume(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		a := one.viewer(1, 10)
		one.gifts(1, 1, 3)
		settle()
		a.leave()
		one.gifts(1, 4, 10)
		require.NoError(t, one.publish(t.Context(), 1, barrage, 99, "barrage", said{99, "x", "hi"}))
		one.gifts(1, 11, 11)
		a.connect(two)
		settle()
		one.gifts(1, 12, 12)
		settle()
		require.Equal(t, numbers(1, 12), a.of("gift"))
		require.Len(t, a.of("barrage"), 1)
		r := a.Report()
		require.Equal(t, []int{1, 0, 0, 0}, []int{r.Resumed, r.StartOver, r.Lost, r.Again}, "%+v", r)

		// Away for too long.
		a.leave()
		for i := range logged/100 + 1 {
			var all sync.WaitGroup
			for j := range 100 {
				all.Go(func() { one.gifts(1, 100+i*100+j, 100+i*100+j) })
			}
			all.Wait()
		}
		a.connect(one)
		settle()
		require.Equal(t, 1, a.Report().StartOver)
		one.gifts(1, 1, 1)
		settle()
		require.Zero(t, a.Report().Lost)

		// Redis lost everything: numbers begin again, and the old ones mean nothing.
		a.leave()
		require.NoError(t, rdb.FlushAll(t.Context()).Err())
		time.Sleep(time.Second)
		a.connect(one)
		settle()
		require.Equal(t, 2, a.Report().StartOver)
		one.gifts(1, 2, 2)
		settle()
		require.Zero(t, a.Report().Lost)
		balanced(t, one, two)
	})
}

// Redis forgets the numbers while clients are connected: they are told to load again.
func TestNumbersLost(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		a := one.viewer(1, 10)
		one.gifts(1, 1, 3)
		require.NoError(t, b.Client().FlushAll(t.Context()).Err())
		time.Sleep(heartbeat + time.Second)
		settle()
		require.Equal(t, 1, a.Report().StartOver)
		one.gifts(1, 4, 5)
		settle()
		require.Equal(t, numbers(1, 5), a.of("gift"))
		require.Zero(t, a.Report().Lost)
	})
}

// A failover forgets the last numbers, and they are given out again: nobody takes the
// new frames for the old ones.
func TestNumbersGoBack(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		a, away := two.viewer(1, 10), two.viewer(1, 11)
		one.gifts(1, 1, 5)
		settle()
		away.leave()
		require.NoError(t, rdb.HSet(t.Context(), keysOf(1).numbers, "seq", 2, "tail", 2).Err())
		require.NoError(t, rdb.ZRemRangeByScore(t.Context(), keysOf(1).log, "3", "+inf").Err())
		time.Sleep(2*heartbeat + time.Second)
		settle()
		require.NotZero(t, a.Report().StartOver)
		one.gifts(1, 6, 12)
		settle()
		require.Equal(t, numbers(1, 12), a.of("gift"))
		away.connect(one)
		settle()
		require.Equal(t, 1, away.Report().StartOver, "it resumed from a number that means another frame now")
		require.Zero(t, a.Report().Lost+away.Report().Lost)
	})
}

// Pub/sub loses what it likes; the log has it.
func TestLostMessages(t *testing.T) {
	// lose publishes gift n in a way that server two does not hear of it.
	lose := func(t *testing.T, rdb redis.UniversalClient, one *node, n int) {
		servers := keysOf(1).servers
		score, err := rdb.ZScore(t.Context(), servers, "two").Result()
		require.NoError(t, err)
		require.NoError(t, rdb.ZRem(t.Context(), servers, "two").Err())
		one.gifts(1, n, n)
		require.NoError(t, rdb.ZAdd(t.Context(), servers, redis.Z{Score: score, Member: "two"}).Err())
	}
	bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		one, two := start(t, b.Client(), "one"), start(t, b.Client(), "two")
		a := two.viewer(1, 10)
		one.gifts(1, 1, 1)
		lose(t, rdb, one, 2)
		settle()
		require.Equal(t, numbers(1, 1), a.of("gift"))
		one.gifts(1, 3, 3) // shows the gap
		settle()
		require.Equal(t, numbers(1, 3), a.of("gift"))

		lose(t, rdb, one, 4) // the last one: only the report shows it
		time.Sleep(heartbeat + time.Second)
		settle()
		require.Equal(t, numbers(1, 4), a.of("gift"))
		require.Zero(t, a.Report().Lost)
		require.EqualValues(t, 2, two.Counts().Repairs)

		lose(t, rdb, one, 5) // and the log has it no more
		require.NoError(t, rdb.Del(t.Context(), keysOf(1).log).Err())
		one.gifts(1, 6, 7)
		settle()
		require.Equal(t, 1, a.Report().StartOver)
		require.Zero(t, a.Report().Lost)
		require.Equal(t, append(numbers(1, 4), "6", "7"), a.of("gift"))
		balanced(t, one, two)
	})
	t.Run("naive", func(t *testing.T) { // a server that trusts pub/sub
		bubble(t, func(t *testing.T, b *redistest.Env) {
			one := start(t, b.Client(), "one")
			two := start(t, b.Client(), "two", func(h *Hub) { h.repairs = false })
			a := two.viewer(1, 10)
			one.gifts(1, 1, 1)
			lose(t, b.Client(), one, 2)
			one.gifts(1, 3, 3)
			settle()
			require.Equal(t, 1, a.Report().Lost, "the check does not see a lost frame")
		})
	})
}

// The connection of the subscription breaks: what was published meanwhile comes.
func TestSubscriptionBreaks(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		var mu sync.Mutex
		var conns []net.Conn
		var cut atomic.Bool
		record := func(o *redis.Options) {
			dial := o.Dialer
			o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if cut.Load() {
					return nil, errors.New("no network")
				}
				c, err := dial(ctx, network, addr)
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, c)
				return c, err
			}
		}
		one, two := start(t, b.Client(), "one"), start(t, b.Client(record), "two")
		a := two.viewer(1, 10)
		one.gifts(1, 1, 1)
		settle()
		cut.Store(true)
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		one.gifts(1, 2, 5)
		settle()
		require.Equal(t, numbers(1, 1), a.of("gift"))
		cut.Store(false)
		time.Sleep(20 * time.Second)
		settle()
		require.Equal(t, numbers(1, 5), a.of("gift"))
		require.Zero(t, a.Report().Lost)
		require.NotZero(t, two.Counts().Repairs)
	})
}

// A socket that does not read is closed; the others notice nothing, and it resumes.
func TestSlowSocket(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		fast, slow := one.viewer(1, 10), one.viewer(1, 11)
		one.gifts(1, -2, -2)
		settle()
		slow.mu.Lock()
		slow.pause = time.Hour
		slow.mu.Unlock()
		one.gifts(1, -1, -1) // the last one before the pause
		began := time.Now()
		publishMany(one, 1, backlog+200)
		settle()
		require.Less(t, time.Since(began), time.Second, "the others waited for the slow one")
		require.Len(t, fast.of("gift"), backlog+202)
		require.Zero(t, fast.Report().Lost)
		c := one.Counts()
		require.EqualValues(t, 1, c.Evicted, "%+v", c)
		require.EqualValues(t, 1, c.Sockets)
		require.NotZero(t, c.Left)
		balanced(t, one)

		time.Sleep(time.Hour)
		<-slow.done
		slow.pause = 0
		slow.connect(one)
		settle()
		require.Equal(t, fast.of("gift"), slow.of("gift"))
		require.Zero(t, slow.Report().Lost)
		require.Equal(t, 1, slow.Report().Resumed)
		balanced(t, one)
	})
	t.Run("naive", func(t *testing.T) { // a queue that drops what does not fit
		bubble(t, func(t *testing.T, b *redistest.Env) {
			one := start(t, b.Client(), "one", func(h *Hub) {
				h.policy = func(q []item, waiting, limit int, it item) ([]item, int, outcome) {
					if waiting >= limit {
						return q, 0, dropped
					}
					return append(q, it), 0, taken
				}
			})
			slow := one.viewer(1, 11, func(v *viewer) { v.pause = time.Second; v.deaf = true })
			publishMany(one, 1, backlog+200)
			slow.mu.Lock()
			slow.pause = 0
			slow.mu.Unlock()
			time.Sleep(2 * time.Second)
			one.gifts(1, 0, 0)
			settle()
			require.Equal(t, 1, slow.Report().Lost, "the check does not see what the queue dropped")
		})
	})
}

func publishMany(n *node, room int64, count int) {
	for i := 0; i < count; i += perCall {
		var all sync.WaitGroup
		for j := i; j < min(i+perCall, count); j++ {
			all.Go(func() { n.gifts(room, j, j) })
		}
		all.Wait()
	}
}

// Too many barrages are sampled: for all but who wrote them, and never gifts.
func TestSampling(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		reader, writer := one.viewer(1, 10), one.viewer(1, 11)
		for i := range 5 * perRoom {
			require.NoError(t, one.publish(t.Context(), 1, barrage, 11, "barrage", said{11, "w", fmt.Sprint(i)}))
			if i%10 == 0 {
				one.gifts(1, i, i)
			}
		}
		settle()
		require.Len(t, writer.of("barrage"), 5*perRoom)
		require.Len(t, reader.of("barrage"), perRoom)
		require.Len(t, reader.of("gift"), perRoom/2)
		c := one.Counts()
		require.EqualValues(t, 4*perRoom, c.Sampled)
		time.Sleep(heartbeat)
		settle()
		require.Equal(t, []string{fmt.Sprintf(`{"n":%d}`, 4*perRoom)}, reader.of("sampled"))
		require.Empty(t, writer.of("sampled"))
		last, err := one.Last(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, last, stored)
		require.Contains(t, string(last[stored-1]), fmt.Sprintf(`"text":"%d"`, 5*perRoom-1))
		balanced(t, one)
	})
}

// A hub that forgets to count what it drops is seen by the check.
func TestCheckSeesUncounted(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one", func(h *Hub) {
			h.policy = func(q []item, waiting, _ int, it item) ([]item, int, outcome) {
				if waiting > 0 {
					return q, 0, taken // it is not
				}
				return append(q, it), 0, taken
			}
		})
		one.viewer(1, 10, func(v *viewer) { v.pause = time.Second })
		one.gifts(1, 1, 5)
		settle()
		one.sayCounts(t.Context())
		wrong, _, err := Check(t.Context(), &infra.Env{Redis: one.rdb})
		require.NoError(t, err)
		require.Len(t, wrong, 1)
	})
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

// A reliable frame that is not acknowledged comes once more, after two seconds.
func TestAcknowledge(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		good, deaf := one.viewer(1, 10), one.viewer(1, 11, func(v *viewer) { v.deaf = true })
		one.gifts(1, 1, 1)
		require.NoError(t, one.Publish(t.Context(), 1, "like", 5, Sampled))
		require.NoError(t, one.Tell(t.Context(), 11, "balance", map[string]int{"fen": 7}))
		settle()
		require.Len(t, deaf.of("balance"), 1)
		time.Sleep(retry - time.Millisecond)
		settle()
		require.Zero(t, deaf.Report().Again)
		time.Sleep(time.Millisecond)
		settle()
		require.Equal(t, 2, deaf.Report().Again, "the gift and the balance")
		time.Sleep(time.Minute)
		settle()
		require.Equal(t, 2, deaf.Report().Again)
		require.Zero(t, good.Report().Again)
		c := one.Counts()
		require.Equal(t, []int64{2, 2}, []int64{c.Retried, c.Unacked})

		publishMany(one, 1, 100) // who is silent is not buried
		time.Sleep(retry + time.Millisecond)
		settle()
		require.Equal(t, 2+reminders, deaf.Report().Again)
		last, err := one.logged(t.Context(), 1, 100)
		require.NoError(t, err)
		deaf.say(`{"t":"ack","id":%q}`, last[0].id) // which covers the earlier ones
		time.Sleep(time.Minute)
		settle()
		require.Equal(t, 2+reminders, deaf.Report().Again)

		publishMany(one, 1, 2*backlog) // nor is the server, nor thrown out who reads
		settle()
		require.EqualValues(t, 2, one.Counts().Sockets)
		one.mu.Lock()
		for s := range one.sockets {
			require.LessOrEqual(t, len(s.owed), backlog)
		}
		one.mu.Unlock()
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

// What a client may send.
func TestClients(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		quiet := false
		one := start(t, b.Client(), "one", func(h *Hub) { h.opts.Barrage = func() bool { return !quiet } })
		a, c := one.viewer(1, 10), one.viewer(1, 11)
		a.say(`{"t":"ping"}`)
		a.say(`{"t":"barrage","d":{"text":" Ｃａ-s.i n o! "}}`)
		a.say(`not json`)
		a.say(`{"t":"barrage","d":{"text":"%s"}}`, strings.Repeat("x", longest+1))
		a.say(`{"t":"barrage","d":{"text":"two"}}`)
		a.say(`{"t":"barrage","d":{"text":"three"}}`)
		settle()
		require.Len(t, a.of("pong"), 1)
		require.Equal(t, []string{`{"uid":10,"name":"user 10","text":"**********!"}`, `{"uid":10,"name":"user 10","text":"two"}`}, c.of("barrage"))
		require.Equal(t, []string{`{"text":"too long"}`, `{"text":"slow down"}`}, a.of("system"))
		quiet = true
		a.say(`{"t":"barrage","d":{"text":"four"}}`)
		settle()
		require.Contains(t, a.of("system"), `{"text":"barrage is switched off"}`)
		require.Len(t, c.of("barrage"), 2)
		c.say(`{"t":"barrage","d":{"text":"%s"}}`, strings.Repeat("x", largestFrame))
		<-c.done
		for range 20 {
			_ = a.write(`{"t":"ping"}`)
		}
		<-a.done
	})
}

// A token opens one connection, within 30 s; other people's pages open none.
func TestTokens(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		v := &viewer{Follower: &Follower{}, t: t, uid: 1, room: 1}
		require.ErrorContains(t, v.dial(one, http.Header{"Origin": {"https://evil.example"}}), "status 403")
		require.NoError(t, v.dial(one, http.Header{"Origin": {"http://shop"}}))

		token, err := one.mint(t.Context(), ticket{1, "x", 1})
		require.NoError(t, err)
		_, err = one.redeem(t.Context(), token)
		require.NoError(t, err)
		_, err = one.redeem(t.Context(), token)
		require.ErrorIs(t, err, errToken)
		token, err = one.mint(t.Context(), ticket{1, "x", 1})
		require.NoError(t, err)
		time.Sleep(tokenTTL + time.Second)
		_, err = one.redeem(t.Context(), token)
		require.ErrorIs(t, err, errToken)
	})
}

// Receipts: who read what, of those who were there.
func TestReceipts(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		a, c := one.viewer(1, 10), one.viewer(1, 11)
		one.gifts(1, 1, 5)
		settle()
		a.say(`{"t":"read","seq":3}`)
		c.say(`{"t":"read","seq":1000}`) // more than there is
		settle()
		for seq, want := range map[int]int{1: 2, 3: 2, 4: 1, 5: 1, 6: 0} {
			n, err := one.receipts.Count(t.Context(), Conversation(1), seq, 2)
			require.NoError(t, err)
			require.Equal(t, want, n, "message %d", seq)
		}
		require.NoError(t, one.Sent(t.Context(), 1, 5))
		n, err := one.Unread(t.Context(), 10, []int64{1, 2})
		require.NoError(t, err)
		require.Equal(t, []int64{2, 0}, n)
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

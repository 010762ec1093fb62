package im

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

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

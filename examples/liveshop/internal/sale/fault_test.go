package sale

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/internal/redistest"
)

// A rush is buyers who come one after the other, eight at a time, until it is stopped.
type rush struct {
	*crowd
	ctx    context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup
	people atomic.Int64 // who had their turn
}

// newRush sends people, each once, to buy one unit. One in ten forgets to pay.
func newRush(t *testing.T, c *crowd, people []int64) *rush {
	r := &rush{crowd: c}
	r.ctx, r.end = context.WithTimeout(t.Context(), patience)
	t.Cleanup(r.end)
	for range 8 {
		r.wg.Go(func() {
			for r.ctx.Err() == nil {
				n := r.people.Add(1) - 1
				if n >= int64(len(people)) {
					return
				}
				err := c.buy(r.ctx, people[n], n%10 == 9)
				if e := new(api.Error); err != nil && r.ctx.Err() == nil && !errors.As(err, &e) {
					t.Error(err)
				}
				pause(r.ctx, time.Duration(rand.IntN(4))*time.Millisecond)
			}
		})
	}
	return r
}

func (r *rush) paidSoFar() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.paid)
}

// finish waits for the last buyer, and until all orders met their end in SQL.
func (r *rush) finish(t *testing.T, sh *shop) {
	t.Helper()
	r.wg.Wait()
	require.NoError(t, r.ctx.Err(), "it took too long")
	eventually(t, "all orders met their end in SQL", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'pending'") == 0 &&
			sh.number(t, "SELECT COUNT(*) FROM payments WHERE state = 'begun' AND EXISTS (SELECT 1 FROM wallet_log l WHERE l.kind = 'order' AND l.ref = payments.order_id)") == 0
	})
	t.Logf("%d orders, %d paid for, %d acknowledged and lost", r.placed.Load(), r.paidSoFar(), r.lost.Load())
}

// allPaid demands that every order whose buyer was told "paid" is so in SQL.
func (r *rush) allPaid(t *testing.T, sh *shop) {
	t.Helper()
	states := map[int64]string{}
	rows, err := sh.env.DB.QueryContext(t.Context(), "SELECT order_id, state FROM orders")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		var state string
		require.NoError(t, rows.Scan(&id, &state))
		states[id] = state
	}
	require.NoError(t, rows.Err())
	for id := range r.paid {
		require.Equal(t, Paid, states[id], "order %d", id)
	}
}

const rushHold = time.Second

// SQL is away in the middle. Orders are taken meanwhile; payments wait for it.
func TestSQLAway(t *testing.T) {
	t.Parallel()
	away := time.Second
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		away = 10 * time.Second
	}
	env := shoptest.Env(t)
	g := gated(t, env)
	sh := newShop(t, env, Options{Hold: away + 3*time.Second})
	sh.opened(t, 1, Product{SKU: "tea", Total: 1000})
	u := sh.users(t, 300, 1000)
	r := newRush(t, newCrowd(1, "tea", sh), u[:200])
	eventually(t, "the sale is on", func() bool { return r.paidSoFar() > 20 })

	g.away.Store(true)
	began := time.Now()
	for _, uid := range u[200:] {
		_, err := sure(t.Context(), func() (Placed, error) { return sh.order(t.Context(), uid, 1, Line{"tea", 1}) })
		require.NoError(t, err, "an order needs no SQL")
	}
	_, err := sh.History(t.Context(), u[0])
	require.ErrorIs(t, err, errAway)
	pause(t.Context(), away-time.Since(began))
	before := r.paidSoFar()
	g.away.Store(false)

	r.finish(t, sh)
	r.allPaid(t, sh)
	require.Zero(t, r.lost.Load())
	require.Equal(t, int64(300), sh.number(t, "SELECT COUNT(*) FROM orders"))
	require.Greater(t, r.paidSoFar(), before)
	holds(t, env)
}

// Redis is killed and comes back with its append-only file: who was told yes has it.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	p := redistest.Server(t, "--appendonly", "yes", "--appendfsync", "always")
	env := shoptest.Open(t, infra.Config{Redis: p.Addr()}, false)
	sh := newShop(t, env, Options{Hold: rushHold})
	sh.opened(t, 1, Product{SKU: "tea", Total: 150})
	r := newRush(t, newCrowd(1, "tea", sh), sh.users(t, 400, 1000))
	for kill := range 2 {
		eventually(t, "the sale is on", func() bool { return r.paidSoFar() > 40*(kill+1) })
		p.Kill()
		_, err := sh.order(t.Context(), 1, 1, Line{"tea", 1})
		require.Equal(t, http.StatusServiceUnavailable, api.Failure(err).Status, "%v", err)
		require.NoError(t, p.Restart(t.Context()))
	}
	r.finish(t, sh)
	r.allPaid(t, sh)
	require.Zero(t, r.lost.Load())
	holds(t, env)
}

// Redis loses everything, or one of three masters does. The sale closes until it is
// rebuilt from SQL; nothing that SQL has is lost or sold again.
func TestFlushAll(t *testing.T) {
	t.Parallel()
	embedded := func(t *testing.T) *infra.Env { return shoptest.Env(t) }
	for _, where := range []struct {
		name string
		star bool
		open func(t *testing.T) *infra.Env
	}{
		{"embedded", false, embedded},
		{"server", false, func(t *testing.T) *infra.Env {
			return shoptest.Open(t, infra.Config{Redis: redistest.Server(t).Addr()}, false)
		}},
		{"star", true, embedded},
		{"star, one master", true, ofThree},
	} {
		t.Run(where.name, func(t *testing.T) {
			t.Parallel()
			flushed(t, where.open(t), where.star)
		})
	}
}

func flushed(t *testing.T, env *infra.Env, star bool) {
	sh := newShop(t, env, Options{Hold: 6 * time.Second})
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 150}, Product{SKU: "cup", Total: 10})
	u := sh.users(t, 401, 1000)
	r := newRush(t, newCrowd(1, "tea", sh), u[:400])
	eventually(t, "the sale is on", func() bool { return r.paidSoFar() > 50 })
	held, err := sh.order(t.Context(), u[400], 1, Line{"cup", 9})
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM orders WHERE order_id = ?", held.OrderID) == 1
	})
	require.NoError(t, env.Redis.FlushAll(t.Context()).Err())
	eventually(t, "the sale is open again", func() bool {
		_, err := sh.order(t.Context(), u[400], 1, Line{"cup", 1})
		return err == nil
	})
	var receipt Receipt
	inTime := func() bool { return time.Now().UnixMilli() < held.Expires }
	eventually(t, "SQL had the order, and it can be paid for", func() bool {
		receipt, err = sh.Pay(t.Context(), u[400], held.OrderID)
		return err == nil || !inTime()
	})
	if receipt.State != Paid {
		require.False(t, inTime(), "%+v, %v", receipt, err)
		t.Log("this machine was so busy that the hold was over first")
	}
	r.finish(t, sh)
	sold := sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'paid' AND order_id <> ?", held.OrderID)
	require.LessOrEqual(t, sold, int64(150))
	require.Greater(t, sold, int64(50))
	holds(t, env)
}

// Until the stock is rebuilt nothing is sold, whoever opens the room again or looks
// after its stock: what SQL knows of is not loaded anew.
func TestClosedUntilRebuilt(t *testing.T) { both(t, closedUntilRebuilt) }

func closedUntilRebuilt(t *testing.T, star bool) {
	env := shoptest.Env(t)
	sh := newShop(t, env, Options{})
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 3})
	u := sh.users(t, 1, 1000)
	_, err := sh.order(t.Context(), u[0], 1, Line{"tea", 3})
	require.NoError(t, err)
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	sh.stop()

	cfg := env.Config
	cfg.Server = "s2"
	late := shoptest.Open(t, cfg, false)
	idle, err := New(t.Context(), late, sh.accounts.Wallet, sh.heard, Options{}) // it does not run
	require.NoError(t, err)
	require.NoError(t, env.Redis.FlushAll(t.Context()).Err())
	require.NoError(t, idle.Open(t.Context(), 1, hostOf(1), star))
	require.NoError(t, idle.writeFigures(t.Context()))
	id, err := idle.Token(t.Context(), u[0])
	require.NoError(t, err)
	_, err = idle.Place(t.Context(), u[0], id, 1, []Line{{"tea", 1}})
	require.ErrorIs(t, err, errRepairing)
	require.NoError(t, idle.Close(t.Context()))

	cfg.Server = "s3"
	last := newShop(t, shoptest.Open(t, cfg, false), Options{})
	eventually(t, "it is sold out again", func() bool {
		_, err := last.Place(t.Context(), u[0], id, 1, []Line{{"tea", 1}})
		return err != nil && api.Failure(err).Code == "sold_out"
	})
	holds(t, env)
}

// ofThree is a Cluster of three masters, of the test's own.
func ofThree(t *testing.T) *infra.Env {
	var addrs []string
	for _, node := range redistest.Cluster(t, 3, 0).Nodes() {
		addrs = append(addrs, node.Addr())
	}
	return shoptest.Open(t, infra.Config{Cluster: strings.Join(addrs, ",")}, false)
}

// Three masters: no two keys of one call are in two slots; and a star's sale is on each.
func TestClusterOfThree(t *testing.T) {
	t.Parallel()
	env := ofThree(t)
	sh := newShop(t, env, Options{Hold: rushHold})
	sh.opened(t, 1, Product{SKU: "tea", Total: 50}, Product{SKU: "cup", Total: 1})
	sh.opens(t, 2, true, Product{SKU: "pot", Total: 50})
	u := sh.users(t, 240, 1000)
	for _, r := range []*rush{newRush(t, newCrowd(1, "tea", sh), u[:120]), newRush(t, newCrowd(2, "pot", sh), u[120:])} {
		r.finish(t, sh)
		r.allPaid(t, sh)
		require.Zero(t, r.lost.Load())
		require.GreaterOrEqual(t, r.paidSoFar(), 45)
	}
	var mu sync.Mutex
	var shares []string
	buckets, err := sh.buckets(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, starBuckets, buckets)
	err = env.Redis.(*redis.ClusterClient).ForEachMaster(t.Context(), func(ctx context.Context, master *redis.Client) error {
		keys, err := master.Keys(ctx, "liveshop:stock1:{room-2%b3*}:journal").Result()
		mu.Lock()
		defer mu.Unlock()
		shares = append(shares, keys...)
		if len(keys) != 1 {
			t.Errorf("one master has %v", keys)
		}
		return err
	})
	require.NoError(t, err)
	require.Len(t, shares, starBuckets)
	holds(t, env)
}

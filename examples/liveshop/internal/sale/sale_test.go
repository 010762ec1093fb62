package sale

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// All that talks to Redis and SQL, on each kind of them. The parts share a server, which
// takes a second to stop; each has a room of its own.
func TestEverywhere(t *testing.T) {
	t.Parallel()
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		d := &depot{left: map[string]int64{"far": 3}}
		sh := newShop(t, env, Options{Warehouse: d})
		t.Run("orders reach SQL", func(t *testing.T) { ordersReachSQL(t, sh) })
		t.Run("carts", func(t *testing.T) { carts(t, sh) })
		t.Run("products", func(t *testing.T) { products(t, sh) })
		t.Run("figures and repairs", func(t *testing.T) { figuresAndRepairs(t, sh) })
		t.Run("stock elsewhere", func(t *testing.T) { stockElsewhere(t, sh, d) })
		t.Run("coupons", func(t *testing.T) { coupons(t, sh) })
		t.Run("coupons at once", func(t *testing.T) { couponsAtOnce(t, sh) })
		t.Run("payments that are poor", func(t *testing.T) { poorPayments(t, sh) })
		t.Run("abandoned sales", func(t *testing.T) { abandoned(t, sh) })
		holds(t, env)
	})
}

// From the order to the rows in SQL.
func ordersReachSQL(t *testing.T, sh *shop) {
	sh.opened(t, 1, Product{SKU: "tea", Total: 3, Fen: 100}, Product{SKU: "cup", Total: 1, Fen: 250})
	u := sh.users(t, 2, 1000)
	ctx := t.Context()

	p, err := sh.order(ctx, u[0], 1, Line{"tea", 2}, Line{"cup", 1})
	require.NoError(t, err)
	require.Equal(t, Pending, p.State)
	require.Equal(t, int64(450), p.Fen)
	require.Empty(t, p.Failed)
	require.InDelta(t, time.Now().Add(15*time.Minute).UnixMilli(), p.Expires, 60_000)
	again, err := sh.Place(ctx, u[0], p.OrderID, 1, []Line{{"cup", 1}, {"tea", 2}})
	require.NoError(t, err, "the second click, with its lines in another order")
	require.Equal(t, p, again)

	part, err := sh.order(ctx, u[1], 1, Line{"tea", 1}, Line{"cup", 1})
	require.NoError(t, err)
	require.Equal(t, []Priced{{Line{"tea", 1}, goods{"tea", 100}}}, part.Items)
	require.Equal(t, []Priced{{Line{"cup", 1}, goods{"cup", 250}}}, part.Failed)

	r, err := sh.Pay(ctx, u[0], p.OrderID)
	require.NoError(t, err)
	require.Equal(t, Receipt{p.OrderID, Paid, 450, 550}, r)
	r, err = sh.Pay(ctx, u[0], p.OrderID)
	require.NoError(t, err, "paid twice is paid once")
	require.Equal(t, Receipt{p.OrderID, Paid, 450, 550}, r)
	_, err = sh.Pay(ctx, u[1], p.OrderID)
	require.ErrorIs(t, err, errNoOrder, "somebody else's")

	eventually(t, "the orders are in SQL", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'paid'") == 1 &&
			sh.number(t, "SELECT COUNT(*) FROM orders WHERE state = 'pending'") == 1
	})
	orders, err := sh.History(ctx, u[0])
	require.NoError(t, err)
	require.Len(t, orders, 1)
	require.Equal(t, Paid, orders[0].State)
	require.Equal(t, int64(450), orders[0].Fen)
	require.Equal(t, p.Items, orders[0].Items)
	require.NotZero(t, orders[0].PaidAt)
	require.Equal(t, int64(1), sh.number(t, "SELECT COUNT(*) FROM payments WHERE state = 'taken'"))

	eventually(t, "both sell-outs are announced", func() bool { return len(sh.heard.frames("tea"))+len(sh.heard.frames("cup")) == 2 })
	offers, err := sh.Offers(ctx, 1)
	require.NoError(t, err)
	for _, f := range append(sh.heard.frames("tea"), sh.heard.frames("cup")...) {
		require.Zero(t, f.Left)
		require.Positive(t, f.Version)
	}
	require.Len(t, offers, 2)
}

func carts(t *testing.T, sh *shop) {
	sh.opened(t, 2, Product{SKU: "pear", Total: 5, Fen: 10}, Product{SKU: "apple", Total: 5, Fen: 20})
	u := sh.users(t, 1, 1000)[0]
	ctx := t.Context()
	_, err := sh.PutCart(ctx, u, 2, Line{"pot", 1})
	refused(t, err, "not_found")
	_, err = sh.PutCart(ctx, u, 2, Line{"pear", -1})
	refused(t, err, "bad_request")
	for _, line := range []Line{{"pear", 2}, {"apple", 1}, {"pear", 3}} {
		_, err = sh.PutCart(ctx, u, 2, line)
		require.NoError(t, err)
	}
	lines, err := sh.Cart(ctx, u, 2)
	require.NoError(t, err)
	require.Equal(t, []Priced{{Line{"apple", 1}, goods{"apple", 20}}, {Line{"pear", 3}, goods{"pear", 10}}}, lines)
	require.Positive(t, sh.env.Redis.TTL(ctx, cartKey(2, u)).Val())

	_, err = sh.order(ctx, u, 2, Line{"pear", 3})
	require.NoError(t, err)
	lines, err = sh.Cart(ctx, u, 2)
	require.NoError(t, err)
	require.Len(t, lines, 1, "what was ordered is not in the cart any more")
	lines, err = sh.PutCart(ctx, u, 2, Line{"apple", 0})
	require.NoError(t, err)
	require.Empty(t, lines)
}

func products(t *testing.T, sh *shop) {
	ctx := t.Context()
	tea := Product{SKU: "oolong", Host: hostOf(3), Title: "Tea", Fen: 100, Total: 2, PerUser: 2}
	for _, wrong := range []func(*Product){
		func(p *Product) { p.SKU = "Tea" }, func(p *Product) { p.Fen = 0 }, func(p *Product) { p.Total = -1 },
		func(p *Product) { p.Title = "" }, func(p *Product) { p.Host = 0 }, func(p *Product) { p.Opens, p.Closes = 2, 1 },
	} {
		p := tea
		wrong(&p)
		_, err := sh.Register(ctx, p)
		refused(t, err, "bad_request")
	}
	for range 2 {
		p, err := sh.Register(ctx, tea)
		require.NoError(t, err)
		require.Equal(t, int64(1), p.Version)
	}
	other := tea
	other.Title = "Another"
	_, err := sh.Register(ctx, other)
	refused(t, err, "sku_taken")
	other.SKU, other.PerUser = "mug", 3
	_, err = sh.Register(ctx, other)
	refused(t, err, "per_user_differs")

	// Of many who change the same version one succeeds, and the others see what it did.
	tea.Version = 1
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 8 {
		wg.Go(func() {
			p := tea
			p.Fen = 120
			_, err := sh.Update(ctx, p)
			if err == nil {
				mu.Lock()
				done++
				mu.Unlock()
				return
			}
			refused(t, err, "stale")
		})
	}
	wg.Wait()
	require.Equal(t, 1, done)
	tea.Fen, tea.Version = 120, 2

	sh.live(t, 3)
	require.NoError(t, sh.Open(ctx, 3, hostOf(3), false))
	require.NoError(t, sh.Open(ctx, 3, hostOf(3), false))
	offers, err := sh.Offers(ctx, 3)
	require.NoError(t, err)
	require.Len(t, offers, 1)
	require.Equal(t, int64(120), offers[0].Fen)
	require.Equal(t, int64(2), offers[0].Left)
	u := sh.users(t, 1, 1000)
	_, err = sh.order(ctx, u[0], 3, Line{"oolong", 2})
	require.NoError(t, err)

	eventually(t, "sold out", func() bool { return len(sh.heard.frames("oolong")) == 1 })

	// On sale: the title may change, and there may be more.
	cheaper := tea
	cheaper.Fen = 1
	_, err = sh.Update(ctx, cheaper)
	refused(t, err, "on_sale")
	less := tea
	less.Total = 1
	_, err = sh.Update(ctx, less)
	refused(t, err, "on_sale")
	tea.Title, tea.Total = "Green tea", 5
	tea, err = sh.Update(ctx, tea)
	require.NoError(t, err)
	require.Equal(t, int64(3), tea.Version)
	offers, err = sh.Offers(ctx, 3)
	require.NoError(t, err)
	require.Equal(t, "Green tea", offers[0].Title, "no cache has the old one")
	eventually(t, "the new units are there", func() bool {
		offers, err = sh.Offers(ctx, 3)
		return err == nil && offers[0].Left == 3 && offers[0].Total == 5
	})
	require.NoError(t, sh.restock(ctx, 3))
	eventually(t, "and back", func() bool {
		f := sh.heard.frames("oolong")
		return len(f) == 2 && f[0].Left == 0 && f[1].Left == 3
	})
}

// A server died between SQL and Redis: what it had promised is brought there later.
func figuresAndRepairs(t *testing.T, sh *shop) {
	ctx := t.Context()
	sh.opened(t, 4, Product{SKU: "jar", Total: 5}, Product{SKU: "lid", Total: 5})
	_, err := sh.env.DB.ExecContext(ctx, "INSERT INTO restocks (room, sku, version, qty, done) VALUES (4, 'jar', 7, 4, 0)")
	require.NoError(t, err)
	_, err = sh.env.DB.ExecContext(ctx, "UPDATE sale_items SET units = units + 4 WHERE sku = 'jar'")
	require.NoError(t, err)
	_, err = sh.env.DB.ExecContext(ctx, "UPDATE products SET total = total + 4 WHERE sku = 'jar'")
	require.NoError(t, err)
	eventually(t, "the figures are in SQL", func() bool {
		require.NoError(t, sh.writeFigures(ctx))
		return sh.number(t, "SELECT COUNT(*) FROM stock_figures WHERE activity = 'room-4' AND sku = 'jar' AND left_units = 9") == 1
	})
	at := sh.number(t, "SELECT MAX(updated_ms) FROM stock_figures WHERE sku = 'jar'")
	tx, err := sh.env.DB.BeginTx(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, sh.writeFigure(ctx, tx, Figure{Room: 4, SKU: "jar", Left: 1}, at-1))
	require.NoError(t, tx.Commit())
	require.Equal(t, int64(9), sh.number(t, "SELECT left_units FROM stock_figures WHERE sku = 'jar'"), "older figures are not written")
}

// A depot is somebody else's stock.
type depot struct {
	mu   sync.Mutex
	left map[string]int64
	asks int
}

func (d *depot) Left(_ context.Context, skus []string) (map[string]int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asks++
	out := map[string]int64{}
	for _, sku := range skus {
		out[sku] = d.left[sku]
	}
	return out, nil
}

func (d *depot) set(sku string, left int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left[sku] = left
}

// Somebody else's stock is looked at in turn, and gives the same events as our own.
func stockElsewhere(t *testing.T, sh *shop, d *depot) {
	ctx := t.Context()
	sh.opened(t, 5, Product{SKU: "far", Elsewhere: true}, Product{SKU: "near", Total: 1})
	left := func() int64 {
		offers, err := sh.Offers(ctx, 5)
		require.NoError(t, err)
		require.Equal(t, "far", offers[0].SKU)
		return offers[0].Left
	}
	eventually(t, "it was looked at", func() bool { return left() == 3 })
	see := func(n int64) {
		d.set("far", n)
		require.NoError(t, sh.look(ctx, 5, sh.now()*1000))
	}
	see(2)
	see(0)
	see(0)
	eventually(t, "sold out", func() bool { return len(sh.heard.frames("far")) == 1 && left() == 0 })
	see(4)
	eventually(t, "back again", func() bool { return len(sh.heard.frames("far")) == 2 && left() == 4 })
	f := sh.heard.frames("far")
	require.Equal(t, []int64{0, 4}, []int64{f[0].Left, f[1].Left})
	require.Less(t, f[0].Version, f[1].Version)

	// A look that was overtaken changes nothing.
	d.set("far", 0)
	require.NoError(t, sh.look(ctx, 5, f[1].Version-1))
	eventually(t, "still there", func() bool { return left() == 4 })

	// Five at a time, those first that were not looked at for the longest time.
	for room := range 12 {
		require.NoError(t, sh.watch(ctx, int64(100+room)))
	}
	seen := map[any]bool{}
	for range 3 {
		reply, err := claimScript.Run(ctx, sh.env.Redis, []string{looksKey}, lookRooms, lookAgain.Microseconds()).Slice()
		require.NoError(t, err)
		require.LessOrEqual(t, len(reply), 1+lookRooms)
		for _, room := range reply[1:] {
			require.False(t, seen[room], "nobody else looks at it now")
			seen[room] = true
		}
	}
}

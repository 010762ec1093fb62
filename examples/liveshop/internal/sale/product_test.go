package sale

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestProducts(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		sh := newShop(t, env, Options{})
		ctx := t.Context()
		tea := Product{SKU: "tea", Host: host, Title: "Tea", Fen: 100, Total: 2, PerUser: 2}
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
		other.SKU, other.PerUser = "cup", 3
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

		require.NoError(t, sh.Open(ctx, 1, host))
		require.NoError(t, sh.Open(ctx, 1, host))
		offers, err := sh.Offers(ctx, 1)
		require.NoError(t, err)
		require.Len(t, offers, 1)
		require.Equal(t, int64(120), offers[0].Fen)
		require.Equal(t, int64(2), offers[0].Left)
		u := sh.users(t, 1, 1000)
		_, err = sh.order(ctx, u[0], 1, Line{"tea", 2})
		require.NoError(t, err)

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
		offers, err = sh.Offers(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, "Green tea", offers[0].Title, "no cache has the old one")
		eventually(t, "the new units are there", func() bool {
			offers, err = sh.Offers(ctx, 1)
			return err == nil && offers[0].Left == 3 && offers[0].Total == 5
		})
		require.NoError(t, sh.restock(ctx, 1))
		eventually(t, "sold out, and back", func() bool {
			f := sh.heard.frames()
			return len(f) == 2 && f[0].Left == 0 && f[1].Left == 3
		})
		holds(t, env)
	})
}

// Another server hears of a change, and one that had just read the old product, and
// stores it too late, is set right by the second delete.
func TestUpdateReachesOtherServers(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	one := newShop(t, env, Options{})
	cfg := env.Config
	cfg.Server = "s2"
	two := newShop(t, shoptest.Open(t, cfg, false), Options{})
	one.opened(t, 1, Product{SKU: "tea", Title: "Tea", Total: 5})
	_, err := two.Offers(t.Context(), 1)
	require.NoError(t, err)
	stale, err := two.shelf(t.Context(), 1)
	require.NoError(t, err)
	p, err := product(t.Context(), env.DB, "tea")
	require.NoError(t, err)
	p.Title = "Green tea"
	_, err = one.Update(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, two.shelves.Set(t.Context(), 1, stale))
	eventually(t, "the new title is everywhere", func() bool {
		for _, sh := range []*shop{one, two} {
			v, err := sh.shelf(t.Context(), 1)
			if err != nil || v.Items[0].Title != "Green tea" {
				return false
			}
		}
		return true
	})
}

// What was not sold in one room is sold in the host's next.
func TestRoomsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{Hold: time.Second})
	ctx := t.Context()
	sh.opened(t, 1, Product{SKU: "tea", Total: 10})
	u := sh.users(t, 3, 10_000)
	left := func(room int64) int64 {
		l, err := sh.of(ctx, room)
		require.NoError(t, err)
		levels, err := l.stock.Stock(ctx)
		require.NoError(t, err)
		return levels["tea"].Left
	}
	paid, err := sh.order(ctx, u[0], 1, Line{"tea", 3})
	require.NoError(t, err)
	_, err = sh.Pay(ctx, u[0], paid.OrderID)
	require.NoError(t, err)
	_, err = sh.order(ctx, u[1], 1, Line{"tea", 2}) // nobody pays for it
	require.NoError(t, err)

	require.NoError(t, sh.Open(ctx, 2, host))
	require.Zero(t, left(2), "they are all in the first room")
	require.NoError(t, sh.CloseRoom(ctx, 1))
	_, err = sh.order(ctx, u[2], 1, Line{"tea", 1})
	refused(t, err, "closed")
	eventually(t, "the first room's sale has ended", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM sales WHERE state = 'ended'") == 1
	})
	eventually(t, "what was not sold is in the second", func() bool { return left(2) == 7 })
	require.NoError(t, sh.CloseRoom(ctx, 2))
	eventually(t, "the second room's sale has ended", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM sales WHERE state = 'ended'") == 2
	})
	require.NoError(t, sh.Open(ctx, 3, host))
	require.Equal(t, int64(7), left(3))
	o, err := sh.Order(ctx, u[0], paid.OrderID)
	require.NoError(t, err)
	require.Equal(t, Paid, o.State)
	holds(t, sh.env)

	// An hour later Redis has forgotten it.
	_, err = sh.env.DB.ExecContext(ctx, "UPDATE sales SET since_ms = since_ms - 3700000 WHERE room = 1")
	require.NoError(t, err)
	eventually(t, "it is dropped", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM sales WHERE state = 'gone'") == 1
	})
	require.Zero(t, sh.env.Redis.Exists(ctx, "liveshop:stock1:{room-1}:levels").Val())
	holds(t, sh.env)
}

func TestShow(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	ctx := t.Context()
	sh.opened(t, 1)
	for _, p := range []Product{{SKU: "tea", Host: host, Total: 2, PerUser: 1}, {SKU: "his", Host: 5, Total: 2}} {
		p.Title, p.Fen = p.SKU, 10
		_, err := sh.Register(ctx, p)
		require.NoError(t, err)
	}
	refused(t, sh.Show(ctx, 5, 1, "his"), "forbidden")
	refused(t, sh.Show(ctx, host, 1, "his"), "forbidden")
	refused(t, sh.Show(ctx, host, 2, "tea"), "not_found")
	refused(t, sh.Show(ctx, host, 1, "pot"), "not_found")
	for range 2 {
		require.NoError(t, sh.Show(ctx, host, 1, "tea"))
	}
	u := sh.users(t, 1, 100)
	_, err := sh.order(ctx, u[0], 1, Line{"tea", 1})
	require.NoError(t, err)
	_, err = sh.order(ctx, u[0], 1, Line{"tea", 1})
	refused(t, err, "limit")
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	require.NoError(t, sh.CloseRoom(ctx, 1))
	refused(t, sh.Show(ctx, host, 1, "tea"), "closed")
	holds(t, sh.env)
}

// A server died between SQL and Redis: what it had promised is brought there later.
func TestFiguresAndRepairs(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		sh := newShop(t, env, Options{})
		ctx := t.Context()
		sh.opened(t, 1, Product{SKU: "tea", Total: 5}, Product{SKU: "cup", Total: 5})
		_, err := env.DB.ExecContext(ctx, "INSERT INTO restocks (room, sku, version, qty, done) VALUES (1, 'tea', 7, 4, 0)")
		require.NoError(t, err)
		_, err = env.DB.ExecContext(ctx, "UPDATE sale_items SET units = units + 4 WHERE sku = 'tea'")
		require.NoError(t, err)
		_, err = env.DB.ExecContext(ctx, "UPDATE products SET total = total + 4 WHERE sku = 'tea'")
		require.NoError(t, err)
		eventually(t, "the figures are in SQL", func() bool {
			require.NoError(t, sh.writeFigures(ctx))
			return sh.number(t, "SELECT COUNT(*) FROM stock_figures WHERE activity = 'room-1' AND sku = 'tea' AND left_units = 9") == 1
		})
		at := sh.number(t, "SELECT MAX(updated_ms) FROM stock_figures")
		tx, err := env.DB.BeginTx(ctx, nil)
		require.NoError(t, err)
		require.NoError(t, sh.writeFigure(ctx, tx, Figure{Room: 1, SKU: "tea", Left: 1}, at-1))
		require.NoError(t, tx.Commit())
		require.Equal(t, int64(9), sh.number(t, "SELECT left_units FROM stock_figures WHERE sku = 'tea'"), "older figures are not written")
		holds(t, env)
	})
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
func TestStockElsewhere(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		d := &depot{left: map[string]int64{"far": 3}}
		sh := newShop(t, env, Options{Warehouse: d})
		ctx := t.Context()
		sh.opened(t, 1, Product{SKU: "far", Elsewhere: true}, Product{SKU: "tea", Total: 1})
		left := func() int64 {
			offers, err := sh.Offers(ctx, 1)
			require.NoError(t, err)
			require.Equal(t, "far", offers[0].SKU)
			return offers[0].Left
		}
		eventually(t, "it was looked at", func() bool { return left() == 3 })
		see := func(n int64) {
			d.set("far", n)
			require.NoError(t, sh.look(ctx, 1, sh.now()*1000))
		}
		see(2)
		see(0)
		see(0)
		eventually(t, "sold out", func() bool { return len(sh.heard.frames()) == 1 && left() == 0 })
		see(4)
		eventually(t, "back again", func() bool { return len(sh.heard.frames()) == 2 && left() == 4 })
		f := sh.heard.frames()
		require.Equal(t, []int64{0, 4}, []int64{f[0].Left, f[1].Left})
		require.Less(t, f[0].Version, f[1].Version)

		// A look that was overtaken changes nothing.
		d.set("far", 0)
		require.NoError(t, sh.look(ctx, 1, f[1].Version-1))
		eventually(t, "still there", func() bool { return left() == 4 })

		// Five at a time, those first that were not looked at for the longest time.
		for room := range 12 {
			require.NoError(t, sh.watch(ctx, int64(100+room)))
		}
		seen := map[any]bool{}
		for range 3 {
			reply, err := claimScript.Run(ctx, env.Redis, []string{looksKey}, lookRooms, lookAgain.Microseconds()).Slice()
			require.NoError(t, err)
			require.LessOrEqual(t, len(reply), 1+lookRooms)
			for _, room := range reply[1:] {
				require.False(t, seen[room], "nobody else looks at it now")
				seen[room] = true
			}
		}
	})
}

// Over HTTP, as the page calls it.
func TestRoutes(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	m, err := api.New(sh.env, sh.accounts.Authenticate)
	require.NoError(t, err)
	sh.Routes(m)
}

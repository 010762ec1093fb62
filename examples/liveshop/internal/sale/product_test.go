package sale

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

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
	title := "Green tea"
	for inTime := false; !inTime; {
		stale, err := two.shelf(t.Context(), 1)
		require.NoError(t, err)
		p, err := product(t.Context(), env.DB, "tea")
		require.NoError(t, err)
		title += "!"
		p.Title = title
		began := time.Now()
		_, err = one.Update(t.Context(), p)
		require.NoError(t, err)
		require.NoError(t, two.shelves.Set(t.Context(), 1, stale))
		inTime = time.Since(began) < time.Second // or the second delete may have been before it
	}
	eventually(t, "the new title is everywhere", func() bool {
		for _, sh := range []*shop{one, two} {
			v, err := sh.shelf(t.Context(), 1)
			if err != nil || v.Items[0].Title != title {
				return false
			}
		}
		return true
	})
}

// What was not sold in one room is sold in the host's next.
func TestRoomsOneAfterTheOther(t *testing.T) { both(t, roomsOneAfterTheOther) }

func roomsOneAfterTheOther(t *testing.T, star bool) {
	sh := newShop(t, shoptest.Env(t), Options{Hold: time.Second})
	ctx := t.Context()
	sh.opens(t, 1, star, Product{SKU: "tea", Total: 10})
	u := sh.users(t, 3, 10_000)
	left := func(room int64) int64 {
		l, err := sh.of(ctx, room)
		require.NoError(t, err)
		levels, err := l.stock.Stock(ctx)
		require.NoError(t, err)
		return levels["tea"].Left
	}
	var paid Placed
	eventually(t, "an order was paid for in time", func() bool {
		var err error
		if paid, err = sh.order(ctx, u[0], 1, Line{"tea", 3}); err != nil {
			refused(t, err, "sold_out", "contended") // by those that were not
			return false
		}
		r, err := sh.Pay(ctx, u[0], paid.OrderID)
		return err == nil && r.State == Paid
	})
	_, err := sh.order(ctx, u[1], 1, Line{"tea", 2}) // nobody pays for it
	require.NoError(t, err)

	sh.live(t, 2)
	require.NoError(t, sh.open(ctx, 2, hostOf(1), bucketsOf(star)))
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
	sh.live(t, 3)
	require.NoError(t, sh.open(ctx, 3, hostOf(1), bucketsOf(star)))
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
	require.Empty(t, sh.env.Redis.Keys(ctx, "liveshop:stock1:{room-1*").Val())
	holds(t, sh.env)
}

func TestShow(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	ctx := t.Context()
	sh.opened(t, 1)
	for _, p := range []Product{{SKU: "tea", Host: hostOf(1), Total: 2, PerUser: 1}, {SKU: "his", Host: 5, Total: 2}} {
		p.Title, p.Fen = p.SKU, 10
		_, err := sh.Register(ctx, p)
		require.NoError(t, err)
	}
	refused(t, sh.Show(ctx, 5, 1, "his"), "forbidden")
	refused(t, sh.Show(ctx, hostOf(1), 1, "his"), "forbidden")
	refused(t, sh.Show(ctx, hostOf(1), 2, "tea"), "not_found")
	refused(t, sh.Show(ctx, hostOf(1), 1, "pot"), "not_found")
	for range 2 {
		require.NoError(t, sh.Show(ctx, hostOf(1), 1, "tea"))
	}
	u := sh.users(t, 1, 100)
	_, err := sh.order(ctx, u[0], 1, Line{"tea", 1})
	require.NoError(t, err)
	_, err = sh.order(ctx, u[0], 1, Line{"tea", 1})
	refused(t, err, "limit")
	eventually(t, "SQL has it", func() bool { return sh.number(t, "SELECT COUNT(*) FROM orders") == 1 })
	require.NoError(t, sh.CloseRoom(ctx, 1))
	refused(t, sh.Show(ctx, hostOf(1), 1, "tea"), "closed")
	holds(t, sh.env)
}

// Who has the stock of a product may change until it was on a shelf: its sales would be
// judged by what it is now, those that have ended too.
func TestElsewhereStays(t *testing.T) {
	t.Parallel()
	sh := newShop(t, shoptest.Env(t), Options{})
	ctx := t.Context()
	change := func(sku string) error {
		p, err := product(ctx, sh.env.DB, sku)
		require.NoError(t, err)
		p.Elsewhere, p.Total = !p.Elsewhere, p.Total+5
		_, err = sh.Update(ctx, p)
		return err
	}
	sh.opened(t, 1, Product{SKU: "cup", Elsewhere: true}, Product{SKU: "tea", Total: 5})
	for _, sku := range []string{"cup", "tea"} {
		refused(t, change(sku), "on_sale", "was_on_sale")
	}
	require.NoError(t, sh.CloseRoom(ctx, 1))
	eventually(t, "the sale has ended", func() bool {
		return sh.number(t, "SELECT COUNT(*) FROM sales WHERE state = 'ended'") == 1
	})
	for _, sku := range []string{"cup", "tea"} {
		refused(t, change(sku), "was_on_sale")
	}
	_, err := sh.Register(ctx, Product{SKU: "pot", Host: hostOf(1), Title: "Pot", Fen: 100})
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, change("pot"))
	}
	holds(t, sh.env)
}

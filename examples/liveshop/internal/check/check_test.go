package check

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/rain"
	rooms "github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/examples/liveshop/internal/sale"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

func TestMain(m *testing.M) {
	shoptest.AtOnce(8)
	shoptest.Main(m)
}

const (
	buyer = 7
	room  = 1
	units = 5
	price = 100
)

// liveRoom opens a room, as package room does; its sale is opened before.
const liveRoom = "INSERT INTO rooms (id, host, live, title, kind, star, opened_ms, closed_ms) VALUES (?, ?, ?, 'room', 'normal', 0, 0, 0)"

type deaf struct{}

func (deaf) Publish(context.Context, int64, string, any) error { return nil }
func (deaf) Tell(context.Context, int64, string, any) error    { return nil }

// A shop is a sale on which something was sold, something is held and something came
// back, at rest.
type shop struct {
	env    *infra.Env
	sale   *sale.Sale
	wallet *account.Wallet

	stock    *stock.Activity // of the room
	journals []string        // of it
	paid     int64           // an order
	held     int64           // another
}

func newShop(t *testing.T) *shop { return openShop(t, false) }

// openShop returns a shop whose room may be a star's.
func openShop(t *testing.T, star bool) *shop {
	t.Helper()
	ctx := t.Context()
	env := shoptest.Env(t)
	accounts, err := account.New(ctx, env)
	require.NoError(t, err)
	s := &shop{env: env, wallet: accounts.Wallet}
	for range 5 { // a call to Redis in it may take a second at most, which a busy machine needs
		s.sale, err = sale.New(ctx, env, accounts.Wallet, deaf{}, sale.Options{})
		if !errors.Is(err, stock.ErrUnknown) && !errors.Is(err, stock.ErrUnavailable) {
			break
		}
	}
	require.NoError(t, err)
	require.NoError(t, errors.Join(rooms.Migrate(ctx, env), rain.Migrate(ctx, env)))
	running, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.sale.Run(running) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		require.NoError(t, s.sale.Close(context.Background()))
		require.NoError(t, accounts.Close(context.Background()))
	})
	s.exec(t, "INSERT INTO users (uid, phone, name, created_ms) VALUES (?, '1', 'buyer', 0)", buyer)
	s.exec(t, "INSERT INTO wallets (uid, fen, version) VALUES (?, 0, 0)", buyer)
	s.pay(t, account.Outside, buyer, 1000, "recharge", "1")
	_, err = s.sale.Register(ctx, sale.Product{SKU: "tea", Host: 99, Title: "tea", Fen: price, Total: units})
	require.NoError(t, err)
	s.exec(t, liveRoom, room, 99, 99)
	if star { // a single Redis has no stars: as if it had been opened on a Cluster
		s.exec(t, "INSERT INTO sales (room, host, per_user, buckets, state, since_ms) VALUES (?, 99, 0, 3, 'open', 0)", room)
		s.exec(t, "INSERT INTO sale_items (room, sku, fen, loaded, units, returned) VALUES (?, 'tea', ?, ?, ?, 0)", room, price, units, units)
		for _, journal := range journalsOf(room, 3) {
			s.exec(t, "INSERT INTO order_positions (journal, entry_ms, entry_seq) VALUES (?, 0, 0)", journal)
		}
	}
	require.NoError(t, s.sale.Open(ctx, room, 99, false))
	s.paid, s.held = s.order(t), s.order(t)
	_, err = s.sale.Pay(ctx, buyer, s.paid)
	require.NoError(t, err)
	buckets, err := number(ctx, env, "SELECT buckets FROM sales WHERE room = ?", room)
	require.NoError(t, err)
	s.journals = journalsOf(room, int(buckets))
	s.stock, err = stockOf(env, room, int(buckets))
	require.NoError(t, err)
	over := s.order(t)
	_, err = s.stock.Cancel(ctx, ref(over), "")
	require.NoError(t, err)
	s.settled(t)
	return s
}

func ref(id int64) stock.Ref {
	return stock.Ref{ID: strconv.FormatInt(id, 10), User: strconv.Itoa(buyer)}
}

func (s *shop) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	_, err := s.env.DB.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func (s *shop) pay(t *testing.T, from, to, fen int64, kind, ref string) {
	t.Helper()
	_, err := s.wallet.Pay(t.Context(), from, to, fen, kind, ref)
	require.NoError(t, err)
}

func (s *shop) order(t *testing.T) int64 {
	t.Helper()
	id, err := s.sale.Token(t.Context(), buyer)
	require.NoError(t, err)
	_, err = s.sale.Place(t.Context(), buyer, id, room, []sale.Line{{SKU: "tea", Qty: 1}})
	require.NoError(t, err)
	return id
}

// settled waits until SQL has all that Redis did.
func (s *shop) settled(t *testing.T) {
	t.Helper()
	store, err := stocksql.New(s.env.DB, s.env.Dialect)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := s.stock.Inspect(t.Context())
		if err != nil {
			return false
		}
		for _, journal := range s.journals {
			at, err1 := store.Checkpoint(t.Context(), journal)
			late, err2 := number(t.Context(), s.env, `SELECT COUNT(*) FROM spillway_stock_row r JOIN order_positions p ON p.journal = ?
				WHERE r.journal = ? AND (r.entry_ms > p.entry_ms OR r.entry_ms = p.entry_ms AND r.entry_seq > p.entry_seq)`, journal, []byte(journal))
			if err1 != nil || err2 != nil || late > 0 || at != info.LastEntries[journal] {
				return false
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond)
}

func TestAHealthyShop(t *testing.T) {
	for _, star := range []bool{false, true} {
		t.Run(fmt.Sprintf("star=%v", star), func(t *testing.T) {
			t.Parallel()
			s := openShop(t, star)
			verdicts, err := All(t.Context(), s.env)
			require.NoError(t, err)
			require.Len(t, verdicts, len(invariants))
			for _, v := range verdicts {
				require.True(t, v.OK, "%s: %s", v.Name, v.Detail)
				require.NotEmpty(t, v.Detail)
			}
		})
	}
}

// levels overwrites the stock in Redis, as only a script of package stock may.
func (s *shop) levels(t *testing.T, left, held, sold int64) {
	t.Helper()
	key := "liveshop:stock1:{" + activityOf(room) + "}:levels"
	was, err := s.env.Redis.HGet(t.Context(), key, ":tea").Result()
	require.NoError(t, err)
	f := strings.Fields(was)
	require.NoError(t, s.env.Redis.HSet(t.Context(), key, ":tea", fmt.Sprintf("%d %d %d %s %s", left, held, sold, f[3], f[4])).Err())
}

// Each is a way in which shops are built that loses count; and the checker sees it.
func TestNaiveShops(t *testing.T) {
	for _, naive := range []struct {
		name string
		do   func(t *testing.T, s *shop)
		want string // the invariant that breaks
	}{
		{"reads the stock, and writes back one less, without a record", func(t *testing.T, s *shop) {
			s.levels(t, 2, 1, 1)
		}, "stock adds up"},
		{"sells what is not there", func(t *testing.T, s *shop) {
			s.levels(t, -1, 1, 5)
		}, "stock adds up"},
		{"gives a cancelled order's units back once more", func(t *testing.T, s *shop) {
			_, err := s.stock.Restock(t.Context(), "give-back", stock.Item{SKU: "tea", Qty: 1})
			require.NoError(t, err)
		}, "stock adds up"},
		{"loads the same units into a second room", func(t *testing.T, s *shop) {
			s.exec(t, liveRoom, 2, 99, 98) // or its sale would be closed
			s.exec(t, "INSERT INTO sales (room, host, per_user, buckets, state, since_ms) VALUES (2, 99, 0, 1, 'open', 0)")
			s.exec(t, "INSERT INTO sale_items (room, sku, fen, loaded, units, returned) VALUES (2, 'tea', 100, ?, ?, 0)", units, units)
			a, err := stockOf(s.env, 2, 1)
			require.NoError(t, err)
			require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": units}))
		}, "stock adds up"},
		{"takes a token in two rooms", func(t *testing.T, s *shop) {
			_, err := s.sale.Register(t.Context(), sale.Product{SKU: "cup", Host: 98, Title: "cup", Fen: price, Total: units})
			require.NoError(t, err)
			s.exec(t, liveRoom, 2, 98, 98)
			require.NoError(t, s.sale.Open(t.Context(), 2, 98, false))
			a, err := stockOf(s.env, 2, 1)
			require.NoError(t, err)
			r := ref(s.held)
			_, err = a.Reserve(t.Context(), stock.Order{ID: r.ID, User: r.User, Items: []stock.Item{{SKU: "cup", Qty: 1}}})
			require.NoError(t, err)
		}, "an order ends once"},
		{"confirms an order that was cancelled", func(t *testing.T, s *shop) {
			s.exec(t, `INSERT INTO spillway_stock_row SELECT journal, entry_ms + 1, entry_seq, op, item, 'confirm', order_id, user_id, sku, qty,
				0, 0, 0, partial, reason, at_ms, hold_ms FROM spillway_stock_row WHERE kind = 'cancel'`)
		}, "an order ends once"},
		{"writes the state of orders where the journal does not", func(t *testing.T, s *shop) {
			s.exec(t, "UPDATE orders SET state = 'paid' WHERE order_id = ?", s.held)
		}, "an order ends once"},
		{"forgets to cancel", func(t *testing.T, s *shop) {
			s.exec(t, "UPDATE spillway_stock_row SET at_ms = at_ms - 3600000 WHERE kind = 'reserve'")
		}, "an order ends once"},
		{"writes a batch to SQL twice", func(t *testing.T, s *shop) {
			s.exec(t, "UPDATE spillway_stock_level SET left_units = left_units - 1, sold_units = sold_units + 1")
		}, "SQL is as Redis"},
		{"loads the stock again after Redis lost it", func(t *testing.T, s *shop) {
			s.levels(t, units, 0, 0)
		}, "SQL is as Redis"},
		{"changes a balance without a log", func(t *testing.T, s *shop) {
			s.exec(t, "UPDATE wallets SET fen = fen + 1 WHERE uid = ?", buyer)
		}, "money adds up"},
		{"books one side of a payment", func(t *testing.T, s *shop) {
			s.exec(t, "INSERT INTO wallet_log (kind, ref, uid, fen, balance, created_ms) VALUES ('gift', 'x', ?, -5, 0, 0)", buyer)
			s.exec(t, "UPDATE wallets SET fen = fen - 5 WHERE uid = ?", buyer)
		}, "money adds up"},
		{"names each click on pay anew", func(t *testing.T, s *shop) {
			s.pay(t, buyer, account.Platform, price, "order", fmt.Sprint(s.paid, "-2"))
		}, "what is paid for is sold"},
		{"charges for an order and does not look whether it is still there", func(t *testing.T, s *shop) {
			id := s.order(t)
			_, err := s.stock.Cancel(t.Context(), ref(id), "late")
			require.NoError(t, err)
			s.pay(t, buyer, account.Platform, price, "order", strconv.FormatInt(id, 10))
			s.settled(t)
		}, "what is paid for is sold"},
		{"confirms first, and dies before it charges", func(t *testing.T, s *shop) {
			_, err := s.stock.Confirm(t.Context(), ref(s.held))
			require.NoError(t, err)
			s.settled(t)
		}, "what is paid for is sold"},
		{"refunds what was delivered", func(t *testing.T, s *shop) {
			s.pay(t, account.Platform, buyer, price, "refund", strconv.FormatInt(s.paid, 10))
		}, "what is paid for is sold"},
	} {
		t.Run(naive.name, func(t *testing.T) {
			t.Parallel()
			breaks(t, naive.want, naive.do)
		})
	}
}

// breaks fails unless an invariant holds in a healthy shop, and not in what do makes of it.
func breaks(t *testing.T, want string, do func(t *testing.T, s *shop)) {
	t.Helper()
	s := newShop(t)
	i := slices.IndexFunc(invariants, func(inv invariant) bool { return inv.name == want })
	look := func() []string {
		wrong, _, err := invariants[i].look(t.Context(), s.env)
		require.NoError(t, err)
		return wrong
	}
	require.Empty(t, look())
	do(t, s)
	var wrong []string
	require.Eventually(t, func() bool { wrong = look(); return len(wrong) > 0 }, time.Minute, 20*time.Millisecond)
	t.Log(wrong)
}

// What stays wrong is told, but not all of it.
func TestVerdict(t *testing.T) { synctest.Test(t, verdict) }

func verdict(t *testing.T) {
	bad := 0
	inv := invariant{"always", func(context.Context, *infra.Env) ([]string, string, error) {
		bad++
		return slices.Repeat([]string{"no"}, 7), "", nil
	}}
	v, err := inv.judge(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, Verdict{Name: "always", Detail: "no; no; no; no; no; and 2 more"}, v)
	require.Equal(t, looks, bad)

	passing := 0
	inv.look = func(context.Context, *infra.Env) ([]string, string, error) {
		if passing++; passing == 1 {
			return []string{"SQL is a moment behind"}, "", nil
		}
		return nil, "fine", nil
	}
	v, err = inv.judge(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, Verdict{Name: "always", OK: true, Detail: "fine"}, v)
}

// What looked wrong once, and there is no time to look again, is not known to be broken.
func TestNoTimeToLookAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	inv := invariant{"always", func(context.Context, *infra.Env) ([]string, string, error) {
		cancel()
		return []string{"SQL is a moment behind"}, "", nil
	}}
	v, err := inv.judge(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, Verdict{Name: "always", Unknown: true, Detail: "could not be looked at: again: context canceled"}, v)
}

// What cannot be looked at is no success.
func TestADatabaseThatIsGone(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	db, err := sql.Open("sqlite", "file:"+t.TempDir()+"/empty.db")
	require.NoError(t, err)
	verdicts, err := All(t.Context(), &infra.Env{Redis: s.env.Redis, DB: db, Dialect: s.env.Dialect})
	require.Error(t, err)
	for _, v := range verdicts[:5] {
		require.False(t, v.OK, v.Name)
		require.True(t, v.Unknown, v.Name)
	}
	require.NoError(t, db.Close())
}

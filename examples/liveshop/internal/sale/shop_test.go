package sale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/rain"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/stock"
)

// patience is how long a test waits for what should take a fraction of it.
const patience = 3 * time.Minute

// A shop is a server's sale, with the accounts it needs.
type shop struct {
	*Sale
	env      *infra.Env
	accounts *account.Accounts
	heard    *ears
	stop     func() // kill, but for what is on its way
}

// ears are the pages.
type ears struct {
	mu     sync.Mutex
	stock  []StockFrame
	orders []OrderFrame
}

func (e *ears) Publish(_ context.Context, _ int64, _ string, d any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stock = append(e.stock, *d.(*StockFrame))
	return nil
}

func (e *ears) Tell(_ context.Context, _ int64, _ string, d any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.orders = append(e.orders, d.(OrderFrame))
	return nil
}

// frames returns what a page made of what was announced of a product: it keeps what is
// newer than what it has, and began when there was some left.
func (e *ears) frames(sku string) (all []StockFrame) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.stock {
		if n := len(all); f.SKU != sku || n > 0 && f.Version <= all[n-1].Version || n == 0 && f.Left > 0 {
			continue
		}
		all = append(all, f)
	}
	return all
}

// flips returns those of frames that turned what was left into nothing, or back: of what is
// in buckets, a bucket's running out is announced as well.
func (e *ears) flips(sku string) []StockFrame {
	return slices.CompactFunc(e.frames(sku), func(a, b StockFrame) bool { return (a.Left == 0) == (b.Left == 0) })
}

// bucketsOf returns how many parts the stock of a star is in, wherever the test runs.
func bucketsOf(star bool) int {
	if star {
		return starBuckets
	}
	return 1
}

// both runs a test for a room and for a star's.
func both(t *testing.T, f func(t *testing.T, star bool)) {
	t.Run("room", func(t *testing.T) { t.Parallel(); f(t, false) })
	t.Run("star", func(t *testing.T) { t.Parallel(); f(t, true) })
}

// hostOf is who opens a room in a test: nobody who buys.
func hostOf(room int64) int64 { return 1<<40 + room }

// newShop returns a server that runs until the test ends.
func newShop(t testing.TB, env *infra.Env, opts Options) *shop {
	t.Helper()
	sh := &shop{env: env, heard: &ears{}}
	var err error
	sh.accounts, err = account.New(t.Context(), env)
	require.NoError(t, err)
	for range 5 { // a call to Redis in it may take a second at most, which a busy machine needs
		sh.Sale, err = New(t.Context(), env, sh.accounts.Wallet, sh.heard, opts)
		if !errors.Is(err, stock.ErrUnknown) && !errors.Is(err, stock.ErrUnavailable) {
			break
		}
	}
	require.NoError(t, err)
	require.NoError(t, errors.Join(room.Migrate(t.Context(), env), rain.Migrate(t.Context(), env))) // for package check, and for abandoned sales
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sh.Run(ctx) }()
	sh.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		within, end := context.WithTimeout(context.Background(), patience)
		defer end()
		require.NoError(t, sh.Close(within))
		require.NoError(t, sh.accounts.Close(within))
	})
	t.Cleanup(sh.stop)
	return sh
}

var uids atomic.Int64

// users returns new users with that much money.
func (sh *shop) users(t testing.TB, n int, fen int64) []int64 {
	t.Helper()
	last := uids.Add(int64(n))
	all := make([]int64, n)
	for i := range all {
		all[i] = last - int64(n-1-i)
	}
	tx, err := sh.env.DB.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	exec := func(query string, args ...any) {
		_, err := tx.ExecContext(t.Context(), query, args...)
		require.NoError(t, err)
	}
	for some := range slices.Chunk(all, 500) { // many rows a statement: a crowd is 10,000
		var args []any
		for _, uid := range some {
			args = append(args, uid, fmt.Sprint(uid), fmt.Sprint("user ", uid))
		}
		exec("INSERT INTO users (uid, phone, name, created_ms) VALUES (?, ?, ?, 0)"+strings.Repeat(", (?, ?, ?, 0)", len(some)-1), args...)
	}
	const of = " FROM users WHERE uid BETWEEN ? AND ?"
	exec("INSERT INTO wallets (uid, fen, version) SELECT uid, ?, 0"+of, fen, all[0], last)
	const log = "INSERT INTO wallet_log (kind, ref, uid, fen, balance, created_ms) SELECT 'recharge', phone, "
	exec(log+"uid, ?, ?, 0"+of, fen, fen, all[0], last)
	exec(log+"?, ?, 0, 0"+of, account.Outside, -fen, all[0], last)
	require.NoError(t, tx.Commit())
	return all
}

// opened registers products and opens a room that sells them.
func (sh *shop) opened(t testing.TB, room int64, products ...Product) {
	t.Helper()
	sh.opens(t, room, false, products...)
}

// opens is opened, of a star's room too.
func (sh *shop) opens(t testing.TB, room int64, star bool, products ...Product) {
	t.Helper()
	for _, p := range products {
		p.Host = hostOf(room)
		if p.Title == "" {
			p.Title = p.SKU
		}
		if p.Fen == 0 {
			p.Fen = 100
		}
		_, err := sh.Register(t.Context(), p)
		require.NoError(t, err)
	}
	sh.live(t, room)
	require.NoError(t, sh.open(t.Context(), room, hostOf(room), bucketsOf(star)))
}

// live makes a room one that is open, as package room does when its sale is.
func (sh *shop) live(t testing.TB, id int64) {
	t.Helper()
	_, err := sh.env.DB.ExecContext(t.Context(), "INSERT INTO rooms (id, host, live, title, kind, star, opened_ms, closed_ms) VALUES (?, ?, ?, 'room', ?, 0, 0, 0)",
		id, hostOf(id), hostOf(id), room.Normal)
	require.NoError(t, err)
}

// order is a click on "buy".
func (sh *shop) order(ctx context.Context, uid, room int64, lines ...Line) (Placed, error) {
	id, err := sh.Token(ctx, uid)
	if err != nil {
		return Placed{}, err
	}
	return sh.Place(ctx, uid, id, room, lines)
}

// eventually waits for what must come.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen in %v: %s", patience, what)
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-t.Context().Done():
			t.FailNow()
		}
	}
}

// row asks SQL for numbers.
func (sh *shop) number(t testing.TB, query string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, sh.env.DB.QueryRowContext(t.Context(), query, args...).Scan(&n))
	return n
}

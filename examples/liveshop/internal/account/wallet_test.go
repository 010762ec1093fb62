package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/internal/sqltest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

func accounts(t *testing.T, env *infra.Env, users int) (*Accounts, []int64) {
	t.Helper()
	a, err := New(t.Context(), env)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close(context.Background())) })
	var uids []int64
	for n := range users {
		who, err := a.register(t.Context(), fmt.Sprintf("1380000%04d", n))
		require.NoError(t, err)
		uids = append(uids, who.UID)
	}
	return a, uids
}

// addsUp fails unless each wallet is the sum of its log, and all money came from outside.
func addsUp(t *testing.T, env *infra.Env) {
	t.Helper()
	var sum, wrong, negative int64
	require.NoError(t, env.DB.QueryRow("SELECT COALESCE(SUM(fen), 0) FROM wallet_log").Scan(&sum))
	require.Zero(t, sum)
	require.NoError(t, env.DB.QueryRow(`SELECT COUNT(*) FROM wallets w
		WHERE w.fen <> (SELECT COALESCE(SUM(l.fen), 0) FROM wallet_log l WHERE l.uid = w.uid)`).Scan(&wrong))
	require.Zero(t, wrong)
	require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM wallets WHERE fen < 0").Scan(&negative))
	require.Zero(t, negative)
}

func TestPay(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		a, uids := accounts(t, env, 2)
		anna, bert, w := uids[0], uids[1], a.Wallet
		var told [][2]int64
		w.OnChange(func(_ context.Context, uid, fen int64) { told = append(told, [2]int64{uid, fen}) })
		pay := func(from, to, fen int64, kind, ref string) (int64, error) {
			balance, err := w.Pay(t.Context(), from, to, fen, kind, ref)
			addsUp(t, env)
			return balance, err
		}
		balance := func(uid int64) int64 {
			fen, err := w.Balance(t.Context(), uid)
			require.NoError(t, err)
			return fen
		}
		require.Zero(t, balance(anna))
		_, err := pay(anna, Platform, 1, "order", "1")
		require.ErrorIs(t, err, ErrPoor)
		_, err = pay(Outside, anna, 1000, "recharge", "1")
		require.NoError(t, err)
		require.Equal(t, int64(1000), balance(anna))
		left, err := pay(anna, bert, 300, "gift", "1")
		require.NoError(t, err)
		require.Equal(t, int64(700), left)
		require.Equal(t, int64(700), balance(anna))
		require.Equal(t, int64(300), balance(bert))

		// Asked again it is the first answer, whatever happened since.
		_, err = pay(anna, Platform, 700, "order", "2")
		require.NoError(t, err)
		left, err = pay(anna, bert, 300, "gift", "1")
		require.NoError(t, err)
		require.Equal(t, int64(700), left)
		require.Zero(t, balance(anna))
		_, err = pay(anna, bert, 301, "gift", "1")
		require.ErrorIs(t, err, ErrConflict)
		_, err = pay(anna, Platform, 300, "gift", "1")
		require.ErrorIs(t, err, ErrConflict, "another receiver")
		_, err = pay(bert, anna, 301, "gift", "2")
		require.ErrorIs(t, err, ErrPoor)
		_, err = pay(anna, 999_999, 1, "gift", "3")
		require.Error(t, err)
		_, err = pay(Outside, bert, 300, "gift", "1")
		require.ErrorIs(t, err, errTwice, "bert has this one already, from somebody else: no half of it is booked")
		for _, bad := range []int64{0, -5} {
			_, err = pay(Outside, anna, bad, "recharge", "9")
			require.ErrorContains(t, err, "is no payment")
		}
		require.Equal(t, [][2]int64{{anna, 1000}, {anna, 700}, {bert, 300}, {anna, 0}}, told)
	})
}

// PayFirst tells the call that books from those that ask again.
func TestPayFirst(t *testing.T) {
	env := shoptest.Env(t)
	a, uids := accounts(t, env, 1)
	_, first, err := a.Wallet.PayFirst(t.Context(), uids[0], Platform, 600, "gift", "1")
	require.ErrorIs(t, err, ErrPoor)
	require.False(t, first)
	for _, want := range []bool{true, false} {
		_, first, err = a.Wallet.PayFirst(t.Context(), Outside, uids[0], 600, "recharge", "1")
		require.NoError(t, err)
		require.Equal(t, want, first)
	}
}

// Two clicks at once with money for one: the second finds the wallet empty, because the
// first emptied it for the same payment, and is answered as the first.
func TestPayTwiceWithMoneyForOne(t *testing.T) {
	_, dsn := sqltest.MariaDB(t).Names() // SQLite lets one transaction after the other
	env := shoptest.Open(t, infra.Config{DB: dsn}, false)
	a, uids := accounts(t, env, 2)
	ctx, anna, bert, w := t.Context(), uids[0], uids[1], a.Wallet
	recharge := func(ref string) {
		_, err := w.Pay(ctx, Outside, anna, 9900, "recharge", ref)
		require.NoError(t, err)
	}
	waiting := func() bool {
		var n int
		require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'").Scan(&n))
		return n > 0
	}
	for i, second := range []func(ref string) (fen, left int64, err error){
		func(ref string) (fen, left int64, err error) {
			left, err = w.Pay(ctx, anna, bert, 9900, "gift", ref)
			return 9900, left, err
		},
		func(ref string) (fen, left int64, err error) {
			return w.PayWithin(ctx, anna, bert, "gift", ref, func(context.Context, *sql.Tx) (int64, error) { return 9900, nil })
		},
	} {
		ref := fmt.Sprint(i)
		recharge(ref)
		answered := make(chan error, 1)
		require.NoError(t, env.Tx(ctx, func(tx *sql.Tx) error {
			if err := w.book(ctx, tx, &payment{from: anna, to: bert, fen: 9900, kind: "gift", ref: ref}); err != nil {
				return err
			}
			go func() {
				fen, left, err := second(ref)
				if err == nil && (fen != 9900 || left != 0) {
					err = fmt.Errorf("%d paid, %d left", fen, left)
				}
				answered <- err
			}()
			require.Eventually(t, waiting, time.Minute, 200*time.Millisecond) // what it shows is up to 100 ms old
			return nil
		}))
		require.NoError(t, <-answered)
		addsUp(t, env)
	}
	_, err := w.Pay(ctx, anna, bert, 1, "gift", "more")
	require.ErrorIs(t, err, ErrPoor)
}

// What is written while an amount is decided is booked with it, or not at all.
func TestPayWithin(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		a, uids := accounts(t, env, 1)
		ctx, anna, w := t.Context(), uids[0], a.Wallet
		_, err := w.Pay(ctx, Outside, anna, 1000, "recharge", "1")
		require.NoError(t, err)
		// What decide writes is another user's name.
		_, err = env.DB.Exec("INSERT INTO users (uid, phone, name, created_ms) VALUES (77, 'x', '', 0)")
		require.NoError(t, err)
		name := func() (name string) {
			require.NoError(t, env.DB.QueryRow("SELECT name FROM users WHERE uid = 77").Scan(&name))
			return name
		}
		called := 0
		write := func(text string, fen int64, end error) func(context.Context, *sql.Tx) (int64, error) {
			return func(ctx context.Context, tx *sql.Tx) (int64, error) {
				called++
				_, err := tx.ExecContext(ctx, "UPDATE users SET name = ? WHERE uid = 77", text)
				return fen, errors.Join(err, end)
			}
		}
		no := errors.New("no")
		for _, c := range []struct {
			fen  int64
			end  error
			want error
		}{{100, no, no}, {1001, nil, ErrPoor}, {0, nil, nil}, {-5, nil, nil}} {
			_, _, err := w.PayWithin(ctx, anna, Platform, "order", "1", write("lost", c.fen, c.end))
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.Empty(t, name())
			addsUp(t, env)
		}
		fen, left, err := w.PayWithin(ctx, anna, Platform, "order", "1", write("kept", 300, nil))
		require.NoError(t, err)
		require.Equal(t, []int64{300, 700}, []int64{fen, left})
		called = 0
		fen, left, err = w.PayWithin(ctx, anna, Platform, "order", "1", write("again", 400, no))
		require.NoError(t, err)
		require.Equal(t, []int64{300, 700}, []int64{fen, left})
		require.Zero(t, called)
		require.Equal(t, "kept", name())
		addsUp(t, env)

		// Booked by another one while it was decided, whatever decide makes of that.
		for i, end := range []error{nil, no} {
			ref := fmt.Sprint("race ", i)
			fen, _, err = w.PayWithin(ctx, anna, Platform, "order", ref, func(ctx context.Context, tx *sql.Tx) (int64, error) {
				if env.Dialect == idgen.MySQL {
					_, err := w.Pay(ctx, anna, Platform, 50, "order", ref)
					return 60, errors.Join(err, end)
				}
				return 50, nil // SQLite lets nobody in between
			})
			require.NoError(t, err)
			require.Equal(t, int64(50), fen)
		}
		require.Equal(t, "kept", name())
		addsUp(t, env)
	})
}

// A new user's welcome is part of the registration.
func TestOnRegister(t *testing.T) {
	env := shoptest.Env(t)
	a, _ := accounts(t, env, 0)
	var welcomed []int64
	no := errors.New("no")
	a.OnRegister(func(_ context.Context, _ *sql.Tx, uid int64) error {
		welcomed = append(welcomed, uid)
		return no
	})
	_, err := a.register(t.Context(), "13800000001")
	require.ErrorIs(t, err, no)
	var users int
	require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM users").Scan(&users))
	require.Zero(t, users)
	no = nil
	for range 2 {
		who, err := a.register(t.Context(), "13800000001")
		require.NoError(t, err)
		require.Len(t, welcomed, 2)
		require.Equal(t, who.UID, welcomed[1])
	}
}

// Many pay each other at once, each payment asked for twice at the same time.
func TestPayConcurrently(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		a, uids := accounts(t, env, 4)
		for _, uid := range uids {
			_, err := a.Wallet.Pay(t.Context(), Outside, uid, 1000, "recharge", fmt.Sprint(uid))
			require.NoError(t, err)
		}
		const payments = 60
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers := map[int][]string{}
		for n := range payments {
			from, to, fen := uids[n%4], uids[(n+1+n/4%3)%4], 1+rand.Int64N(400)
			for range 2 {
				wg.Go(func() {
					left, err := a.Wallet.Pay(t.Context(), from, to, fen, "gift", fmt.Sprint(n))
					if err != nil && !errors.Is(err, ErrPoor) {
						t.Errorf("%v", err)
					}
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						answers[n] = append(answers[n], fmt.Sprint(left))
					}
				})
			}
		}
		wg.Wait()
		addsUp(t, env)
		var booked int
		require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM wallet_log WHERE kind = 'gift'").Scan(&booked))
		require.Equal(t, 2*len(answers), booked, "two rows for a payment that was answered yes, once or twice")
		for n, same := range answers {
			require.Equal(t, same[0], same[len(same)-1], "payment %d", n)
		}
		var total int64
		for _, uid := range uids {
			fen, err := a.Wallet.Balance(t.Context(), uid)
			require.NoError(t, err)
			total += fen
		}
		require.Equal(t, int64(4000), total)
	})
}

// A log without its unique key would book twice: this is what addsUp and the count
// above are for.
func TestOraclesCatchADoubleBooking(t *testing.T) {
	env := shoptest.Env(t)
	a, uids := accounts(t, env, 1)
	_, err := a.Wallet.Pay(t.Context(), Outside, uids[0], 600, "recharge", "1")
	require.NoError(t, err)
	_, err = env.DB.Exec("UPDATE wallets SET fen = fen + 600 WHERE uid = ?", uids[0])
	require.NoError(t, err)
	var wrong int
	require.NoError(t, env.DB.QueryRow(`SELECT COUNT(*) FROM wallets w
		WHERE w.fen <> (SELECT COALESCE(SUM(l.fen), 0) FROM wallet_log l WHERE l.uid = w.uid)`).Scan(&wrong))
	require.Equal(t, 1, wrong)
}

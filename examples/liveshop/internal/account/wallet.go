package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Accounts that are nobody's. They have no row in wallets, which every payment of the
// whole shop would wait for: what they hold is the sum of their rows in the log.
const (
	Outside  int64 = -1 // where recharged money comes from
	Platform int64 = 0  // the shop
)

// ErrPoor means that the balance does not suffice; nothing was booked.
var ErrPoor = errors.New("account: balance too low")

// ErrConflict means that the kind and ref were used before, for something else.
var ErrConflict = errors.New("account: another payment has this reference")

// errTwice ends a transaction whose booking another one made at the same time.
var errTwice = errors.New("account: booked meanwhile")

// A Wallet moves money between accounts, in integer fen. SQL has the truth, with a
// log that adds up to it; the cache only reads.
type Wallet struct {
	env      *infra.Env
	balances *cache.Cache[int64, int64]
	changed  []func(ctx context.Context, uid, fen int64)
}

func newWallet(env *infra.Env) (*Wallet, error) {
	w := &Wallet{env: env}
	var err error
	w.balances, err = cache.New(env.Redis, "balance", cache.Source[int64, int64]{Load: w.read}, cache.Options{Logger: env.Log})
	return w, err
}

// read asks SQL.
func (w *Wallet) read(ctx context.Context, uid int64) (fen int64, err error) {
	err = w.env.DB.QueryRowContext(ctx, "SELECT fen FROM wallets WHERE uid = ?", uid).Scan(&fen)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("wallet %d: %w", uid, cache.ErrNotFound)
	}
	return fen, err
}

// Balance returns what a user has, from the cache.
func (w *Wallet) Balance(ctx context.Context, uid int64) (fen int64, err error) {
	return w.balances.Get(ctx, uid)
}

// OnChange registers f to be told of new balances of users, after the booking. It is
// called while the server is put together, and f should not wait for anything.
func (w *Wallet) OnChange(f func(ctx context.Context, uid, fen int64)) {
	w.changed = append(w.changed, f)
}

// Pay moves fen, at least 1, from one account to another, and returns the new balance
// of from; 0 if that is nobody's. Kind and ref name the payment: asked for again it
// is answered as the first time, and nothing moves. So an error other than ErrPoor
// and ErrConflict, after which it may or may not be booked, is answered by asking again.
//
// Kinds are recharge, order, refund, gift, packet, prepare.
func (w *Wallet) Pay(ctx context.Context, from, to, fen int64, kind, ref string) (balance int64, err error) {
	balance, _, err = w.PayFirst(ctx, from, to, fen, kind, ref)
	return balance, err
}

// PayFirst is Pay, and says whether it was booked just now, by this call.
func (w *Wallet) PayFirst(ctx context.Context, from, to, fen int64, kind, ref string) (balance int64, first bool, err error) {
	p := payment{from: from, to: to, fen: fen, kind: kind, ref: ref}
	if err := p.valid(); err != nil {
		return 0, false, err
	}
	err = w.pay(ctx, &p)
	return p.after[0], err == nil && !p.replayed, err
}

// Recharge is Pay from outside to a user, and returns the new balance of the user.
func (w *Wallet) Recharge(ctx context.Context, uid, fen int64, ref string) (balance int64, err error) {
	p := payment{from: Outside, to: uid, fen: fen, kind: "recharge", ref: ref}
	if err := p.valid(); err != nil {
		return 0, err
	}
	if err := w.pay(ctx, &p); err != nil {
		return 0, err
	}
	if p.replayed {
		return w.Balance(ctx, uid)
	}
	return p.after[1], nil
}

// PayWithin is Pay of an amount that is decided within the transaction, by decide: what
// that writes is committed with the booking, or not at all. It may be called more than
// once, and is not called if the payment was booked before, whose amount is then
// returned. After an error of decide nothing is booked.
func (w *Wallet) PayWithin(ctx context.Context, from, to int64, kind, ref string,
	decide func(context.Context, *sql.Tx) (fen int64, err error),
) (fen, balance int64, err error) {
	p := payment{from: from, to: to, kind: kind, ref: ref, decide: decide}
	err = w.pay(ctx, &p)
	return p.fen, p.after[0], err
}

// pay fills in what was moved, and the balances after it.
func (w *Wallet) pay(ctx context.Context, p *payment) (err error) {
	for range 3 {
		err = w.env.Tx(ctx, func(tx *sql.Tx) error { return w.book(ctx, tx, p) })
		if !errors.Is(err, errTwice) {
			break
		}
	}
	if err != nil {
		if !errors.Is(err, ErrPoor) && !errors.Is(err, ErrConflict) {
			w.forget(ctx, p) // it may have been booked all the same
		}
		p.after = [2]int64{}
		return fmt.Errorf("%s %s: %w", p.kind, p.ref, err)
	}
	if !p.replayed {
		w.forget(ctx, p)
		w.tell(ctx, p)
	}
	return nil
}

type payment struct {
	from, to, fen int64
	kind, ref     string
	decide        func(context.Context, *sql.Tx) (int64, error) // nil: fen is known
	after         [2]int64                                      // balances
	replayed      bool
}

func (p *payment) valid() error {
	if p.fen < 1 || p.from == p.to || len(p.kind) > 16 || len(p.ref) > 80 {
		return fmt.Errorf("account: %s %q of %d fen from %d to %d is no payment", p.kind, p.ref, p.fen, p.from, p.to)
	}
	return nil
}

// booked returns what the payment moved and left when it was booked, and whether it went
// to the same receiver; sql.ErrNoRows if it was not booked.
func (p *payment) booked(ctx context.Context, tx *sql.Tx) (fen, balance int64, same bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT -a.fen, a.balance, b.uid IS NOT NULL
		FROM wallet_log a LEFT JOIN wallet_log b ON b.kind = a.kind AND b.ref = a.ref AND b.uid = ?
		WHERE a.kind = ? AND a.ref = ? AND a.uid = ?`, p.to, p.kind, p.ref, p.from).
		Scan(&fen, &balance, &same)
	return fen, balance, same, err
}

// meanwhile returns errTwice if the same payment was booked after all, and otherwise err,
// which says why it cannot be: perhaps that one took what this one wants.
func (p *payment) meanwhile(ctx context.Context, tx *sql.Tx, err error) error {
	if _, _, _, again := p.booked(ctx, tx); again == nil {
		return errTwice
	}
	return err
}

// book is the transaction of a payment.
func (w *Wallet) book(ctx context.Context, tx *sql.Tx, p *payment) error {
	moved, balance, same, err := p.booked(ctx, tx)
	switch {
	case err == nil && (!same || p.decide == nil && moved != p.fen):
		return ErrConflict
	case err == nil:
		p.fen, p.after[0], p.replayed = moved, balance, true
		return nil
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if p.decide != nil {
		if p.fen, err = p.decide(ctx, tx); err != nil {
			return p.meanwhile(ctx, tx, err)
		}
		if err := p.valid(); err != nil {
			return err
		}
	}
	// In the order of their ids: two who pay each other would wait for each other.
	sides := [2]struct{ uid, fen int64 }{{p.from, -p.fen}, {p.to, p.fen}}
	order := [2]int{0, 1}
	if p.to < p.from {
		order = [2]int{1, 0}
	}
	for _, i := range order {
		if p.after[i], err = change(ctx, tx, sides[i].uid, sides[i].fen); errors.Is(err, ErrPoor) {
			return p.meanwhile(ctx, tx, err)
		} else if err != nil {
			return err
		}
	}
	now := time.Now().UnixMilli()
	res, err := tx.ExecContext(ctx, w.env.InsertAll(len(sides), "wallet_log", "kind", "ref", "uid", "fen", "balance", "created_ms"),
		p.kind, p.ref, sides[0].uid, sides[0].fen, p.after[0], now,
		p.kind, p.ref, sides[1].uid, sides[1].fen, p.after[1], now)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == int64(len(sides)) {
		return err
	}
	return errTwice
}

// change adds fen to a wallet that must not fall below 0.
func change(ctx context.Context, tx *sql.Tx, uid, fen int64) (balance int64, err error) {
	if uid <= 0 {
		return 0, nil
	}
	res, err := tx.ExecContext(ctx, "UPDATE wallets SET fen = fen + ?, version = version + 1 WHERE uid = ? AND fen + ? >= 0", fen, uid, fen)
	if err != nil {
		return 0, err
	}
	if n, err := res.RowsAffected(); err != nil {
		return 0, err
	} else if n == 0 && fen > 0 {
		return 0, fmt.Errorf("account: no wallet of %d", uid)
	} else if n == 0 {
		return 0, ErrPoor
	}
	err = tx.QueryRowContext(ctx, "SELECT fen FROM wallets WHERE uid = ?", uid).Scan(&balance)
	return balance, err
}

// forget makes the caches forget balances. What cannot be deleted now the cache deletes
// by itself as soon as it can.
func (w *Wallet) forget(ctx context.Context, p *payment) {
	for _, uid := range [2]int64{p.from, p.to} {
		if uid <= 0 {
			continue
		}
		if err := w.balances.Delete(ctx, uid); err != nil {
			w.env.Log.Warn("balance stays cached", "uid", uid, "err", err)
		}
	}
}

// tell comes after forget: who is told and asks sees the new balance.
func (w *Wallet) tell(ctx context.Context, p *payment) {
	for i, uid := range [2]int64{p.from, p.to} {
		for _, f := range w.changed {
			if uid > 0 {
				f(ctx, uid, p.after[i])
			}
		}
	}
}

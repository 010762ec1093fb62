// Package account is who somebody is and what they have: users, codes by text
// message, tokens, and wallets.
package account

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/ratelimit"
)

// Packages are the amounts that can be recharged, in fen.
var Packages = []int64{600, 3000, 9800, 29800, 64800, 1_000_000}

// Accounts are all users.
type Accounts struct {
	Wallet *Wallet

	env     *infra.Env
	ids     *idgen.Segment
	names   *cache.Cache[int64, string]
	texts   *ratelimit.Limiter // messages to a phone, in the whole fleet
	welcome []func(ctx context.Context, tx *sql.Tx, uid int64) error
}

// New returns the accounts of the service.
func New(ctx context.Context, env *infra.Env) (*Accounts, error) {
	if err := env.Migrate(ctx, tables...); err != nil {
		return nil, err
	}
	a := &Accounts{env: env}
	var err1, err2, err3, err4 error
	a.Wallet, err1 = newWallet(env)
	a.ids, err2 = env.IDs("user")
	// Names do not change: each process keeps its own copy, and Redis none.
	a.names, err3 = cache.New(nil, "name", cache.Source[int64, string]{Load: a.readName}, cache.Options{Logger: env.Log})
	a.texts, err4 = ratelimit.New(env.Redis, []ratelimit.Limit{ratelimit.PerMinute(5)}, ratelimit.Options{Name: "sms"})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	env.CountCache("balance", a.Wallet.balances.Stats)
	env.CountCache("name", a.names.Stats)
	return a, nil
}

// Close ends what New started.
func (a *Accounts) Close(ctx context.Context) error {
	return errors.Join(a.Wallet.balances.Close(ctx), a.names.Close(ctx), a.texts.Close(ctx))
}

// Routes registers the calls of this package.
func (a *Accounts) Routes(m *api.Mux) {
	m.Public("POST /sms", a.sms)
	m.Public("POST /login", a.login)
	m.User("POST /logout", a.logout)
	m.User("GET /me", a.me)
	m.User("POST /recharge", a.recharge)
}

// OnRegister registers f to be called in the transaction that makes a user, which its
// error undoes. It is called while the server is put together.
func (a *Accounts) OnRegister(f func(ctx context.Context, tx *sql.Tx, uid int64) error) {
	a.welcome = append(a.welcome, f)
}

// Name returns what others see of a user.
func (a *Accounts) Name(ctx context.Context, uid int64) (string, error) { return a.names.Get(ctx, uid) }

func (a *Accounts) readName(ctx context.Context, uid int64) (name string, err error) {
	err = a.env.DB.QueryRowContext(ctx, "SELECT name FROM users WHERE uid = ?", uid).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("user %d: %w", uid, cache.ErrNotFound)
	}
	return name, err
}

var phonePattern = regexp.MustCompile(`^1[0-9]{10}$`)

// A Login is the answer to POST /login.
type Login struct {
	UID     int64  `json:"uid"`
	Name    string `json:"name"`
	Token   string `json:"token,omitempty"`
	Balance int64  `json:"balance"`
}

func (a *Accounts) sms(r *api.Request) (any, error) {
	var in struct {
		Phone string `json:"phone"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !phonePattern.MatchString(in.Phone) {
		return nil, api.Bad("phone: want 11 digits that begin with 1")
	}
	res, err := a.texts.Allow(r.Context(), in.Phone)
	if err != nil {
		return nil, err
	}
	if !res.OK() {
		return nil, &api.Error{Status: 429, Code: "too_many", Msg: "too many messages to this phone", RetryAfter: res.RetryAfter}
	}
	return map[string]any{"expires_s": int(codeTTL.Seconds())}, a.sendCode(r.Context(), in.Phone)
}

func (a *Accounts) login(r *api.Request) (any, error) {
	var in struct {
		Phone string `json:"phone"`
		Code  string `json:"code"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if err := a.checkCode(r.Context(), in.Phone, in.Code); err != nil {
		return nil, err
	}
	out, err := a.register(r.Context(), in.Phone)
	if err != nil {
		return nil, err
	}
	out.Token, err = a.newToken(r.Context(), out.UID)
	return out, err
}

// register returns the user with that phone, who is new with the first login.
func (a *Accounts) register(ctx context.Context, phone string) (out Login, err error) {
	const find = "SELECT u.uid, u.name, w.fen FROM users u JOIN wallets w ON w.uid = u.uid WHERE u.phone = ?"
	err = a.env.DB.QueryRowContext(ctx, find, phone).Scan(&out.UID, &out.Name, &out.Balance)
	if !errors.Is(err, sql.ErrNoRows) {
		return out, err
	}
	uid, err := a.ids.Next(ctx)
	if err != nil {
		return out, err
	}
	err = a.env.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, a.env.InsertNew("users", "uid", "phone", "name", "created_ms"),
			uid, phone, nickname(uid), time.Now().UnixMilli())
		if err != nil {
			return err
		}
		// Somebody with two phones at the ear logs in twice at once: one id is lost then.
		if err := tx.QueryRowContext(ctx, "SELECT uid, name FROM users WHERE phone = ?", phone).Scan(&out.UID, &out.Name); err != nil {
			return err
		}
		if out.UID != uid {
			return nil
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO wallets (uid, fen, version) VALUES (?, 0, 0)", uid)
		for _, f := range a.welcome {
			if err == nil {
				err = f(ctx, tx, uid)
			}
		}
		return err
	})
	return out, err
}

func (a *Accounts) logout(r *api.Request) (any, error) {
	return nil, a.revoke(r.Context(), r.Token())
}

func (a *Accounts) me(r *api.Request) (any, error) {
	name, err := a.Name(r.Context(), r.UID)
	if err != nil {
		return nil, err
	}
	balance, err := a.Wallet.Balance(r.Context(), r.UID)
	return Login{UID: r.UID, Name: name, Balance: balance}, err
}

// recharge stands for the callback of a payment provider, which comes again until it
// was answered: key names the payment.
func (a *Accounts) recharge(r *api.Request) (any, error) {
	var in struct {
		Fen int64  `json:"fen"`
		Key string `json:"key"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !slices.Contains(Packages, in.Fen) {
		return nil, api.Bad("fen: want one of %v", Packages)
	}
	if in.Key == "" || len(in.Key) > 40 {
		return nil, api.Bad("key: want 1 to 40 characters, the same when asked again")
	}
	balance, err := a.Wallet.Recharge(r.Context(), r.UID, in.Fen, strconv.FormatInt(r.UID, 10)+":"+in.Key)
	if errors.Is(err, ErrConflict) {
		return nil, api.Conflict("key_used", "this key was another amount")
	}
	return map[string]int64{"balance": balance}, err
}

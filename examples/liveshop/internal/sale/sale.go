package sale

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/delayqueue"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/lock"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// A Wallet moves money; account.Wallet is one.
type Wallet interface {
	// PayWithin moves what decide says, in one transaction with what decide writes. Booked
	// before, it returns what was moved then.
	PayWithin(ctx context.Context, from, to int64, kind, ref string,
		decide func(context.Context, *sql.Tx) (fen int64, err error)) (fen, balance int64, err error)
	Balance(ctx context.Context, uid int64) (fen int64, err error)
}

// An Announcer brings frames to pages.
type Announcer interface {
	// Publish tells everybody in a room, and loses it for nobody who is connected.
	Publish(ctx context.Context, room int64, t string, d any) error
	// Tell tells one user, where there is a page that listens.
	Tell(ctx context.Context, uid int64, t string, d any) error
}

// Options of a Sale. Give every server the same.
type Options struct {
	// Hold is how long an order may be unpaid; 15 minutes if 0.
	Hold time.Duration
	// Warehouse has the stock of products that are sold elsewhere; if nil, a table that
	// the operator sets stands for it.
	Warehouse Warehouse
}

// A Sale is the flash sales of all rooms, on one server.
type Sale struct {
	env       *infra.Env
	wallet    Wallet
	announcer Announcer
	opts      Options

	store   *stocksql.Store
	ids     *idgen.Segment
	shuffle *idgen.Permuter
	shelves *cache.Cache[int64, shelf]
	levels  *cache.Cache[int64, map[string]stock.Level]
	jobs    *delayqueue.Queue
	locks   *lock.Locker

	ahead  atomic.Int64  // ms by which Redis's clock is ahead of this one
	orders atomic.Uint64 // that got something
	wake   chan struct{}
	making sync.Mutex
	mu     sync.Mutex
	lives  map[int64]*live
}

// prefix of the keys of all packages; package check looks at them too.
const prefix = "liveshop"

// idDomain keeps order numbers below 2^53, which is where JSON numbers end in browsers.
const idDomain = 1_000_000_000_000_000

// New returns the sales. Nothing of what they do by themselves happens before Run.
func New(ctx context.Context, env *infra.Env, wallet Wallet, announcer Announcer, opts Options) (*Sale, error) {
	opts.Hold = cmp.Or(opts.Hold, 15*time.Minute)
	if opts.Warehouse == nil {
		opts.Warehouse = table{env}
	}
	s := &Sale{
		env: env, wallet: wallet, announcer: announcer, opts: opts,
		wake: make(chan struct{}, 1), lives: map[int64]*live{},
	}
	if err := Migrate(ctx, env); err != nil {
		return nil, fmt.Errorf("sale: %w", err)
	}
	var errs [7]error
	s.store, errs[0] = stocksql.New(env.DB, env.Dialect)
	s.ids, errs[1] = env.IDs("order")
	s.shuffle, errs[2] = idgen.NewPermuter([]byte(cmp.Or(env.Config.Secret, "change me")), idDomain)
	s.locks, errs[3] = lock.New(env.Redis, lock.Options{Prefix: prefix, Logger: env.Log})
	s.jobs, errs[4] = delayqueue.New(env.Redis, "sale", delayqueue.Options{Prefix: prefix, Logger: env.Log})
	s.shelves, errs[5] = cache.New(env.Redis, "shelf", cache.Source[int64, shelf]{
		Load: s.loadShelf, Later: s.forgetLater,
	}, cache.Options{Prefix: prefix, StaleFor: time.Hour, Logger: env.Log})
	// What is left changes with every order: each server looks four times a second,
	// however many pages ask.
	s.levels, errs[6] = cache.New(nil, "levels", cache.Source[int64, map[string]stock.Level]{Load: s.loadLevels},
		cache.Options{TTL: 250 * time.Millisecond, Jitter: -1})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("sale: %w", errors.Join(err, s.Close(ctx)))
	}
	env.CountCache("shelf", s.shelves.Stats)
	s.setClock(ctx)
	return s, nil
}

// Close ends what New began. End Run first.
func (s *Sale) Close(ctx context.Context) error {
	var errs []error
	if s.shelves != nil {
		errs = append(errs, s.shelves.Close(ctx))
	}
	if s.levels != nil {
		errs = append(errs, s.levels.Close(ctx))
	}
	if s.jobs != nil {
		errs = append(errs, s.jobs.Close(ctx))
	}
	if s.locks != nil {
		errs = append(errs, s.locks.Close(ctx))
	}
	for _, l := range s.all() {
		errs = append(errs, l.stock.Close(ctx))
	}
	return errors.Join(errs...)
}

// Orders returns how many orders this server has taken.
func (s *Sale) Orders() uint64 { return s.orders.Load() }

// now is Redis's clock in ms, within some milliseconds: the servers' own clocks need
// not agree.
func (s *Sale) now() int64 { return time.Now().UnixMilli() + s.ahead.Load() }

// setClock looks at Redis's clock. What it cannot see it leaves as it was.
func (s *Sale) setClock(ctx context.Context) {
	sent := time.Now()
	at, err := s.env.Redis.Time(ctx).Result()
	if err != nil {
		return
	}
	took := time.Since(sent)
	s.ahead.Store(at.Sub(sent.Add(took / 2)).Milliseconds())
}

package infra

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/ratelimit/overload"
)

// The switches that an operator flips to leave something out; and one to see what
// happens when the database is slow.
const (
	NoCoupons    = "no-coupons"
	NoBarrage    = "no-barrage"
	ShortHistory = "short-history" // 5 orders instead of 20
	SlowSQL      = "slow-sql"
)

// Switches are the names that can be flipped.
var Switches = []string{NoCoupons, NoBarrage, ShortHistory, SlowSQL}

// slowness is what a statement takes longer while SlowSQL is on.
const slowness = 400 * time.Millisecond

// An Env is what all parts of a server share.
type Env struct {
	Redis    redis.UniversalClient
	DB       *sql.DB // behind a circuit breaker: gobreaker.ErrOpenState while the database is down
	Dialect  idgen.Dialect
	Log      *slog.Logger
	Server   string // this server's name
	Config   Config
	Switches *overload.Switches
	Metrics  *prometheus.Registry

	guard *guard
	ids   idgen.Store
	trips *coalesce.Group[func(redis.Pipeliner), error]

	mu     sync.Mutex
	segs   map[string]*idgen.Segment
	caches []func() cache.Stats
}

// Open connects to Redis and the database, and migrates the tables of ids.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Env, error) {
	e := &Env{
		Config: cfg, Server: cfg.Server, Log: log.With("server", cfg.Server),
		Metrics: prometheus.NewRegistry(), segs: map[string]*idgen.Segment{},
	}
	if cfg.Redis == "" && cfg.Cluster == "" || cfg.Redis == "spawn" || cfg.DB == "" {
		return nil, errors.New("infra: an address is missing: Provide comes before Open")
	}
	e.Redis = openRedis(cfg)
	e.trips = coalesce.New(e.trip, coalesce.Options{})
	if err := e.openSQL(ctx, cfg.DB); err != nil {
		return nil, errors.Join(err, e.Redis.Close())
	}
	err := e.prepare(ctx)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Env) prepare(ctx context.Context) (err error) {
	if err := e.Redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("connect to Redis at %s: %w", cmp.Or(e.Config.Cluster, e.Config.Redis), err)
	}
	if err := idgen.Migrate(ctx, e.DB, e.Dialect); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if e.ids, err = idgen.SQLStore(e.DB, e.Dialect, idgen.Atomic); err != nil {
		return err
	}
	e.Switches, err = overload.NewSwitches(e.Redis, overload.Options{
		Every: 500 * time.Millisecond,
		OnChange: func(name string, on bool) {
			e.Log.Info("switch", "name", name, "on", on)
			if name == SlowSQL {
				e.guard.delay(on)
			}
		},
	})
	return err
}

func openRedis(cfg Config) redis.UniversalClient {
	opts := &redis.UniversalOptions{
		Addrs:                 []string{cfg.Redis},
		MaxRetries:            -1, // a repeated command may run twice; the packages repeat what is safe
		DialerRetries:         1,  // a refused connection is known at once
		ReadTimeout:           3 * time.Second,
		ContextTimeoutEnabled: true,
		PoolSize:              96, // each Run keeps a connection or two
	}
	if cfg.Cluster == "" {
		return redis.NewClient(opts.Simple())
	}
	opts.Addrs = strings.Split(cfg.Cluster, ",")
	cluster := opts.Cluster()
	cluster.ClusterStateReloadInterval = time.Second // after a failover it would dial the dead master for a minute
	return redis.NewClusterClient(cluster)
}

// IDs returns the source of ids of a kind of things: "user", "room", "order", "msg".
func (e *Env) IDs(biz string) (*idgen.Segment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.segs[biz]; s != nil {
		return s, nil
	}
	s, err := idgen.NewSegment(e.ids, biz, idgen.Options{Logger: e.Log})
	if err == nil {
		e.segs[biz] = s
	}
	return s, err
}

// Close closes what Open opened.
func (e *Env) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, s := range e.segs {
		errs = append(errs, s.Close(ctx))
	}
	return errors.Join(append(errs, e.trips.Close(ctx), e.DB.Close(), e.Redis.Close())...)
}

//go:build unix

package bench

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/ulule/limiter/v3"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"
	"github.com/zeromicro/go-zero/core/breaker"
	"github.com/zeromicro/go-zero/core/limit"
	"github.com/zeromicro/go-zero/core/logx"
	zeroredis "github.com/zeromicro/go-zero/core/stores/redis"
	"golang.org/x/time/rate"

	"github.com/spillway-go/spillway/ratelimit"
)

// A limiterRow is one implementation: it returns a function that asks for one unit
// of a key under a limit of n per period.
type limiterRow struct {
	name string
	open func(b *testing.B, rdb *redis.Client, n int, per time.Duration) func(ctx context.Context, key string) (bool, error)
}

// plenty is a rate, per second, that no machine reaches.
const plenty = 1_000_000_000

var limiterRows = []limiterRow{
	{"spillway", spillwayLimiter(ratelimit.Options{})},
	{"spillway-lease", spillwayLimiter(ratelimit.Options{Lease: 50 * time.Millisecond})},
	{"redis_rate", func(_ *testing.B, rdb *redis.Client, n int, per time.Duration) func(context.Context, string) (bool, error) {
		l, limit := redis_rate.NewLimiter(rdb), redis_rate.Limit{Rate: n, Burst: n, Period: per}
		return func(ctx context.Context, key string) (bool, error) {
			res, err := l.Allow(ctx, key, limit)
			return err == nil && res.Allowed > 0, err
		}
	}},
	{"ulule", func(b *testing.B, rdb *redis.Client, n int, per time.Duration) func(context.Context, string) (bool, error) {
		store, err := ululeredis.NewStore(rdb)
		if err != nil {
			b.Fatal(err)
		}
		l := limiter.New(store, limiter.Rate{Period: per, Limit: int64(n)})
		return func(ctx context.Context, key string) (bool, error) {
			res, err := l.Get(ctx, key)
			return err == nil && !res.Reached, err
		}
	}},
	{"go-zero-period", func(b *testing.B, rdb *redis.Client, n int, per time.Duration) func(context.Context, string) (bool, error) {
		logx.Disable()
		store, err := zeroredis.NewRedis(zeroredis.RedisConf{Host: rdb.Options().Addr, Type: zeroredis.NodeType})
		if err != nil {
			b.Fatal(err)
		}
		l := limit.NewPeriodLimit(int(per/time.Second), n, store, "zero:")
		// Its own circuit breaker opens when the machine is busy. Asked again, as here,
		// it costs the row nothing but time.
		return func(ctx context.Context, key string) (bool, error) {
			for {
				state, err := l.TakeCtx(ctx, key)
				if !errors.Is(err, breaker.ErrServiceUnavailable) {
					return state == limit.Allowed || state == limit.HitQuota, err
				}
			}
		}
	}},
	{"throttled", func(b *testing.B, rdb *redis.Client, n int, per time.Duration) func(context.Context, string) (bool, error) {
		store, err := goredisstore.NewCtx(rdb, "throttled:")
		if err != nil {
			b.Fatal(err)
		}
		l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerDuration(n, per), MaxBurst: n - 1})
		if err != nil {
			b.Fatal(err)
		}
		// Its GETs are not in the figures of the server: only its scripts are counted.
		// It gives up when others were faster ten times in a row. Its users have to
		// ask again, and so does this row.
		return func(ctx context.Context, key string) (bool, error) {
			for {
				limited, _, err := l.RateLimitCtx(ctx, key, 1)
				if err == nil || ctx.Err() != nil {
					return err == nil && !limited, err
				}
			}
		}
	}},
}

func spillwayLimiter(o ratelimit.Options) func(*testing.B, *redis.Client, int, time.Duration) func(context.Context, string) (bool, error) {
	return func(b *testing.B, rdb *redis.Client, n int, per time.Duration) func(context.Context, string) (bool, error) {
		limit := ratelimit.Limit{Rate: int64(n), Period: per, Burst: int64(n)}
		return allow(openLimiter(b, rdb, o, limit))
	}
}

func openLimiter(b *testing.B, rdb *redis.Client, o ratelimit.Options, limits ...ratelimit.Limit) *ratelimit.Limiter {
	b.Helper()
	o.Timeout = 10 * time.Second // no row may turn to a policy
	l, err := ratelimit.New(rdb, limits, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close(context.Background()) })
	return l
}

func allow(l *ratelimit.Limiter) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, key string) (bool, error) {
		res, err := l.Allow(ctx, key)
		return res.OK(), err
	}
}

var (
	errDenied  = errors.New("denied, though there is plenty")
	errGranted = errors.New("granted, though nothing is left")

	limiterLoad = load{goroutines: 64, commands: []string{"evalsha", "eval"}}
	limiterKeys = numbered("user-", 5, 10_000)
)

// BenchmarkLimiterHotKey asks for units of one key, all of which are granted.
func BenchmarkLimiterHotKey(b *testing.B) { granted(b, []string{"hot"}) }

// BenchmarkLimiterManyKeys asks for units of 10,000 keys, all of which are granted.
func BenchmarkLimiterManyKeys(b *testing.B) { granted(b, limiterKeys) }

func granted(b *testing.B, keys []string) {
	for _, row := range limiterRows {
		b.Run(row.name+"/goroutines=64", func(b *testing.B) {
			rdb, ctx := newClient(b), b.Context()
			ask := row.open(b, rdb, plenty, time.Second)
			run(b, rdb, limiterLoad, func(i int) error {
				ok, err := ask(ctx, keys[i*7919%len(keys)])
				if err == nil && !ok {
					err = errDenied
				}
				return err
			})
		})
	}
}

// BenchmarkLimiterDenied asks for units of one key that has none left.
func BenchmarkLimiterDenied(b *testing.B) {
	for _, row := range limiterRows {
		b.Run(row.name+"/goroutines=64", func(b *testing.B) {
			rdb, ctx := newClient(b), b.Context()
			ask := row.open(b, rdb, 1, time.Hour)
			for ok := true; ok; {
				var err error
				if ok, err = ask(ctx, "hot"); err != nil {
					b.Fatal(err)
				}
			}
			run(b, rdb, limiterLoad, func(int) error {
				ok, err := ask(ctx, "hot")
				if err == nil && ok {
					err = errGranted
				}
				return err
			})
		})
	}
}

// BenchmarkLimiterMulti asks for a unit under three limits: in one call, or, where
// there is no such call, in three.
func BenchmarkLimiterMulti(b *testing.B) {
	b.Run("spillway/goroutines=64", func(b *testing.B) {
		rdb, ctx := newClient(b), b.Context()
		ask := allow(openLimiter(b, rdb, ratelimit.Options{}, ratelimit.PerSecond(plenty), ratelimit.PerMinute(plenty), ratelimit.PerHour(plenty)))
		run(b, rdb, limiterLoad, func(int) error {
			ok, err := ask(ctx, "hot")
			if err == nil && !ok {
				err = errDenied
			}
			return err
		})
	})
	b.Run("redis_rate/goroutines=64", func(b *testing.B) {
		rdb, ctx := newClient(b), b.Context()
		l := redis_rate.NewLimiter(rdb)
		limits := []redis_rate.Limit{redis_rate.PerSecond(plenty), redis_rate.PerMinute(plenty), redis_rate.PerHour(plenty)}
		run(b, rdb, limiterLoad, func(int) error {
			for i, limit := range limits {
				res, err := l.Allow(ctx, limiterKeys[i], limit)
				if err != nil {
					return err
				}
				if res.Allowed == 0 {
					return errDenied
				}
			}
			return nil
		})
	})
}

// BenchmarkLimiterLocal asks for units of 10,000 keys within the process, most of
// which are granted.
func BenchmarkLimiterLocal(b *testing.B) {
	b.Run("spillway/goroutines=64", func(b *testing.B) {
		l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(1000)})
		if err != nil {
			b.Fatal(err)
		}
		ask, ctx := allow(l), b.Context()
		run(b, newClient(b), limiterLoad, func(i int) error {
			_, err := ask(ctx, limiterKeys[i*7919%len(limiterKeys)])
			return err
		})
	})
	// Behind a map, as its users have it: with a mutex, as tutorials do, and with a lock
	// for readers, which is the best that a plain map can have.
	b.Run("x-time-rate/goroutines=64", func(b *testing.B) {
		var mu sync.Mutex
		behindMap(b, &mu, &mu)
	})
	b.Run("x-time-rate-rwmutex/goroutines=64", func(b *testing.B) {
		var mu sync.RWMutex
		behindMap(b, mu.RLocker(), &mu)
	})
}

func behindMap(b *testing.B, read, write sync.Locker) {
	limiters := make(map[string]*rate.Limiter)
	run(b, newClient(b), limiterLoad, func(i int) error {
		key := limiterKeys[i*7919%len(limiterKeys)]
		read.Lock()
		l := limiters[key]
		read.Unlock()
		if l == nil {
			write.Lock()
			if l = limiters[key]; l == nil {
				l = rate.NewLimiter(1000, 1000)
				limiters[key] = l
			}
			write.Unlock()
		}
		l.Allow()
		return nil
	})
}

// The rows do the work that they say they do: go-zero's token limiter, which is not
// among them, would pass no such test.
func TestLimiterRows(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skipf("needs a real Redis: %v", err)
	}
	res := testing.Benchmark(func(b *testing.B) {
		if b.N > 1 {
			return
		}
		for _, row := range limiterRows {
			rdb := newClient(b)
			ask, n := row.open(b, rdb, 3, time.Hour), 0
			for range 6 {
				ok, err := ask(context.Background(), "k")
				if err != nil {
					b.Fatal(row.name, err)
				}
				if ok {
					n++
				}
			}
			if n != 3 {
				b.Fatalf("%s granted %d of 3", row.name, n)
			}
		}
	})
	if res.N == 0 {
		t.Fatal("a row does not limit")
	}
}

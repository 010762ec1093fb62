//go:build unix

package bench

import (
	"context"
	"errors"
	"io"
	"log"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/dgraph-io/ristretto/v2"
	gocache "github.com/go-redis/cache/v9"
	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"
	"github.com/viccon/sturdyc"
	"github.com/zeromicro/go-zero/core/collection"
	"github.com/zeromicro/go-zero/core/logx"
	zerocache "github.com/zeromicro/go-zero/core/stores/cache"
	zeroredis "github.com/zeromicro/go-zero/core/stores/redis"
	"github.com/zeromicro/go-zero/core/syncx"

	"github.com/spillway-go/spillway/cache"
)

// A source is what a cache loads from.
type source func(ctx context.Context, key string) (string, error)

// A getter is a cache that has been made over a source.
type getter func(ctx context.Context, key string) (string, error)

const cacheTTL = time.Hour

// localCaches keep values in the process. What a cache cannot do by itself (load,
// or wait for who loads) its row does in the way its documentation shows.
var localCaches = []struct {
	name string
	make func(b *testing.B, load source) getter
}{
	{"spillway", func(b *testing.B, load source) getter {
		c, err := cache.New(nil, "bench", cache.Source[string, string]{Load: load}, cache.Options{TTL: cacheTTL, Local: 100_000})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(context.Background()) })
		return c.Get
	}},
	{"ristretto", func(b *testing.B, load source) getter {
		c, err := ristretto.NewCache(&ristretto.Config[string, string]{NumCounters: 1_000_000, MaxCost: 100_000, BufferItems: 64, IgnoreInternalCost: true})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		return func(ctx context.Context, key string) (string, error) {
			if v, ok := c.Get(key); ok {
				return v, nil
			}
			v, err := load(ctx, key)
			if err == nil {
				c.SetWithTTL(key, v, 1, cacheTTL)
				c.Wait()
			}
			return v, err
		}
	}},
	{"otter", func(b *testing.B, load source) getter {
		c := otter.Must(&otter.Options[string, string]{MaximumSize: 100_000, ExpiryCalculator: otter.ExpiryWriting[string, string](cacheTTL), Logger: &otter.NoopLogger{}})
		loader := otter.LoaderFunc[string, string](load)
		return func(ctx context.Context, key string) (string, error) { return c.Get(ctx, key, loader) }
	}},
	{"theine", func(b *testing.B, load source) getter {
		c, err := theine.NewBuilder[string, string](100_000).Loading(func(ctx context.Context, key string) (theine.Loaded[string], error) {
			v, err := load(ctx, key)
			return theine.Loaded[string]{Value: v, Cost: 1, TTL: cacheTTL}, err
		}).Build()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		return c.Get
	}},
	{"sturdyc", func(b *testing.B, load source) getter {
		c := sturdyc.New[string](100_000, 64, cacheTTL, 10)
		return func(ctx context.Context, key string) (string, error) {
			return c.GetOrFetch(ctx, key, func(ctx context.Context) (string, error) { return load(ctx, key) })
		}
	}},
	{"go-zero", func(b *testing.B, load source) getter {
		logx.Disable()
		c, err := collection.NewCache(cacheTTL, collection.WithLimit(100_000))
		if err != nil {
			b.Fatal(err)
		}
		return func(ctx context.Context, key string) (string, error) {
			v, err := c.Take(key, func() (any, error) { return load(ctx, key) })
			s, _ := v.(string)
			return s, err
		}
	}},
}

// redisCaches keep values in Redis, and nowhere else.
var redisCaches = []struct {
	name string
	make func(b *testing.B, rdb *redis.Client, load source) getter
}{
	{"spillway", func(b *testing.B, rdb *redis.Client, load source) getter {
		return openCache(b, rdb, cache.Source[string, string]{Load: load}).Get
	}},
	{"go-redis-cache", func(b *testing.B, rdb *redis.Client, load source) getter {
		c := gocache.New(&gocache.Options{Redis: rdb})
		return func(ctx context.Context, key string) (v string, err error) {
			err = c.Once(&gocache.Item{Ctx: ctx, Key: key, Value: &v, TTL: cacheTTL, Do: func(i *gocache.Item) (any, error) { return load(i.Context(), key) }})
			return v, err
		}
	}},
	{"go-zero", func(b *testing.B, rdb *redis.Client, load source) getter {
		logx.Disable()
		c := zerocache.NewNode(zeroredis.New(rdb.Options().Addr), syncx.NewSingleFlight(), zerocache.NewStat("bench"), errors.New("not found"))
		return func(ctx context.Context, key string) (v string, err error) {
			err = c.TakeCtx(ctx, &v, key, func(p any) error {
				s, err := load(ctx, key)
				*p.(*string) = s
				return err
			})
			return v, err
		}
	}},
}

// rueidisAside keeps values in Redis and, as the server tells it what changes
// there, in the process as well: its hits are local ones.
func rueidisAside(b *testing.B, load source) getter {
	c, err := rueidisaside.NewClient(rueidisaside.ClientOption{
		ClientOption: rueidis.ClientOption{InitAddress: []string{newClient(b).Options().Addr}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return func(ctx context.Context, key string) (string, error) { return c.Get(ctx, cacheTTL, key, load) }
}

func openCache(b *testing.B, rdb *redis.Client, src cache.Source[string, string]) *cache.Cache[string, string] {
	b.Helper()
	c, err := cache.New(rdb, "bench", src, cache.Options{TTL: cacheTTL, Local: -1, Timeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// cacheKeys are asked for in a fixed order in which some come often.
var cacheKeys = func() []string {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = "user:" + strconv.Itoa(i)
	}
	return keys
}()

func echo(_ context.Context, key string) (string, error) { return "the value of " + key, nil }

// fill asks for all keys once.
func fillCache(b *testing.B, get getter) {
	b.Helper()
	for _, key := range cacheKeys {
		if _, err := get(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCacheHit(b *testing.B) {
	hit := func(make func(b *testing.B, load source) getter) func(b *testing.B) {
		return func(b *testing.B) {
			get := make(b, echo)
			fillCache(b, get)
			ctx := context.Background()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := get(ctx, cacheKeys[i&1023]); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for _, c := range localCaches {
		b.Run(c.name, hit(c.make))
	}
	b.Run("rueidisaside", hit(rueidisAside))
}

func BenchmarkCacheHitParallel(b *testing.B) {
	hit := func(make func(b *testing.B, load source) getter) func(b *testing.B) {
		return func(b *testing.B) {
			get := make(b, echo)
			fillCache(b, get)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				ctx := context.Background()
				for i := 0; pb.Next(); i++ {
					if _, err := get(ctx, cacheKeys[i&1023]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
	}
	for _, c := range localCaches {
		b.Run(c.name, hit(c.make))
	}
	b.Run("rueidisaside", hit(rueidisAside))
}

func BenchmarkCacheRemoteHit(b *testing.B) {
	for _, c := range redisCaches {
		b.Run(c.name+"/goroutines=64", func(b *testing.B) {
			rdb := newClient(b)
			get := c.make(b, rdb, echo)
			fillCache(b, get)
			run(b, rdb, load{goroutines: 64, commands: []string{"get", "evalsha"}}, func(i int) error {
				_, err := get(b.Context(), cacheKeys[i&1023])
				return err
			})
		})
	}
}

// stampede lets a thousand callers ask for a key that is nowhere, again and again
// for another one, and reports how many of them loaded.
func stampede(b *testing.B, make func(load source) getter) {
	var loads atomic.Int64
	get := make(func(_ context.Context, key string) (string, error) {
		loads.Add(1)
		time.Sleep(5 * time.Millisecond)
		return key, nil
	})
	var round int
	for b.Loop() {
		round++
		key := "cold:" + strconv.Itoa(round)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, err := get(b.Context(), key); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(loads.Load())/float64(round), "loads/op")
}

func BenchmarkCacheColdStampede(b *testing.B) {
	for _, c := range localCaches {
		b.Run(c.name+"/level=local", func(b *testing.B) {
			stampede(b, func(load source) getter { return c.make(b, load) })
		})
	}
	for _, c := range redisCaches {
		b.Run(c.name+"/level=redis", func(b *testing.B) {
			rdb := newClient(b)
			stampede(b, func(load source) getter { return c.make(b, rdb, load) })
		})
	}
	b.Run("rueidisaside/level=redis", func(b *testing.B) {
		stampede(b, func(load source) getter { return rueidisAside(b, load) })
	})
}

// failing lets 64 callers retry a key for a second whose load fails, and reports
// how often it was loaded.
func failing(b *testing.B, make func(load source) getter) {
	var loads atomic.Int64
	boom := errors.New("boom")
	get := make(func(context.Context, string) (string, error) {
		loads.Add(1)
		return "", boom
	})
	var round int
	for b.Loop() {
		round++
		key := "failing:" + strconv.Itoa(round)
		begun := time.Now()
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for time.Since(begun) < time.Second {
					if _, err := get(b.Context(), key); err == nil {
						b.Error("it did not fail")
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(loads.Load())/float64(round), "loads/op")
}

func BenchmarkCacheFailingLoader(b *testing.B) {
	log.SetOutput(io.Discard)
	for _, c := range localCaches {
		b.Run(c.name+"/level=local", func(b *testing.B) {
			failing(b, func(load source) getter { return c.make(b, load) })
		})
	}
	for _, c := range redisCaches {
		b.Run(c.name+"/level=redis", func(b *testing.B) {
			rdb := newClient(b)
			failing(b, func(load source) getter { return c.make(b, rdb, load) })
		})
	}
	b.Run("rueidisaside/level=redis", func(b *testing.B) {
		failing(b, func(load source) getter { return rueidisAside(b, load) })
	})
}

// A hundred keys that are in Redis. mget is one MGET of raw values, which no cache
// can beat; go-redis-cache has no call for many keys.
func BenchmarkCacheGetMany(b *testing.B) {
	keys := cacheKeys[:100]
	b.Run("spillway/goroutines=16", func(b *testing.B) {
		rdb := newClient(b)
		c := openCache(b, rdb, cache.Source[string, string]{Load: echo})
		fillCache(b, c.Get)
		run(b, rdb, load{goroutines: 16, commands: []string{"evalsha"}}, func(int) error {
			_, err := c.GetMany(b.Context(), keys)
			return err
		})
	})
	b.Run("go-redis-cache/goroutines=16", func(b *testing.B) {
		rdb := newClient(b)
		get := redisCaches[1].make(b, rdb, echo)
		fillCache(b, get)
		run(b, rdb, load{goroutines: 16, commands: []string{"get"}}, func(int) error {
			for _, key := range keys {
				if _, err := get(b.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	})
	b.Run("mget/goroutines=16", func(b *testing.B) {
		rdb := newClient(b)
		for _, key := range keys {
			if err := rdb.Set(b.Context(), key, "the value of "+key, cacheTTL).Err(); err != nil {
				b.Fatal(err)
			}
		}
		run(b, rdb, load{goroutines: 16, commands: []string{"mget"}}, func(int) error {
			return rdb.MGet(b.Context(), keys...).Err()
		})
	})
}

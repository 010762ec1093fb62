package ratelimit

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Any number of processes with leases grant at most Burst + Rate·(t + Lease)/Period
// in any t, whatever their load does and however slow replies are.
func TestLeaseBound(t *testing.T) {
	leased := uint64(0)
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		limit := Limit{Rate: rapid.Int64Range(1, 5000).Draw(rt, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 3000).Draw(rt, "burst")}
		period := time.Duration(rapid.Int64Range(1, 300).Draw(rt, "lease")) * time.Millisecond
		o := Options{Prefix: redistest.Prefix(t), Lease: period, Timeout: time.Second}
		seed := rapid.Uint64().Draw(rt, "seed")
		var mu sync.Mutex
		var grants []grant
		var wg sync.WaitGroup
		for p := range rapid.IntRange(1, 4).Draw(rt, "processes") {
			var faults redistest.Faults
			faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "eval", Times: -1, P: 0.2, Delay: period / 3})
			l, err := New(b.Client(faults.Options), []Limit{limit}, o)
			require.NoError(rt, err)
			rng := rand.New(rand.NewPCG(seed, uint64(p)))
			wg.Go(func() {
				ctx := context.WithoutCancel(t.Context())
				for range 120 {
					if rng.IntN(4) == 0 {
						time.Sleep(time.Duration(rng.Int64N(int64(period))))
					}
					n := 1 + rng.Int64N(min(limit.Burst, 3))
					if r, err := l.AllowN(ctx, "k", n); err == nil && r.OK() {
						mu.Lock()
						grants = append(grants, grant{time.Now().UnixMicro(), n})
						mu.Unlock()
					}
				}
				mu.Lock()
				leased += l.Stats().FromLease
				mu.Unlock()
				_ = l.Close(ctx)
			})
		}
		wg.Wait()
		// A reply that is late delays what was granted in that call by itself.
		requireBound(rt, limit, grants, float64(limit.Rate)*period.Seconds())
	})
	require.NotZero(t, leased)
}

// Near exhaustion nothing is taken in advance: what is left is there for all.
func TestLeaseShrinks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		o := Options{Prefix: redistest.Prefix(t), Lease: 5 * time.Second}
		limit := Limit{Rate: 1, Period: 24 * time.Hour, Burst: 400}
		ctx := t.Context()
		one, two := open(t, rdb, o, limit), open(t, rdb, o, limit)
		granted := 0
		for range 600 {
			r, err := one.Allow(ctx, "k")
			require.NoError(t, err)
			granted += int(r.Granted)
		}
		require.Equal(t, 400, granted, "one process alone gets everything")
		require.NotZero(t, one.Stats().FromLease)
		require.Less(t, one.Stats().Calls, uint64(60))
		r, err := two.Allow(ctx, "k")
		require.NoError(t, err)
		require.False(t, r.OK())
	})
}

func TestCloseGivesLeasesBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{Lease: 10 * time.Second}, Limit{Rate: 1, Period: time.Hour, Burst: 10_000})
		granted := map[string]int64{}
		for range 100 {
			for _, key := range []string{"a", "b", "c"} {
				r, err := l.Allow(t.Context(), key)
				require.NoError(t, err)
				granted[key] += r.Granted
			}
		}
		for key, n := range granted {
			require.Less(t, left(t, rdb, l, key), 10_000-n, "nothing was leased")
		}
		require.NoError(t, l.Close(t.Context()))
		for key, n := range granted {
			require.Equal(t, 10_000-n, left(t, rdb, l, key))
		}
	})
}

// A lease is void in time even if the process sleeps, and a Reset ends it.
func TestLeaseEnds(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Lease: 100 * time.Millisecond}, PerHour(10_000))
		source := func() Source {
			r, err := l.Allow(t.Context(), "k")
			require.NoError(t, err)
			require.True(t, r.OK())
			return r.Source
		}
		for source() != FromLease {
		}
		require.Equal(t, FromLease, source())
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, FromRedis, source())
		for source() != FromLease {
		}
		require.NoError(t, l.Reset(t.Context(), "k"))
		require.Equal(t, FromRedis, source())
	})
}

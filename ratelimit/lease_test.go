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
// in any t, whatever their load does, however slow replies are, and when some are lost.
func TestLeaseBound(t *testing.T) {
	leased, cut := uint64(0), 0
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		limit := Limit{Rate: rapid.Int64Range(1, 5000).Draw(rt, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 3000).Draw(rt, "burst")}
		period := time.Duration(rapid.Int64Range(1, 300).Draw(rt, "lease")) * time.Millisecond
		o := Options{Prefix: redistest.Prefix(t), Lease: period, Timeout: time.Second, WhenDown: FailClosed}
		seed := rapid.Uint64().Draw(rt, "seed")
		var mu sync.Mutex
		var grants []grant
		var wg sync.WaitGroup
		for p := range rapid.IntRange(1, 4).Draw(rt, "processes") {
			var faults redistest.Faults
			faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "eval", Times: -1, P: 0.2, Delay: period / 3})
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", Times: -1, P: 0.05})
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
				cut += faults.Fired(redistest.CutAfter)
				mu.Unlock()
				_ = l.Close(ctx)
			})
		}
		wg.Wait()
		// A reply that is late delays what was granted in that call by itself.
		requireBound(rt, limit, grants, float64(limit.Rate)*period.Seconds())
	})
	require.NotZero(t, leased)
	require.NotZero(t, cut)
}

// A lease is what callers need in its time: none where they are slow, a part of the
// burst where they are not. Without the option there is none.
func TestLeaseFollowsDemand(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		const period = 100 * time.Millisecond
		for _, c := range []struct {
			lease, pause time.Duration
			least, most  int64 // units of the leases
		}{
			{0, 0, 0, 0}, {0, time.Millisecond, 0, 0},
			{period, 2 * period, 0, 0},
			{period, period / 10, 5, 20},
			{period, period / 100, 50, 200},
		} {
			l := open(t, b.Client(), Options{Lease: c.lease}, Limit{Rate: 1, Period: time.Minute, Burst: 100_000})
			for i := range 2000 {
				r, err := l.Allow(t.Context(), "k")
				require.NoError(t, err)
				require.True(t, r.OK())
				if i > 1000 && r.Source == FromRedis {
					size := int64(0)
					if n := l.notes.find("k"); n != nil && n.lease.Load() != nil {
						size = n.lease.Load().size
					}
					require.GreaterOrEqual(t, size, c.least, "%+v", c)
					require.LessOrEqual(t, size, c.most, "%+v", c)
				}
				time.Sleep(c.pause)
			}
			require.Equal(t, c.most > 0, l.Stats().FromLease > 0)
			if c.most > 0 {
				require.Greater(t, l.Stats().FromLease, 5*l.Stats().Calls)
			}
		}
	})
}

// A few calls at once do not take in advance what a process would need that went on like
// that: of the units they cost, two in five or more are used.
func TestLeaseOfBursts(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		for calls := int64(1); calls <= 100; calls += 1 + calls/4 {
			l := open(t, b.Client(), Options{Lease: 100 * time.Millisecond}, Limit{Rate: 1, Period: time.Hour, Burst: 50_000})
			const bursts = 20
			for range bursts {
				for range calls {
					r, err := l.Allow(t.Context(), "k")
					require.NoError(t, err)
					require.True(t, r.OK())
				}
				time.Sleep(time.Second)
			}
			cost := 50_000 - left(t, b.Client(), l, "k")
			require.LessOrEqual(t, cost, 5*calls*bursts/2, "%d calls a second", calls)
		}
	})
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

// What is left when a call is denied stays there for it: whoever comes back at RetryAfter,
// alone, gets all that is due, as without leases.
func TestLeaseLeavesWhatWasDenied(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		for _, c := range []struct {
			limit    Limit
			first, n int64
		}{
			{PerSecond(10), 1, 10}, {PerSecond(10), 1, 5}, {PerSecond(10), 7, 5}, {PerSecond(100), 70, 50}, {PerMinute(60), 55, 10},
		} {
			l := open(t, b.Client(), Options{Lease: 100 * time.Millisecond}, c.limit)
			_, err := l.AllowN(t.Context(), "k", c.first)
			require.NoError(t, err)
			granted := int64(0)
			for began := time.Now(); time.Since(began) < 100*c.limit.Period; {
				r, err := l.AllowN(t.Context(), "k", c.n)
				require.NoError(t, err)
				granted += r.Granted
				time.Sleep(r.RetryAfter)
			}
			require.GreaterOrEqual(t, granted, 100*c.limit.Rate-c.n, "%+v", c)
			require.NoError(t, l.Reset(t.Context(), "k"))
		}
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

// AllowUpTo finds what is left of the lease here when Redis has nothing: asking for it,
// and from memory.
func TestAllowUpToTakesTheRestOfALease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		limit := Limit{Rate: 1, Period: time.Hour, Burst: 40}
		prefix := redistest.Prefix(t)
		l := open(t, b.Client(), Options{Prefix: prefix, Lease: 10 * time.Second}, limit)
		other := open(t, b.Client(), Options{Prefix: prefix}, limit)
		ctx := t.Context()
		for _, remembered := range []bool{false, true} {
			require.NoError(t, l.Reset(ctx, "k"))
			time.Sleep(time.Second)
			for has := int64(0); has < 4; {
				r, err := l.Allow(ctx, "k")
				require.NoError(t, err)
				require.True(t, r.OK())
				if le := l.notes.find("k").lease.Load(); le != nil {
					has = le.left.Load()
				}
			}
			note := l.notes.find("k")
			has := note.lease.Load().left.Load()
			_, err := other.AllowUpTo(ctx, "k", 40)
			require.NoError(t, err)
			if remembered { // as by another call at the same time
				now := l.clock()
				note.deny(1, verdict{us: time.Hour.Microseconds()}, now, now)
			}
			r, err := l.AllowUpTo(ctx, "k", has+5)
			require.NoError(t, err)
			require.Equal(t, has, r.Granted)
			require.Equal(t, FromLease, r.Source)
			require.InDelta(t, time.Hour, r.RetryAfter, float64(time.Minute))
			r, err = l.AllowUpTo(ctx, "k", 5)
			require.NoError(t, err)
			require.False(t, r.OK())
			require.Equal(t, FromMemory, r.Source)
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

// The worst that a lease can do: it is taken, the limit fills up again and is emptied by
// another process, and then the lease is spent. All of that must happen within its time.
func TestLateLeaseIsNotSpent(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		const period = 100 * time.Millisecond
		limit := PerSecond(1000)
		o := Options{Prefix: redistest.Prefix(t), Lease: period}
		one, two := open(t, b.Client(), o, limit), open(t, b.Client(), o, limit)
		var grants []grant
		ask := func(l *Limiter, n int64) bool {
			r, err := l.AllowN(t.Context(), "k", n)
			require.NoError(t, err)
			if r.OK() {
				grants = append(grants, grant{time.Now().UnixMicro(), n})
			}
			return r.OK()
		}
		for one.Stats().FromLease == 0 {
			require.True(t, ask(one, 1))
		}
		time.Sleep(time.Second)
		require.True(t, ask(two, 1000))
		for ask(one, 1) {
		}
		requireBound(t, limit, grants, float64(limit.Rate)*period.Seconds())
	})
}

package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The server's clock is set forward and back while calls go on. In real time, the
// bound holds with one burst more for each step forward, and none for steps back; and
// a step back shuts nobody out for longer than the burst takes to refill, and a second.
func TestServerClockSteps(t *testing.T) {
	m, rdb := redistest.Mini(t)
	rapid.Check(t, func(rt *rapid.T) {
		limit := Limit{Rate: rapid.Int64Range(1, 50).Draw(rt, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 50).Draw(rt, "burst")}
		l, err := New(rdb, []Limit{limit}, Options{Prefix: redistest.Prefix(t), Timeout: 10 * time.Second})
		require.NoError(rt, err)
		start := time.UnixMicro(1_700_000_000_000_000)
		real, offset := time.Duration(0), time.Duration(0)
		var grants []grant
		forward, back, due := int64(0), 0, new(big.Rat)
		for range rapid.IntRange(1, 60).Draw(rt, "calls") {
			pause := time.Duration(rapid.Int64Range(0, 300_000).Draw(rt, "pause")) * time.Microsecond
			real += pause
			due.Add(due, limit.refill(pause.Microseconds()))
			if rapid.IntRange(0, 9).Draw(rt, "step") == 0 {
				step := time.Duration(rapid.SampledFrom([]int64{-7_200_000, -2000, -900, -1, 1, 900, 5000, 7_200_000}).Draw(rt, "ms")) * time.Millisecond
				if offset += step; step > 0 {
					forward++
				} else {
					back++
				}
			}
			m.SetTime(start.Add(real + offset))
			v := askRedis(rt, l, run{n: 1, k: rapid.Int64Range(1, limit.Burst).Draw(rt, "k")})
			if v.granted > 0 {
				grants = append(grants, grant{real.Microseconds(), v.granted})
			}
			require.LessOrEqual(rt, v.us, l.rules[0].full+1+1_000_000, "somebody is shut out")
			if rapid.Bool().Draw(rt, "lives on") {
				// A server whose clock is set back keeps a key for as much longer. The
				// one of this test does not.
				require.NoError(rt, rdb.Persist(t.Context(), l.key("k")).Err())
			}
		}
		f, _ := excess(limit, grants).Float64()
		require.LessOrEqual(rt, f, float64(forward*limit.Burst))

		// Whatever happened, all is there again in the time that the burst takes and
		// the second for which time may stand still.
		real += time.Second + time.Duration(l.rules[0].full+1)*time.Microsecond
		m.SetTime(start.Add(real + offset))
		v := askRedis(rt, l, run{n: limit.Burst, k: 1})
		require.Equal(rt, int64(1), v.granted)
		require.NoError(rt, l.Close(t.Context()))
	})
}

// What a step back takes: what came back in as much time, at most since the last grant.
func TestClockSetBackTakesWhatCameBack(t *testing.T) {
	m, rdb := redistest.Mini(t)
	limit := PerHour(3600)
	for step, want := range map[time.Duration]int64{
		0: 1800, time.Second: 1799, 10 * time.Minute: 1200, 30 * time.Minute: 0, time.Hour: 0, 24 * time.Hour: 0,
	} {
		l := open(t, rdb, Options{}, limit)
		start := time.UnixMicro(1_700_000_000_000_000)
		m.SetTime(start)
		require.Equal(t, int64(1), askRedis(t, l, run{n: 3600, k: 1}).granted)
		require.NoError(t, rdb.Persist(t.Context(), l.key("k")).Err()) // as long as on a server whose clock is set back
		now := start.Add(30*time.Minute - step)
		m.SetTime(now)
		require.Equal(t, want, askRedis(t, l, run{k: 1}).left, "set back by %v", step)
		v := askRedis(t, l, run{n: 3600, k: 1})
		require.LessOrEqual(t, v.us, time.Hour.Microseconds())
		m.SetTime(now.Add(time.Duration(v.us) * time.Microsecond))
		require.Equal(t, int64(1), askRedis(t, l, run{n: 3600, k: 1}).granted)
	}
}

// A failover loses the last writes, and the new master's clock is another one: in real
// time the bound holds with one burst more for each.
func TestFailover(t *testing.T) {
	m, rdb := redistest.Mini(t)
	most := 0.0
	rapid.Check(t, func(rt *rapid.T) {
		limit := Limit{Rate: rapid.Int64Range(1, 50).Draw(rt, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 50).Draw(rt, "burst")}
		l, err := New(rdb, []Limit{limit}, Options{Prefix: redistest.Prefix(t), Timeout: 10 * time.Second})
		require.NoError(rt, err)
		start := time.UnixMicro(1_700_000_000_000_000)
		real, offset := time.Duration(0), time.Duration(0)
		var grants []grant
		replica, failovers := "", int64(0)
		for range rapid.IntRange(1, 60).Draw(rt, "calls") {
			real += time.Duration(rapid.Int64Range(0, 300_000).Draw(rt, "pause")) * time.Microsecond
			switch rapid.IntRange(0, 7).Draw(rt, "event") {
			case 0: // what the replica has is old from now on
				replica = rdb.Get(t.Context(), l.key("k")).Val()
			case 1:
				failovers++
				offset = time.Duration(rapid.Int64Range(-2_000_000, 2_000_000).Draw(rt, "clock")) * time.Microsecond
				if replica == "" {
					m.Del(l.key("k"))
				} else {
					require.NoError(rt, m.Set(l.key("k"), replica))
				}
			}
			m.SetTime(start.Add(real + offset))
			v := askRedis(rt, l, run{n: 1, k: rapid.Int64Range(1, limit.Burst).Draw(rt, "k")})
			if v.granted > 0 {
				grants = append(grants, grant{real.Microseconds(), v.granted})
			}
		}
		f, _ := excess(limit, grants).Float64()
		require.LessOrEqual(rt, f, float64(failovers*limit.Burst))
		most = max(most, f)
		require.NoError(rt, l.Close(t.Context()))
	})
	require.Positive(t, most, "no failover lost anything")
}

// Windows, too, survive a clock that is set back by a lot: at most a burst a step.
func TestWindowsWhenClockSteps(t *testing.T) {
	m, rdb := redistest.Mini(t)
	for _, a := range []Algorithm{FixedWindow, SlidingWindow, SlidingLog} {
		l := open(t, rdb, Options{}, Limit{Rate: 5, Period: time.Minute, Burst: 5, Algorithm: a})
		now := time.UnixMicro(1_700_000_010_000_000) // 10 s into a window
		at := func(d time.Duration) int64 {
			now = now.Add(d)
			m.SetTime(now)
			defer rdb.Persist(t.Context(), l.key("k")) // as long as on a server whose clock is set back
			return askRedis(t, l, run{n: 1, k: 10}).granted
		}
		require.Equal(t, int64(5), at(0))
		require.Zero(t, at(time.Second))
		require.Zero(t, at(-500*time.Millisecond), a)
		require.Zero(t, at(-24*time.Hour), a)
		require.Zero(t, at(time.Second))
		require.Equal(t, int64(5), at(2*time.Minute))
		require.Zero(t, at(-time.Hour))
		require.LessOrEqual(t, at(24*time.Hour), int64(5))
	}
}

// skewed decides as libraries do that let clients say what time it is: the negative
// control.
const skewed = `
local now, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens = tonumber(redis.call('HGET', KEYS[1], 't') or burst)
local last = tonumber(redis.call('HGET', KEYS[1], 'at') or now)
tokens = math.min(burst, tokens + math.max(0, now - last) * rate / 1000000)
local granted = 0
if tokens >= 1 then tokens, granted = tokens - 1, 1 end
redis.call('HSET', KEYS[1], 't', string.format('%.9f', tokens), 'at', string.format('%d', now))
return granted`

// Eight clients whose clocks are up to 2 s apart, over 8 s. Ours do not ask them; a
// script that does grants several times what is due, and the same oracle says so.
func TestClientClocksDoNotMatter(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		limit := PerSecond(10)
		old := redis.NewScript(skewed)
		var clients []*Limiter
		prefix := redistest.Prefix(t)
		for range 8 {
			clients = append(clients, open(t, b.Client(), Options{Prefix: prefix}, limit))
		}
		var ours, theirs []grant
		for range 8000 {
			time.Sleep(time.Millisecond)
			now, i := time.Now().UnixMicro(), rand.IntN(8)
			skew := int64(i-4) * 500_000
			r, err := clients[i].Allow(t.Context(), "k")
			require.NoError(t, err)
			if r.OK() {
				ours = append(ours, grant{now, 1})
			}
			n, err := old.Run(t.Context(), rdb, []string{"old"}, now+skew, limit.Rate, limit.Burst).Int64()
			require.NoError(t, err)
			if n > 0 {
				theirs = append(theirs, grant{now, 1})
			}
		}
		requireBound(t, limit, ours, 0)
		require.GreaterOrEqual(t, len(ours), 99*8*10/100)
		f, _ := excess(limit, theirs).Float64()
		require.Greater(t, f, 50.0, "the oracle does not catch a limiter that trusts its clients")
	})
}

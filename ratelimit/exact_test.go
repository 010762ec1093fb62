package ratelimit

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
)

// drawLimits draws limits whose arithmetic is easy to get wrong: rates that do not
// divide their period, bursts far from rates, windows that end in odd places.
func drawLimits(t *rapid.T) []Limit {
	n := rapid.IntRange(1, 3).Draw(t, "limits")
	limits := make([]Limit, n)
	for i := range limits {
		l := Limit{
			Name:      string(rune('a' + i)),
			Rate:      rapid.Int64Range(1, 30).Draw(t, "rate"),
			Period:    time.Duration(rapid.SampledFrom([]int64{1, 7, 1000, 999_983, 1_000_000, 3_600_000_000}).Draw(t, "period µs")) * time.Microsecond,
			Algorithm: Algorithm(rapid.IntRange(0, 3).Draw(t, "algorithm")),
		}
		if l.Burst = l.Rate; l.Algorithm == GCRA {
			l.Burst = rapid.Int64Range(1, 40).Draw(t, "burst")
			if rapid.IntRange(0, 9).Draw(t, "huge") == 0 { // sums close to 2^52
				l.Rate, l.Burst, l.Period = 1_299_709, 3_000_000_000, 24*time.Hour-time.Microsecond
			}
		}
		limits[i] = l
	}
	return limits
}

func drawRun(t *rapid.T, burst int64) run {
	q := run{n: rapid.Int64Range(0, min(burst, 50)).Draw(t, "n"), k: 1}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		q = run{n: 1, k: rapid.Int64Range(1, min(burst, 50)).Draw(t, "up to")}
	case 1:
		q.n = burst
	}
	return q
}

// drawPause draws how long nothing happens: next to nothing, a part of a period, or
// exactly what the last denial asked for, which is where rounding shows.
func drawPause(t *rapid.T, limits []Limit, retry int64) int64 {
	switch rapid.IntRange(0, 4).Draw(t, "pause") {
	case 0:
		return 0
	case 1, 2:
		return retry
	case 3:
		return max(0, retry-1)
	}
	l := rapid.SampledFrom(limits).Draw(t, "of")
	return rapid.Int64Range(0, 2*l.Period.Microseconds()).Draw(t, "µs")
}

// compare checks a verdict against the model, and that RetryAfter is exact: the units
// are there then, and not a microsecond before.
func compare(t require.TestingT, m *model, q run, v verdict, now int64) {
	want := m.take(q, now)
	require.Equal(t, want, v.granted, "granted of %+v at %d", q, now)
	least, which := m.available(now)
	require.Equal(t, least, v.left, "left after %+v at %d", q, now)
	if v.granted == q.k && (q.n > 0 || least > 0) {
		require.Contains(t, which, v.limit)
		require.Zero(t, v.us)
		return
	}
	n := max(1, q.n)
	require.Positive(t, v.us)
	require.True(t, m.enough(n, now+v.us), "%d units are not there after %d µs", n, v.us)
	require.False(t, m.enough(n, now+v.us-1), "%d units are there before %d µs", n, v.us)
}

// inBubbles runs a property in a bubble of its own each time. A failure is carried out
// of the bubble, for rapid to shrink it.
func inBubbles(t *testing.T, prop func(rt *rapid.T, t *testing.T, b *redistest.Env)) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			defer func() { failure = recover() }()
			prop(rt, t, b)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// askRedis asks Redis and no memory.
func askRedis(t require.TestingT, l *Limiter, q run) verdict {
	a, err := l.group.Do(context.Background(), laneNames[0], "", ask{key: "k", run: q}, 1)
	require.NoError(t, err)
	require.NoError(t, a.err)
	return a.verdict
}

func TestScriptIsExact(t *testing.T) {
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		limits := drawLimits(rt)
		l, err := New(rdb, limits, Options{Prefix: redistest.Prefix(t)})
		require.NoError(rt, err)
		m := newModel(limits)
		retry := int64(0)
		for range rapid.IntRange(1, 30).Draw(rt, "calls") {
			time.Sleep(time.Duration(drawPause(rt, limits, retry)) * time.Microsecond)
			q, now := drawRun(rt, l.burst), time.Now().UnixMicro()
			v := askRedis(rt, l, q)
			require.Equal(rt, now, v.now)
			compare(rt, m, q, v, now)
			retry = v.us
		}
		require.NoError(rt, l.Close(t.Context()))
	})
}

// The memory of denials changes no decision.
func TestMemoryIsExact(t *testing.T) {
	remembered := uint64(0)
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		limits := drawLimits(rt)
		l, err := New(rdb, limits, Options{Prefix: redistest.Prefix(t)})
		require.NoError(rt, err)
		m := newModel(limits)
		retry := int64(0)
		for range rapid.IntRange(1, 30).Draw(rt, "calls") {
			time.Sleep(time.Duration(drawPause(rt, limits, retry)) * time.Microsecond)
			q, now := drawRun(rt, l.burst), time.Now().UnixMicro()
			var a answer
			require.NoError(rt, l.take(t.Context(), "k", q, &a))
			require.Equal(rt, m.take(q, now), a.granted)
			if retry = a.us; a.granted == 0 && q.n > 0 {
				require.Positive(rt, a.us)
				require.False(rt, m.enough(q.n, now+a.us-1), "RetryAfter is too late")
			}
		}
		remembered += l.Stats().FromMemory
		require.NoError(rt, l.Close(t.Context()))
	})
	require.NotZero(t, remembered)
}

func TestLocalIsExact(t *testing.T) {
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		limits := drawLimits(rt)
		l, err := NewLocal(limits)
		require.NoError(rt, err)
		m := newModel(limits)
		retry := int64(0)
		for range rapid.IntRange(1, 60).Draw(rt, "calls") {
			time.Sleep(time.Duration(drawPause(rt, limits, retry)) * time.Microsecond)
			q, now := drawRun(rt, l.burst), time.Since(l.local.base).Microseconds()
			var v verdict
			l.local.take("k", q, &v)
			compare(rt, m, q, v, now)
			retry = v.us
		}
	})
}

// The same on a real server, whose Lua is another one. Time passes by itself.
func TestScriptIsExactOnServers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			limits := drawLimits(rt)
			for i := range limits { // some that refill while we look
				limits[i].Period = max(limits[i].Period, 300*time.Microsecond)
			}
			l, err := New(rdb, limits, Options{Prefix: redistest.Prefix(t), Timeout: 10 * time.Second})
			require.NoError(rt, err)
			m := newModel(limits)
			for range rapid.IntRange(1, 20).Draw(rt, "calls") {
				q := drawRun(rt, l.burst)
				v := askRedis(rt, l, q)
				compare(rt, m, q, v, v.now)
			}
			require.NoError(rt, l.Close(t.Context()))
		})
	})
}

// A batch is decided call by call, in order.
func TestBatchIsInOrder(t *testing.T) {
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		limits := drawLimits(rt)
		l, err := New(rdb, limits, Options{Prefix: redistest.Prefix(t)})
		require.NoError(rt, err)
		models := map[string]*model{}
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			time.Sleep(time.Duration(drawPause(rt, limits, 0)) * time.Microsecond)
			var batch []ask
			for range rapid.IntRange(1, 20).Draw(rt, "calls") {
				key := rapid.SampledFrom([]string{"x", "x", "x", "y", "z"}).Draw(rt, "key")
				batch = append(batch, ask{key: key, run: drawRun(rt, l.burst)})
			}
			answers, err := l.flush(t.Context(), laneNames[0], slices.Clone(batch))
			require.NoError(rt, err)
			now := time.Now().UnixMicro()
			for i, q := range batch {
				if models[q.key] == nil {
					models[q.key] = newModel(limits)
				}
				m := models[q.key]
				require.NoError(rt, answers[i].err)
				require.Equal(rt, m.take(q.run, now), answers[i].granted, "call %d of %+v", i, batch)
				if answers[i].granted < q.k && q.n > 0 {
					require.Positive(rt, answers[i].us)
				}
			}
		}
		require.NoError(rt, l.Close(t.Context()))
	})
}

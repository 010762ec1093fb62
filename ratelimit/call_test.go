package ratelimit

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// open returns a limiter that no other test shares keys with.
func open(t testing.TB, rdb redis.UniversalClient, opts Options, limits ...Limit) *Limiter {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	if opts.Timeout == 0 {
		opts.Timeout = 20 * time.Second // a busy machine is no outage
	}
	l, err := New(rdb, limits, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close(context.WithoutCancel(t.Context()))) })
	return l
}

// eachLimiter runs f on every kind of Redis and without.
func eachLimiter(t *testing.T, limits []Limit, f func(t *testing.T, l *Limiter)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) { f(t, open(t, rdb, Options{}, limits...)) })
	t.Run("local", func(t *testing.T) {
		l, err := NewLocal(limits)
		require.NoError(t, err)
		f(t, l)
	})
}

func TestCalls(t *testing.T) {
	eachLimiter(t, []Limit{PerHour(10)}, func(t *testing.T, l *Limiter) {
		ctx := t.Context()
		for n, want := range []int64{0, 9, 7, 4} {
			if n == 0 {
				continue
			}
			r, err := l.AllowN(ctx, "k", int64(n))
			require.NoError(t, err)
			require.True(t, r.OK())
			require.Equal(t, int64(n), r.Granted)
			require.Equal(t, want, r.Remaining)
			require.Zero(t, r.RetryAfter)
			require.InDelta(t, (10-want)*360, r.ResetAfter.Seconds(), 30)
			require.Equal(t, "10/1h0m0s", r.Limiting)
		}
		r, err := l.AllowN(ctx, "k", 5)
		require.NoError(t, err)
		require.False(t, r.OK())
		require.Zero(t, r.Granted)
		require.Equal(t, int64(4), r.Remaining)
		require.InDelta(t, 360, r.RetryAfter.Seconds(), 30)

		for range 2 { // looks take nothing
			r, err = l.Peek(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, int64(4), r.Remaining)
			require.Zero(t, r.Granted)
			r, err = l.AllowN(ctx, "k", 0)
			require.NoError(t, err)
			require.Equal(t, int64(4), r.Remaining)
		}

		r, err = l.AllowUpTo(ctx, "k", 1000)
		require.NoError(t, err)
		require.Equal(t, int64(4), r.Granted)
		require.Zero(t, r.Remaining)
		require.InDelta(t, 360, r.RetryAfter.Seconds(), 30)
		r, err = l.Peek(ctx, "k")
		require.NoError(t, err)
		require.InDelta(t, 360, r.RetryAfter.Seconds(), 30)
		r, err = l.AllowUpTo(ctx, "k", 0)
		require.NoError(t, err)
		require.Zero(t, r.Granted)

		_, err = l.AllowN(ctx, "k", 11)
		require.ErrorIs(t, err, ErrExceedsBurst)
		_, err = l.AllowN(ctx, "k", -1)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = l.AllowUpTo(ctx, "k", -1)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorIs(t, l.WaitN(ctx, "k", 11), ErrExceedsBurst)
		_, err = l.Reserve(ctx, "k", -1)
		require.ErrorIs(t, err, ErrInvalid)

		require.NoError(t, l.Reset(ctx, "k"))
		r, err = l.AllowN(ctx, "k", 10)
		require.NoError(t, err)
		require.True(t, r.OK())

		left, cancel := context.WithCancel(ctx)
		cancel()
		_, err = l.Allow(left, "k")
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.Canceled)

		require.NoError(t, l.Close(ctx))
		require.NoError(t, l.Close(ctx))
		_, err = l.Allow(ctx, "k")
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorIs(t, l.Reset(ctx, "k"), ErrClosed)
		require.ErrorIs(t, l.Wait(ctx, "k"), ErrClosed)
	})
}

func TestSeveralLimits(t *testing.T) {
	second, hour := PerHour(3), PerHour(20).WithBurst(5)
	second.Name, hour.Name, second.Algorithm = "three", "five", FixedWindow
	second.Period = 360 * 24 * time.Hour // its window does not end in this test
	eachLimiter(t, []Limit{second, hour}, func(t *testing.T, l *Limiter) {
		ctx := t.Context()
		_, err := l.AllowN(ctx, "k", 4) // more than one of them ever has
		require.ErrorIs(t, err, ErrExceedsBurst)
		r, err := l.AllowN(ctx, "k", 2)
		require.NoError(t, err)
		require.Equal(t, int64(1), r.Remaining)
		require.Equal(t, "three", r.Limiting)
		for range 3 {
			r, err = l.AllowN(ctx, "k", 2)
			require.NoError(t, err)
			require.False(t, r.OK())
			require.Equal(t, "three", r.Limiting)
		}
		// Nothing was taken from the other limit by the denials.
		if l.rdb != nil {
			a, err := l.group.Do(ctx, laneNames[0], "", ask{key: "k", run: run{n: 1, k: 9}}, 1)
			require.NoError(t, err)
			require.Equal(t, int64(1), a.granted)
		} else {
			require.Equal(t, int64(3), l.local.shard("k").buckets["k"].meters[1].available(&l.rules[1], time.Since(l.local.base).Microseconds()))
		}
	})
}

// What users name can neither meet the key of another user nor leave the prefix.
func TestAnyKey(t *testing.T) {
	keys := []string{
		"", " ", "a", "A", "{a}", "a}", "{", "}", "a:b", "%7B", "\x00", "\n", "a\nb", "é", "\xff\xfe", "*", "state",
		strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("x", 10_000), strings.Repeat("{", 10_000),
	}
	eachLimiter(t, []Limit{PerHour(1)}, func(t *testing.T, l *Limiter) {
		for _, key := range keys {
			for _, want := range []bool{true, false, false} {
				r, err := l.Allow(t.Context(), key)
				require.NoError(t, err)
				require.Equal(t, want, r.OK(), "key %q", key)
			}
		}
	})
}

// Limiters with other limits or another name count apart, the same ones together.
func TestLimitersApart(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		o := Options{Prefix: redistest.Prefix(t)}
		named := o
		named.Name = "login"
		for i, l := range []*Limiter{
			open(t, rdb, o, PerHour(1)), open(t, rdb, o, PerHour(2)), open(t, rdb, named, PerHour(1)),
			open(t, rdb, o, PerHour(1), PerMinute(1)), open(t, rdb, o, PerHour(1)),
		} {
			r, err := l.Allow(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, i < 4, r.OK(), "limiter %d", i)
		}
	})
}

// A key that is not ours is an error and no outage, and so is a closed client.
func TestScriptErrorIsNoOutage(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{WhenDown: FailOpen}, PerHour(1))
		require.NoError(t, rdb.SAdd(t.Context(), l.key("k"), "x").Err())
		for range 5 {
			_, err := l.Allow(t.Context(), "k")
			require.ErrorIs(t, err, ErrUnknown)
			require.ErrorContains(t, err, "WRONGTYPE")
		}
		require.Zero(t, l.Stats().WhenDown)
		require.False(t, l.Stats().Down)
	})
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	require.NoError(t, rdb.Close())
	_, err := open(t, rdb, Options{WhenDown: FailOpen}, PerHour(1)).Allow(t.Context(), "k")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, redis.ErrClosed)
}

// A key lives until its limits are full, never for ever, never for no time at all.
func TestKeysExpire(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		for _, c := range []struct {
			limit    Limit
			min, max time.Duration
		}{
			{PerHour(10), 5 * time.Minute, 6*time.Minute + 2*time.Millisecond},
			{PerSecond(1_000_000), time.Millisecond, 3 * time.Millisecond},
			{Limit{Rate: 5, Period: time.Hour, Burst: 5, Algorithm: FixedWindow}, time.Millisecond, time.Hour + 2*time.Millisecond},
			{Limit{Rate: 5, Period: time.Hour, Burst: 5, Algorithm: SlidingWindow}, time.Hour, 2*time.Hour + 2*time.Millisecond},
			{Limit{Rate: 5, Period: time.Hour, Burst: 5, Algorithm: SlidingLog}, 59 * time.Minute, time.Hour + 2*time.Millisecond},
		} {
			l := open(t, rdb, Options{}, c.limit)
			for range 2 {
				r, err := l.Allow(ctx, "k")
				require.NoError(t, err)
				require.True(t, r.OK())
				ttl, err := rdb.PTTL(ctx, l.key("k")).Result()
				require.NoError(t, err)
				if c.max < time.Second {
					require.NotEqual(t, time.Duration(-1), ttl, "no TTL") // perhaps over before we looked
					continue
				}
				require.GreaterOrEqual(t, ttl, c.min, "%+v", c.limit)
				require.LessOrEqual(t, ttl, c.max, "%+v", c.limit)
				require.NoError(t, rdb.Del(ctx, l.key("k")).Err())
			}
			denied := open(t, rdb, Options{}, c.limit)
			_, err := denied.Peek(ctx, "k")
			require.NoError(t, err)
			require.Zero(t, rdb.Exists(ctx, denied.key("k")).Val(), "a look wrote")
		}
	})
}

// A caller who leaves is not held up by the round trip, and gets its ctx's error.
func TestCallerLeaves(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		l := open(t, b.Client(faults.Options), Options{WhenDown: FailOpen}, PerHour(5))
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := l.Allow(ctx, "k")
		require.Equal(t, 10*time.Millisecond, time.Since(began))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, l.Stats().WhenDown)
	})
}

package ratelimit

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestFloodOfDenials(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{}, PerHour(10))
		ctx := t.Context()
		ask := func(n int64, from Source) {
			t.Helper()
			r, err := l.AllowN(ctx, "k", n)
			require.NoError(t, err)
			require.False(t, r.OK())
			require.Equal(t, from, r.Source)
			require.InDelta(t, 3600*float64(n-r.Remaining)/10, r.RetryAfter.Seconds(), 3600)
			require.Positive(t, r.RetryAfter)
		}
		r, err := l.AllowN(ctx, "k", 4)
		require.NoError(t, err)
		require.True(t, r.OK())
		ask(9, FromRedis)
		ask(8, FromRedis) // smaller costs still ask
		for range 1000 {
			ask(8, FromMemory)
			ask(9, FromMemory)
			ask(10, FromMemory)
		}
		ask(7, FromRedis)
		r, err = l.AllowN(ctx, "k", 6)
		require.NoError(t, err)
		require.True(t, r.OK())
		ask(1, FromRedis)
		for n := range int64(10) {
			ask(n+1, FromMemory)
		}
		require.Equal(t, uint64(6), l.Stats().Calls)
		require.Equal(t, uint64(3010), l.Stats().FromMemory)
	})
}

// Reset is known here at once, elsewhere at RetryAfter.
func TestResetClearsMemory(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		o := Options{Prefix: redistest.Prefix(t)}
		here, there := open(t, b.Client(), o, PerMinute(2)), open(t, b.Client(), o, PerMinute(2))
		ctx := t.Context()
		var retry time.Duration
		for _, l := range []*Limiter{here, there} {
			for range 3 {
				r, err := l.AllowN(ctx, "k", 2)
				require.NoError(t, err)
				retry = r.RetryAfter
			}
		}
		require.Equal(t, time.Minute, retry)
		require.NoError(t, here.Reset(ctx, "k"))
		r, err := here.AllowN(ctx, "k", 1)
		require.NoError(t, err)
		require.True(t, r.OK())

		time.Sleep(retry - time.Microsecond)
		r, err = there.AllowN(ctx, "k", 2)
		require.NoError(t, err)
		require.Equal(t, FromMemory, r.Source)
		require.False(t, r.OK())
		time.Sleep(time.Microsecond)
		r, err = there.AllowN(ctx, "k", 2)
		require.NoError(t, err)
		require.True(t, r.OK())
	})
}

// What a turn that is given back brings is known here at once, elsewhere at RetryAfter,
// as it is after a Reset; also where the reply is lost.
func TestCancelClearsMemory(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = time.Second })
		o := Options{Prefix: redistest.Prefix(t), Timeout: 500 * time.Millisecond}
		here, there := open(t, rdb, o, PerHour(10)), open(t, b.Client(), o, PerHour(10))
		ctx := t.Context()
		ask := func(l *Limiter, ok bool, from Source) {
			t.Helper()
			r, err := l.Allow(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, ok, r.OK())
			require.Equal(t, from, r.Source)
		}
		turn, err := here.Reserve(ctx, "k", 10)
		require.NoError(t, err)
		ask(here, false, FromRedis)
		ask(there, false, FromRedis)
		require.NoError(t, turn.Cancel(ctx))
		ask(here, true, FromRedis)
		ask(there, false, FromMemory)

		// Somebody waits for hours, and leaves.
		time.Sleep(time.Hour)
		_, err = here.AllowN(ctx, "k", 10)
		require.NoError(t, err)
		waiting, leave := context.WithCancel(ctx)
		time.AfterFunc(time.Second, func() {
			ask(here, false, FromRedis)
			ask(here, false, FromMemory)
			leave()
		})
		require.ErrorIs(t, here.WaitN(waiting, "k", 10), context.Canceled)
		time.Sleep(6 * time.Minute)
		ask(here, true, FromRedis)

		// The units come back and nobody hears of it.
		turn, err = here.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		require.Positive(t, turn.Delay())
		ask(here, false, FromRedis)
		ask(here, false, FromMemory)
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "eval"})
		require.ErrorIs(t, turn.Cancel(ctx), ErrUnknown)
		time.Sleep(time.Second)
		ask(here, false, FromRedis)

		// Nothing came back: what is remembered still holds.
		first, err := here.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		_, err = here.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		ask(here, false, FromMemory)
		require.NoError(t, first.Cancel(ctx))
		ask(here, false, FromMemory)
	})
}

// Units that come back do not end a lease: it was taken.
func TestCancelKeepsLease(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l := open(t, b.Client(), Options{Lease: 10 * time.Second}, PerHour(1000))
		ctx := t.Context()
		for l.Stats().FromLease == 0 {
			_, err := l.Allow(ctx, "k")
			require.NoError(t, err)
		}
		before := l.notes.find("k").lease.Load().left.Load()
		require.Positive(t, before)
		turn, err := l.Reserve(ctx, "k", before+1) // more than the lease has
		require.NoError(t, err)
		require.NoError(t, turn.Cancel(ctx))
		le := l.notes.find("k").lease.Load()
		require.NotNil(t, le)
		require.Equal(t, before, le.left.Load())
	})
}

// An answer to what was sent before a Reset says nothing any more.
func TestLateDenialAfterReset(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		l := open(t, b.Client(faults.Options), Options{}, PerMinute(1))
		ctx := t.Context()
		_, err := l.Allow(ctx, "k")
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second})
		denied := make(chan Result)
		go func() {
			r, _ := l.Allow(ctx, "k")
			denied <- r
		}()
		time.Sleep(500 * time.Millisecond) // Redis has answered, the reply is on its way
		require.NoError(t, l.Reset(ctx, "k"))
		require.False(t, (<-denied).OK())
		r, err := l.Allow(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, FromRedis, r.Source)
		require.True(t, r.OK())
	})
}

// However many keys are denied, and however long they are, memory is bounded.
func TestMemoryIsBounded(t *testing.T) {
	l, err := New(redis.NewClient(&redis.Options{}), []Limit{PerHour(1)}, Options{})
	require.NoError(t, err)
	for i := range 3 * noteShards * maxNotes {
		key := fmt.Sprint(i)
		if i%3 == 0 {
			key = strings.Repeat("x", 300) + key
		}
		now := l.clock()
		n := l.notes.make(key, "", now)
		n.deny(1, verdict{us: 1e9}, now, now)
		require.Same(t, n, l.notes.find(key))
	}
	total := 0
	for i := range l.notes.shards {
		total += len(l.notes.shards[i].notes)
		for key := range l.notes.shards[i].notes {
			require.LessOrEqual(t, len(key), maxKept+32)
		}
	}
	require.LessOrEqual(t, total, noteShards*maxNotes)
	require.Greater(t, total, noteShards*maxNotes/2)
}

// What is remembered for one cost is right for larger ones, and no smaller cost
// hides that a larger one is denied for longer.
func TestDenialsByCost(t *testing.T) {
	n := &note{resetAt: -keepReset}
	until := func(units, now int64) int64 {
		var v verdict
		if !n.denied(units, now, &v) {
			return 0
		}
		return now/1000 + v.us
	}
	n.deny(10, verdict{us: 1000}, 1, 1)
	n.deny(1, verdict{us: 100}, 1, 1)
	n.deny(5, verdict{us: 500}, 1, 1)
	require.Len(t, *n.denials.Load(), 3)
	for units, want := range []int64{0, 100, 100, 100, 100, 500, 500, 500, 500, 500, 1000, 1000} {
		require.InDelta(t, want, until(int64(units), 1), 1, "units %d", units)
	}
	require.Zero(t, until(1, 101_000))
	require.InDelta(t, 500, until(7, 101_000), 1)

	n.deny(2, verdict{us: 2000}, 1, 1) // what it outlasts goes
	require.Len(t, *n.denials.Load(), 2)
	require.InDelta(t, 2000, until(10, 1), 1)
	for i := range int64(20) {
		n.deny(20-i, verdict{us: 10000 - i}, 1, 1)
	}
	require.LessOrEqual(t, len(*n.denials.Load()), maxDenials)
	require.InDelta(t, 9981, until(1, 1), 1)
}

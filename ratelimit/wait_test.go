package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillway-go/spillway/internal/redistest"
)

// eachInBubble runs f in virtual time, on miniredis and without Redis.
func eachInBubble(t *testing.T, limits []Limit, f func(t *testing.T, l *Limiter)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) { f(t, open(t, b.Client(), Options{}, limits...)) })
	})
	t.Run("local", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, _ *redistest.Env) {
			l, err := NewLocal(limits)
			require.NoError(t, err)
			f(t, l)
		})
	})
}

func TestWait(t *testing.T) {
	eachInBubble(t, []Limit{PerSecond(7).WithBurst(2)}, func(t *testing.T, l *Limiter) {
		began := time.Now()
		for i := range int64(30) {
			require.NoError(t, l.Wait(t.Context(), "k"))
			// The i-th unit is there after ceil((i-1)/7 s): no drift.
			due := max(0, i-1)
			require.Equal(t, time.Duration((due*1_000_000+6)/7)*time.Microsecond, time.Since(began))
		}
		require.NoError(t, l.WaitN(t.Context(), "k", 0))

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began = time.Now()
		require.ErrorIs(t, l.WaitN(ctx, "k", 2), context.DeadlineExceeded)
		require.Zero(t, time.Since(began), "the error comes at once")
		require.NoError(t, ctx.Err())
		require.NoError(t, l.WaitN(t.Context(), "k", 2))
		require.Equal(t, 285715*time.Microsecond, time.Since(began), "a turn that was not taken costs nothing")
	})
}

// Turns come in the order of the calls: small ones do not starve a large one.
func TestLargeCallsGetTheirTurn(t *testing.T) {
	eachInBubble(t, []Limit{PerSecond(10)}, func(t *testing.T, l *Limiter) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 { // they ask for all there is, for ever
			wg.Go(func() {
				for l.Wait(ctx, "k") == nil {
				}
			})
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		require.NoError(t, l.WaitN(ctx, "k", 10))
		require.LessOrEqual(t, time.Since(began), 3*time.Second+time.Millisecond) // 20 waiting, and its own 10
		cancel()
		wg.Wait()
	})
}

// A caller that leaves gives its turn back if nobody came after it.
func TestWaitIsCancelled(t *testing.T) {
	eachInBubble(t, []Limit{PerMinute(1)}, func(t *testing.T, l *Limiter) {
		require.NoError(t, l.Wait(t.Context(), "k"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		require.ErrorIs(t, l.Wait(ctx, "k"), context.Canceled)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, l.Wait(t.Context(), "k"))
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestWaitForWindows(t *testing.T) {
	for _, a := range []Algorithm{FixedWindow, SlidingWindow, SlidingLog} {
		limit := Limit{Rate: 2, Period: time.Second, Burst: 2, Algorithm: a}
		eachInBubble(t, []Limit{limit, PerHour(1000)}, func(t *testing.T, l *Limiter) {
			_, err := l.Reserve(t.Context(), "k", 1)
			require.ErrorIs(t, err, ErrInvalid)
			began := time.Now()
			for range 20 {
				require.NoError(t, l.Wait(t.Context(), "k"))
			}
			due := 9.5
			if a == SlidingWindow { // it loses up to a unit a window to rounding
				due = 18.5
			}
			require.InDelta(t, due, time.Since(began).Seconds(), 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			defer cancel()
			require.ErrorIs(t, l.WaitN(ctx, "k", 2), context.DeadlineExceeded)
		})
	}
}

func TestReserve(t *testing.T) {
	eachInBubble(t, []Limit{PerMinute(1), PerSecond(10)}, func(t *testing.T, l *Limiter) {
		ctx := t.Context()
		first, err := l.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		require.True(t, first.OK())
		require.Zero(t, first.Delay())
		second, err := l.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		third, err := l.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		require.Equal(t, 2*time.Minute, third.Delay())
		require.NoError(t, second.Cancel(ctx)) // others stand behind it: nothing comes back
		fourth, err := l.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		require.Equal(t, 3*time.Minute, fourth.Delay())
		require.NoError(t, fourth.Cancel(ctx))
		require.NoError(t, third.Cancel(ctx)) // the last that is left, but not the last call
		time.Sleep(time.Minute)
		again, err := l.Reserve(ctx, "k", 1)
		require.NoError(t, err)
		require.GreaterOrEqual(t, again.Delay(), time.Minute)

		far, err := l.Reserve(ctx, "other", 1)
		require.NoError(t, err)
		for far.OK() {
			far, err = l.Reserve(ctx, "other", 1)
			require.NoError(t, err)
		}
		require.Positive(t, far.Delay())
		require.NoError(t, far.Cancel(ctx))
	})
}

// A turn that lies ahead is charged to all limits at its time; one that is cancelled
// leaves nothing of that behind, in the limits that did not make it wait either.
func TestCancelledTurnLeavesNoTrace(t *testing.T) {
	day := Limit{Rate: 10, Period: 24 * time.Hour, Burst: 10}
	eachInBubble(t, []Limit{day, PerSecond(7).WithBurst(100), PerHour(1000)}, func(t *testing.T, l *Limiter) {
		ctx := t.Context()
		_, err := l.AllowN(ctx, "k", 5)
		require.NoError(t, err)
		for range 3 {
			before, err := l.Peek(ctx, "k")
			require.NoError(t, err)
			turn, err := l.Reserve(ctx, "k", 10)
			require.NoError(t, err)
			require.Greater(t, turn.Delay(), 10*time.Hour)
			require.NoError(t, turn.Cancel(ctx))
			after, err := l.Peek(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, before, after)

			waiting, leave := context.WithTimeout(ctx, 13*time.Hour)
			time.AfterFunc(time.Second, leave)
			require.ErrorIs(t, l.WaitN(waiting, "k", 10), context.Canceled)
			time.Sleep(300 * time.Millisecond)
		}
		r, err := l.AllowN(ctx, "k", 5)
		require.NoError(t, err)
		require.True(t, r.OK())
	})
}

// Turns given in advance, some cancelled, mixed with calls that do not wait: in no
// window is there more than the limits say.
func TestTurnsKeepTheLimits(t *testing.T) {
	inBubbles(t, func(rt *rapid.T, t *testing.T, b *redistest.Env) {
		limits := []Limit{
			{Name: "a", Rate: rapid.Int64Range(1, 9).Draw(rt, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 9).Draw(rt, "burst")},
			{Name: "b", Rate: rapid.Int64Range(1, 40).Draw(rt, "rate"), Period: 5 * time.Second, Burst: rapid.Int64Range(1, 20).Draw(rt, "burst")},
		}
		l, err := New(b.Client(), limits, Options{Prefix: redistest.Prefix(t), Timeout: time.Second})
		require.NoError(rt, err)
		if rapid.Bool().Draw(rt, "local") {
			require.NoError(rt, l.Close(t.Context()))
			l, err = NewLocal(limits)
			require.NoError(rt, err)
		}
		var acts []grant
		for range rapid.IntRange(1, 40).Draw(rt, "calls") {
			time.Sleep(time.Duration(rapid.Int64Range(0, 300_000).Draw(rt, "pause")) * time.Microsecond)
			n, now := rapid.Int64Range(1, l.burst).Draw(rt, "n"), time.Now().UnixMicro()
			if rapid.Bool().Draw(rt, "allow") {
				r, err := l.AllowN(t.Context(), "k", n)
				require.NoError(rt, err)
				if r.OK() {
					acts = append(acts, grant{now, n})
				}
				continue
			}
			turn, err := l.Reserve(t.Context(), "k", n)
			require.NoError(rt, err)
			if rapid.IntRange(0, 2).Draw(rt, "cancel") == 0 {
				time.Sleep(time.Duration(rapid.SampledFrom([]int64{0, 0, 100_000}).Draw(rt, "later")) * time.Microsecond)
				require.NoError(rt, turn.Cancel(t.Context()))
			} else if turn.OK() {
				acts = append(acts, grant{now + turn.Delay().Microseconds(), n})
			}
		}
		require.NoError(rt, l.Close(t.Context()))
		for _, limit := range limits {
			requireBound(rt, limit, acts, 0)
		}
	})
}

// A turn that is cancelled long after it was over takes nothing back from those who
// came since, also where its key was forgotten in between.
func TestCancelTooLate(t *testing.T) {
	eachInBubble(t, []Limit{PerMinute(5)}, func(t *testing.T, l *Limiter) {
		ctx := t.Context()
		turn, err := l.Reserve(ctx, "k", 5)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		for i := range tableShards * minSlots * 2 {
			if l.rdb != nil {
				break
			}
			_, err := l.Allow(ctx, fmt.Sprint(i))
			require.NoError(t, err)
		}
		require.Nil(t, l.local.bucket("k"), "the key was not forgotten")
		r, err := l.AllowN(ctx, "k", 5)
		require.NoError(t, err)
		require.True(t, r.OK())
		require.NoError(t, turn.Cancel(ctx))
		r, err = l.Peek(ctx, "k")
		require.NoError(t, err)
		require.Zero(t, r.Remaining)
	})
}

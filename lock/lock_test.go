package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// open returns a Locker that the end of the test closes.
func open(t testing.TB, rdb redis.UniversalClient, opts Options) *Locker {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	l, err := New(rdb, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		_ = l.Close(ctx)
	})
	return l
}

func TestLockAndUnlock(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{})
		other := open(t, rdb, Options{Prefix: l.opts.Prefix})
		ctx, lease, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, ctx.Err())
		require.Positive(t, lease.Fence())
		require.Less(t, lease.Fence(), int64(1)<<53)
		require.True(t, lease.Valid(time.Second))
		require.WithinRange(t, lease.Deadline(), time.Now().Add(9*time.Second), time.Now().Add(10*time.Second))

		_, _, err = l.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired)
		_, _, err = other.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired)
		_, b, err := other.TryLock(t.Context(), "b")
		require.NoError(t, err)
		require.NoError(t, b.Unlock(t.Context()))

		h, err := other.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, Holder{Held: true, Fence: lease.Fence(), Left: h.Left}, h)
		require.Positive(t, h.Left)
		h, err = l.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.True(t, h.Mine)

		require.NoError(t, lease.Unlock(t.Context()))
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.False(t, lease.Valid(0))
		require.ErrorIs(t, lease.Unlock(t.Context()), ErrNotHeld)
		h, err = l.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, Holder{Fence: lease.Fence()}, h)

		_, next, err := other.TryLock(t.Context(), "a")
		require.NoError(t, err)
		require.Greater(t, next.Fence(), lease.Fence())
		require.NoError(t, next.Unlock(t.Context()))
	})
}

// No two holders at a time, fences that only grow, in two processes' worth of
// Lockers, with callers that give up.
func TestMutualExclusion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		exclusion(t, rdb, Options{Prefix: redistest.Prefix(t)})
		exclusion(t, rdb, Options{Prefix: redistest.Prefix(t), Linger: 5 * time.Millisecond})
	})
}

func exclusion(t *testing.T, rdb redis.UniversalClient, opts Options) {
	var (
		inside  atomic.Int32
		fence   atomic.Int64
		done    atomic.Int32
		workers sync.WaitGroup
		lockers []*Locker
	)
	for range 3 {
		l := open(t, rdb, opts)
		lockers = append(lockers, l)
		for w := range 8 {
			workers.Go(func() {
				for i := range 30 {
					ctx := t.Context()
					if (w+i)%5 == 0 {
						c, cancel := context.WithTimeout(ctx, time.Duration(i%7)*time.Millisecond)
						defer cancel()
						ctx = c
					}
					err := l.Do(ctx, "a", func(_ context.Context, s *Lease) error {
						if inside.Add(1) != 1 {
							return errors.New("two at a time")
						}
						if before := fence.Swap(s.Fence()); before >= s.Fence() {
							return fmt.Errorf("fence %d after %d", s.Fence(), before)
						}
						done.Add(1)
						inside.Add(-1)
						return nil
					})
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
				}
			})
		}
	}
	workers.Wait()
	require.Positive(t, done.Load())
	for _, l := range lockers {
		require.Zero(t, l.Stats().Lost)
		require.Zero(t, l.Stats().Rescued)
		require.Eventually(t, func() bool { // leases that came too late are given back in the background
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.gates) == 0 && l.terms == 0
		}, time.Minute, time.Millisecond)
	}
}

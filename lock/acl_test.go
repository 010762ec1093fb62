package lock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The commands that doc.go lists are enough: to hold, renew, wait and pass on.
func TestACL(t *testing.T) {
	t.Parallel()
	type locking func(context.Context) (context.Context, *Lease, error)
	_, rdb := redistest.Limited(t)
	for name, opts := range map[string]Options{"plain": {}, "fair": {Fair: true}, "lingering": {Linger: time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // all wait for renewals
			ctx := t.Context()
			opts.TTL = 6 * time.Second
			l := open(t, rdb, opts)
			opts.Prefix = l.opts.Prefix
			other := open(t, rdb, opts)
			lock := func(l *Locker) locking {
				return func(ctx context.Context) (context.Context, *Lease, error) { return l.Lock(ctx, "a") }
			}
			var held []*Lease
			next := make(chan *Lease, 3)
			for _, locks := range [][2]locking{
				{lock(l), lock(other)},
				{l.RW("a").RLock, other.RW("a").Lock},
				{l.Semaphore("a", 1).Lock, other.Semaphore("a", 1).Lock},
			} {
				_, s, err := locks[0](ctx)
				require.NoError(t, err)
				held = append(held, s)
				go func() {
					_, s, err := locks[1](ctx)
					if err != nil {
						t.Error(err)
					}
					next <- s
				}()
			}
			require.Eventually(t, func() bool { return l.Stats().Renewals >= 3 }, time.Minute, time.Millisecond)
			holder, err := other.Holder(ctx, "a")
			require.NoError(t, err)
			require.True(t, holder.Held)
			for _, s := range held {
				require.NoError(t, s.Unlock(ctx))
			}
			for range held {
				require.NoError(t, (<-next).Unlock(ctx))
			}
			_, _, err = l.Lock(ctx, "b")
			require.NoError(t, err)
			require.NoError(t, other.ForceUnlock(ctx, "b"))
		})
	}
	q := quorum(t, []redis.UniversalClient{rdb, redistest.Shared(t).Client(), redistest.Server(t).Client()}, Options{})
	_, s, err := q.Lock(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, s.Unlock(t.Context()))
}

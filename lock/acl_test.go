package lock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The commands that doc.go lists are enough.
func TestACL(t *testing.T) {
	_, rdb := redistest.Limited(t)
	ctx := t.Context()
	for _, opts := range []Options{{}, {Fair: true}, {Linger: time.Second}} {
		opts.TTL = 3 * time.Second
		l := open(t, rdb, opts)
		opts.Prefix = l.opts.Prefix
		other := open(t, rdb, opts)
		_, err := l.Holder(ctx, "a")
		require.NoError(t, err)
		for _, locks := range [][2]func(context.Context) (context.Context, *Lease, error){
			{locking(l, "a"), locking(other, "a")},
			{l.RW("a").RLock, other.RW("a").Lock},
			{l.Semaphore("a", 1).Lock, other.Semaphore("a", 1).Lock},
		} {
			lost, first, err := locks[0](ctx)
			require.NoError(t, err)
			require.NoError(t, lost.Err())
			next := make(chan *Lease)
			go func() {
				_, s, err := locks[1](ctx)
				if err != nil {
					t.Error(err)
				}
				next <- s
			}()
			before := l.Stats().Renewals
			require.Eventually(t, func() bool { return l.Stats().Renewals > before }, 30*time.Second, time.Millisecond)
			require.NoError(t, first.Unlock(ctx))
			require.NoError(t, (<-next).Unlock(ctx))
		}
		_, _, err = l.Lock(ctx, "b")
		require.NoError(t, err)
		require.NoError(t, other.ForceUnlock(ctx, "b"))
	}
	q := quorum(t, []redis.UniversalClient{rdb, redistest.Shared(t).Client(), redistest.Server(t).Client()}, Options{})
	_, s, err := q.Lock(ctx, "a")
	require.NoError(t, err)
	require.NoError(t, s.Unlock(ctx))
}

func locking(l *Locker, name string) func(context.Context) (context.Context, *Lease, error) {
	return func(ctx context.Context) (context.Context, *Lease, error) { return l.Lock(ctx, name) }
}

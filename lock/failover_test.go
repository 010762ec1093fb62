package lock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A master that dies while one holds the lock and another waits.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := redistest.Sentinel(t)
	quick := func(o *redis.FailoverOptions) { o.ReadTimeout, o.DialTimeout = time.Second, time.Second }
	opts := Options{Prefix: "p", TTL: 6 * time.Second}
	l, other := open(t, s.Client(quick), opts), open(t, s.Client(quick), opts)
	_, first, err := l.Lock(t.Context(), "a")
	require.NoError(t, err)
	got := make(chan *Lease, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, lease, err := other.Lock(ctx, "a")
		if err != nil {
			t.Error(err)
		}
		got <- lease
	}()
	require.Eventually(t, func() bool {
		h, err := l.Holder(t.Context(), "a")
		return err == nil && h.Waiting
	}, time.Minute, 10*time.Millisecond)
	s.KillMaster()
	_ = first.Unlock(t.Context()) // whatever it can find out meanwhile
	second := <-got
	require.NotNil(t, second)
	require.Greater(t, second.Fence(), first.Fence())
	require.NoError(t, second.Unlock(t.Context()))
}

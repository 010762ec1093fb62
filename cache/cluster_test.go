package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Keys of all slots of a cluster of three masters: each with its lease in a slot
// of its own, and many of them in one call.
func TestThreeMasters(t *testing.T) {
	cluster := redistest.Cluster(t, 3, 0)
	ctx, rdb, prefix := t.Context(), cluster.Client(), redistest.Prefix(t)
	var batches, loads atomic.Int64
	var version atomic.Int64
	src := Source[int, string]{LoadMany: func(_ context.Context, keys []int) (map[int]string, error) {
		batches.Add(1)
		loads.Add(int64(len(keys)))
		found := map[int]string{}
		for _, k := range keys {
			if k%10 != 0 {
				found[k] = fmt.Sprint("v", k, ".", version.Load())
			}
		}
		return found, nil
	}}
	opts := Options{Prefix: prefix}
	a, b := openSource(t, cluster.Client(), src, opts), openSource(t, cluster.Client(), src, opts)
	opts.Local = -1
	redisOnly := openSource(t, cluster.Client(), src, opts)
	connected(t, a, b, redisOnly)
	var keys []int
	for k := range 300 {
		keys = append(keys, k)
	}
	all := func(c *Cache[int, string], version int) {
		t.Helper()
		got, err := c.GetMany(ctx, keys)
		require.NoError(t, err)
		require.Len(t, got, 270)
		for k, v := range got {
			require.Equal(t, fmt.Sprint("v", k, ".", version), v)
		}
	}
	all(a, 0)
	require.EqualValues(t, 1, batches.Load(), "one LoadMany over all masters")
	all(b, 0)
	all(redisOnly, 0)
	require.EqualValues(t, 300, loads.Load())
	var mu sync.Mutex
	perNode := map[string]int64{}
	require.NoError(t, rdb.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		n, err := node.DBSize(ctx).Result()
		mu.Lock()
		defer mu.Unlock()
		perNode[node.Options().Addr] = n
		return err
	}))
	require.Len(t, perNode, 3)
	for _, n := range perNode {
		require.Greater(t, n, int64(50), "%v", perNode)
	}

	// Deletes of many keys in one call, which all processes hear.
	version.Store(1)
	require.NoError(t, a.Delete(ctx, keys...))
	all(a, 1)
	all(redisOnly, 1)
	require.Eventually(t, func() bool { return b.Stats().Heard >= 300 }, time.Minute, time.Millisecond)
	all(b, 1)
	require.EqualValues(t, 600, loads.Load())

	// Callers of single keys share round trips over all masters.
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() {
			if k%3 == 0 {
				if err := a.Set(ctx, k, "set"); err != nil {
					t.Error(err)
				}
			} else if err := a.Delete(ctx, k); err != nil {
				t.Error(err)
			}
			if v, err := redisOnly.Get(ctx, k); k%3 == 0 && (err != nil || v != "set") {
				t.Error(k, v, err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, a.DeleteTwice(ctx, time.Millisecond, keys...))
	version.Store(2)
	require.Eventually(t, func() bool { return a.twice.Load() == 0 }, time.Minute, time.Millisecond)
	all(redisOnly, 2)
}

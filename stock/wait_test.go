package stock

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Durable says that a replica has the order: it does while one is there, it does not
// while none is, and the deduct happened all the same.
func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	both := func(t *testing.T, rdb redis.UniversalClient, master func() *redistest.Proc) {
		a, err := New(rdb, "a", Options{WaitReplicas: 1})
		require.NoError(t, err)
		require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 10, "cup": 1 << 40}))
		n := 0
		cup := func() Order {
			return Order{ID: fmt.Sprint("cup", n), User: "u", Items: []Item{{"cup", 1}}}
		}
		eventually(t, func() bool { // a replica may have just begun, or not have had its turn in time
			n++
			res, err := a.Deduct(t.Context(), cup())
			return err == nil && res.Durable
		}, "the replica never gets there")
		res, err := a.Deduct(t.Context(), cup())
		require.NoError(t, err)
		require.True(t, res.Replayed)
		require.False(t, res.Durable, "a replay wrote nothing that could be waited for")

		admin := master().Client()
		require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "default", "-psync", "-sync").Err())
		require.NoError(t, admin.Do(t.Context(), "client", "kill", "type", "replica").Err())
		began := time.Now()
		res, err = a.Deduct(t.Context(), tea("o2", "u", 1))
		require.NoError(t, err, "it did happen")
		require.Equal(t, Sold, res.State)
		require.False(t, res.Durable)
		require.GreaterOrEqual(t, time.Since(began), replicaPatience)
		requireTea(t, a, 9, 0, 1)
		require.NoError(t, a.Close(t.Context()))

		// Nobody waits unless told to.
		a, err = New(rdb, "a", Options{})
		require.NoError(t, err)
		res, err = a.Deduct(t.Context(), tea("o3", "u", 1))
		require.NoError(t, err)
		require.False(t, res.Durable)
		require.NoError(t, a.Close(t.Context()))
	}
	t.Run("Sentinel", func(t *testing.T) {
		s := redistest.Sentinel(t)
		both(t, s.Client(), s.Master)
	})
	t.Run("Cluster", func(t *testing.T) {
		// WAIT has no key: most of the time any other node would be asked.
		c := redistest.Cluster(t, 3, 1)
		both(t, c.Client(), func() *redistest.Proc { return c.MasterOf("{a}") })
	})
	t.Run("buckets", func(t *testing.T) {
		a := open(t, redistest.Cluster(t, 3, 1).Client(), Options{WaitReplicas: 1, Buckets: 3})
		stock := map[string]int64{}
		for n := range 700 {
			stock[fmt.Sprint("tea", n)] = 9
		}
		require.NoError(t, a.Load(t.Context(), stock))
		n := 0
		eventually(t, func() bool {
			o := Order{ID: fmt.Sprint("o", n), User: userOf(a, 0), Items: []Item{{fmt.Sprint("tea", n), 9}}}
			n++
			res, err := a.Deduct(t.Context(), o)
			return err == nil && res.Durable
		}, "what home took and sold is never with a replica")
	})
	t.Run("no replica at all", func(t *testing.T) {
		each(t, Options{WaitReplicas: 1}, map[string]int64{"tea": 10}, func(t *testing.T, a *Activity) {
			res, err := a.Deduct(t.Context(), tea("o", "u", 1))
			require.NoError(t, err)
			require.False(t, res.Durable)
		})
	})
}

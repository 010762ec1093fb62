package redistest

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestEach(t *testing.T) {
	start := time.Now()
	Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		p := Prefix(t)
		require.NoError(t, rdb.Set(t.Context(), p, "v", 0).Err())
		err := rdb.Eval(t.Context(), `return redis.call('MGET', KEYS[1], KEYS[2])`, []string{p + "a", p + "b"}).Err()
		t.Log(err, time.Since(start))
	})
}

func TestCluster33(t *testing.T) {
	start := time.Now()
	c := Cluster(t, 3, 3/3)
	t.Log(time.Since(start))
	require.NoError(t, c.Client().Set(t.Context(), "a", "b", 0).Err())
}

func TestBubbleTTL(t *testing.T) {
	Bubble(t, func(t *testing.T, b *Env) {
		rdb := b.Client()
		require.NoError(t, rdb.Set(t.Context(), "k", "v", 30*time.Minute).Err())
		time.Sleep(30*time.Minute + time.Second)
		require.ErrorIs(t, rdb.Get(t.Context(), "k").Err(), redis.Nil)
	})
}

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Servers and Redis are killed, scripts forgotten, SQL is slow, while hundreds buy: no
// unit, no fen and no reliable frame is lost. On a Cluster of three, where a star sells
// whose units are on all masters, no call crosses slots.
func TestChaos(t *testing.T) {
	t.Parallel()
	size := []string{"-n", "300", "-units", "250", "-every", "700ms"}
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		size = []string{"-n", "10000", "-units", "8000", "-every", "5s"}
	}
	sell := func(t *testing.T, args ...string) string {
		var out strings.Builder
		err := run(t.Context(), append(append([]string{"chaos"}, size...), args...), &out)
		t.Log(out.String())
		require.NoError(t, err)
		require.Contains(t, out.String(), "\nPASS: all ")
		require.Contains(t, out.String(), "kill server s2")
		return out.String()
	}
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		redistest.Shared(t)
		require.Contains(t, sell(t, "-redis", "spawn"), "kill Redis")
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.Cluster(t, 3, 0)
		var addrs []string
		for _, node := range cluster.Nodes() {
			addrs = append(addrs, node.Addr())
		}
		sell(t, "-redis-cluster", strings.Join(addrs, ","))
		for _, node := range cluster.Nodes() {
			rdb := redis.NewClient(&redis.Options{Addr: node.Addr()})
			journals := rdb.Keys(t.Context(), "liveshop:stock1:{room-*%b3*}:journal").Val()
			require.Len(t, journals, 1, "a bucket on each master")
			entries, err := rdb.XLen(t.Context(), journals[0]).Result()
			require.NoError(t, err)
			require.Positive(t, entries)
			require.NoError(t, rdb.Close())
		}
	})
}

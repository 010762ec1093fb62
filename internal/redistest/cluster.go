package redistest

import (
	"os"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/lifetime"
)

// A ClusterProcs is a Redis Cluster on this machine.
type ClusterProcs struct {
	tb    testing.TB
	nodes []*Proc // masters first, as they were at the start
}

// sharedCluster is the one-node cluster that all tests of the binary share.
var sharedCluster = sync.OnceValues(func() ([]*Proc, error) {
	ctx, cancel := lifetime.ForNew(patience)
	defer cancel()
	nodes, err := startCluster(ctx, 1, 0)
	if err == nil {
		_ = os.RemoveAll(nodes[0].dir)
	}
	return nodes, err
})

// Cluster returns a cluster of that many masters, each with that many replicas.
// Cluster(t, 1, 0) is shared by all tests of the binary, like Shared; any other
// is the test's own.
func Cluster(t testing.TB, masters, replicasEach int) *ClusterProcs {
	t.Helper()
	requireServer(t)
	if masters == 1 && replicasEach == 0 && diesWithParent {
		nodes, err := sharedCluster()
		if err != nil {
			t.Fatal(err)
		}
		p := nodes[0].share()
		t.Cleanup(p.Close)
		return &ClusterProcs{t, []*Proc{p}}
	}
	nodes, err := startCluster(t.Context(), masters, replicasEach)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range nodes {
		t.Cleanup(p.Close)
	}
	return &ClusterProcs{t, nodes}
}

// Client returns a client of the cluster that the end of the test closes.
func (c *ClusterProcs) Client(modify ...func(*redis.ClusterOptions)) *redis.ClusterClient {
	addrs := make([]string, len(c.nodes))
	for i, p := range c.nodes {
		addrs[i] = p.Addr()
	}
	rdb := newClusterClient(addrs, modify)
	c.tb.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

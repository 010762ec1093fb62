package hashring

import (
	"fmt"
	"hash/crc32"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// spread returns the mean over rings of the arcs' relative standard deviation and
// of the largest arc relative to the mean.
func spread(t *testing.T, rings, nodes int, place func(string) uint64) (deviation, peak float64) {
	t.Helper()
	for k := range rings {
		var all []Node
		for i := range nodes {
			all = append(all, Node{ID: fmt.Sprintf("10.%d.0.%d:6379", k, i)})
		}
		r, err := newRing(all, Options{}, place)
		require.NoError(t, err)
		sum, squares, most := 0.0, 0.0, 0.0
		for _, n := range r.Stats().Nodes {
			d := n.Share*float64(nodes) - 1
			sum += n.Share
			squares += d * d
			most = max(most, n.Share*float64(nodes))
		}
		require.InDelta(t, 1, sum, 1e-9, "the shares are the whole ring")
		deviation += math.Sqrt(squares/float64(nodes)) / float64(rings)
		peak += most / float64(rings)
	}
	t.Logf("%d rings of %d nodes: deviation %.1f %%, peak %.3f", rings, nodes, 100*deviation, peak)
	return deviation, peak
}

func TestKeysSpreadEvenly(t *testing.T) {
	deviation, peak := spread(t, 30, 10, xxhash.Sum64String)
	assert.LessOrEqual(t, deviation, 0.05)
	assert.LessOrEqual(t, peak, 1.08)

	// The hash of many rings, and why it is not this one's.
	deviation, peak = spread(t, 30, 10, func(s string) uint64 { return uint64(crc32.ChecksumIEEE([]byte(s))) << 32 })
	assert.Greater(t, deviation, 0.05)
	assert.Greater(t, peak, 1.08)
}

func TestSharesFollowWeights(t *testing.T) {
	nodes := fleet(8)
	nodes[0].Weight, nodes[1].Weight = 4, 2
	r := newTestRing(t, nodes, Options{})
	for _, n := range r.Stats().Nodes {
		want := map[string]float64{"node-0": 4, "node-1": 2}[n.ID]
		assert.InEpsilon(t, max(want, 1)/12, n.Share, 0.2, n.ID)
	}
	counts, ks := map[string]float64{}, keys(100_000)
	for _, id := range owners(t, r, ks) {
		counts[id]++
	}
	for _, n := range r.Stats().Nodes {
		assert.InDelta(t, n.Share, counts[n.ID]/float64(len(ks)), 0.005, "the share is that of the keys")
	}
	lone := newTestRing(t, fleet(1), Options{VirtualNodes: 1})
	assert.Equal(t, []NodeStats{{ID: "node-0", Share: 1}}, lone.Stats().Nodes)
}

package hashring

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A floor is a number of units under way, node by node, with the bound that
// Acquire promises.
type floor struct {
	factor float64
	weight map[string]float64
	all    float64
	load   map[string]int
	total  int
}

func newFloor(nodes []Node, factor float64) *floor {
	f := &floor{factor: factor, weight: map[string]float64{}, load: map[string]int{}}
	for _, n := range nodes {
		f.weight[n.ID] = float64(max(n.Weight, 1))
		f.all += float64(max(n.Weight, 1))
	}
	return f
}

// add counts one more on a node and reports whether that keeps to the bound.
func (f *floor) add(id string) bool {
	f.total++
	f.load[id]++
	return float64(f.load[id]) <= math.Ceil(f.factor*float64(f.total)*f.weight[id]/f.all-1e-9)
}

// A million random acquires and releases of very unequal keys, and never one too
// many on a node. The same history without the bound breaks it at once.
func TestBoundHolds(t *testing.T) {
	for _, factor := range []float64{1, 1.25, 2} {
		rng := seeded(t)
		nodes := fleet(17)
		nodes[2].Weight, nodes[9].Weight = 5, 2
		r := newTestRing(t, nodes, Options{LoadFactor: factor, VirtualNodes: 64})
		bounded, naive := newFloor(nodes, factor), newFloor(nodes, factor)
		popular := rand.NewZipf(rng, 1.3, 1, 4000)
		ks := keys(4001)
		type unit struct {
			id, naive string
			done      func()
		}
		var open []unit
		naiveBroke := 0
		for range 1_000_000 / 3 {
			if len(open) > 0 && rng.IntN(1000) < 400+len(open)/5 {
				i := rng.IntN(len(open))
				u := open[i]
				u.done()
				bounded.load[u.id]--
				bounded.total--
				naive.load[u.naive]--
				naive.total--
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
				continue
			}
			key := ks[popular.Uint64()]
			n, done, ok := r.Acquire(key)
			require.True(t, ok)
			if !bounded.add(n.ID) {
				t.Fatalf("node %s has %d of %d", n.ID, bounded.load[n.ID], bounded.total)
			}
			owner, _ := r.Get(key)
			if !naive.add(owner.ID) {
				naiveBroke++
			}
			open = append(open, unit{n.ID, owner.ID, done})
		}
		s := r.Stats()
		assert.Equal(t, int64(len(open)), s.UnderWay)
		for _, n := range s.Nodes {
			assert.Equal(t, int64(bounded.load[n.ID]), n.Load, n.ID)
		}
		assert.NotZero(t, s.Displaced)
		assert.Zero(t, s.Fallbacks, "one goroutine always finds room")
		assert.Greater(t, naiveBroke, 1000, "without a bound")
	}
}

func TestAcquirePrefersTheOwner(t *testing.T) {
	r := newTestRing(t, fleet(10), Options{LoadFactor: 2})
	for _, k := range keys(100) {
		n, done, _ := r.Acquire(k)
		owner, _ := r.Get(k)
		assert.Equal(t, owner, n)
		done()
	}
	assert.Zero(t, r.Stats().Displaced)
	// The second unit of one key goes to its neighbour, as its second replica does.
	_, first, _ := r.Acquire("k")
	second, done, _ := r.Acquire("k")
	assert.Equal(t, r.GetN("k", 2, nil)[1], second)
	first()
	done()
}

// Whatever many goroutines do at once, every unit is counted once and given back.
func TestBoundUnderConcurrency(t *testing.T) {
	nodes := fleet(7)
	r := newTestRing(t, nodes, Options{LoadFactor: 1})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			var open []func()
			for range 5000 {
				if len(open) > 20 || len(open) > 0 && rng.IntN(2) == 0 {
					open[0]()
					open = open[1:]
					continue
				}
				_, done, ok := r.Acquire("one key for all")
				if !ok {
					t.Error("no node")
				}
				open = append(open, done)
				if rng.IntN(500) == 0 {
					if err := r.SetDown(nodes[rng.IntN(7)].ID, rng.IntN(2) == 0); err != nil {
						t.Error(err)
					}
				}
			}
			for _, done := range open {
				done()
			}
		})
	}
	wg.Wait()
	s := r.Stats()
	assert.Zero(t, s.UnderWay)
	for _, n := range s.Nodes {
		assert.Zero(t, n.Load, n.ID)
	}
	t.Logf("displaced %d, fallbacks %d", s.Displaced, s.Fallbacks)
}

// A round that always comes too late ends with the least loaded node, not with a
// panic and not with an endless search.
func TestFallsBackToTheLeastLoaded(t *testing.T) {
	r := newTestRing(t, fleet(4), Options{})
	for i, m := range r.members { // more than underWay knows of: nobody has room
		m.load.Store(int64(100 - i))
	}
	n, done, ok := r.Acquire("k")
	assert.True(t, ok)
	assert.Equal(t, "node-3", n.ID)
	assert.Equal(t, uint64(1), r.Stats().Fallbacks)
	done()
	assert.Equal(t, int64(97), r.members[3].load.Load())
}

// Work on a node that left is given back without harm.
func TestDoneAfterRemoval(t *testing.T) {
	r := newTestRing(t, fleet(2), Options{})
	n, done, _ := r.Acquire("k")
	require.NoError(t, r.Update(nil, []string{n.ID}))
	assert.Equal(t, int64(1), r.Stats().UnderWay)
	require.NoError(t, r.Update([]Node{n}, nil))
	done()
	s := r.Stats()
	assert.Zero(t, s.UnderWay)
	for _, n := range s.Nodes {
		assert.Zero(t, n.Load)
	}
	// One whose weight changed keeps its count.
	n, done, _ = r.Acquire("k")
	require.NoError(t, r.Update([]Node{{ID: n.ID, Weight: 3}}, nil))
	again, _, _ := r.Acquire("k")
	done()
	assert.NotEmpty(t, again.ID)
	assert.Equal(t, int64(1), r.Stats().UnderWay)
}

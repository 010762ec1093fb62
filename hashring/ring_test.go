package hashring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newTestRing(t testing.TB, nodes []Node, opts Options) *Ring {
	t.Helper()
	r, err := New(nodes, opts)
	require.NoError(t, err)
	return r
}

// seeded returns a source of random numbers whose seed the test prints.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// owners asks for every key.
func owners(t testing.TB, r *Ring, keys []string) []string {
	t.Helper()
	out := make([]string, len(keys))
	for i, k := range keys {
		n, ok := r.Get(k)
		require.True(t, ok)
		out[i] = n.ID
	}
	return out
}

// What the ring answered when it was first released, it answers for ever.
func TestGoldenVectors(t *testing.T) {
	r := newTestRing(t, []Node{{ID: "cache-a"}, {ID: "cache-b"}, {ID: "cache-c", Weight: 2}, {ID: "缓存"}}, Options{})
	for key, want := range map[string]string{
		"":        "缓存 cache-a cache-c cache-b",
		"user:1":  "cache-c 缓存 cache-b cache-a",
		"room:42": "缓存 cache-a cache-b cache-c",
		"商品:7":    "cache-a 缓存 cache-c cache-b",
		"a long key with spaces, of more than thirty-two bytes": "cache-a cache-c 缓存 cache-b",
	} {
		var ids []string
		for _, n := range r.GetN(key, 9, nil) {
			ids = append(ids, n.ID)
		}
		assert.Equal(t, want, strings.Join(ids, " "), key)
	}
	all := xxhash.Sum64String(strings.Join(owners(t, r, keys(100_000)), "\n"))
	assert.Equal(t, uint64(0xefe1deb299f9f61b), all, "of 100,000 keys together")
}

func TestOrderOfInsertionDoesNotMatter(t *testing.T) {
	rng, ks := seeded(t), keys(5000)
	nodes := fleet(20)
	nodes[3].Weight = 3
	want := owners(t, newTestRing(t, nodes, Options{VirtualNodes: 64}), ks)
	for range 5 {
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		r := newTestRing(t, nodes[:10], Options{VirtualNodes: 64})
		require.NoError(t, r.Update([]Node{{ID: "passing by", Weight: 7}}, nil))
		require.NoError(t, r.Update(nodes[10:], []string{"passing by"}))
		require.Equal(t, want, owners(t, r, ks))
	}
}

// textbook is consistent hashing as the textbook has it, to compare with.
type textbook struct {
	points []point
	up     map[uint16]bool
}

func (b textbook) clockwise(h uint64) (order []uint16) {
	start := 0
	for start < len(b.points) && b.points[start].hash < h {
		start++
	}
	for i := range b.points {
		p := b.points[(start+i)%len(b.points)]
		if b.up[p.owner] && !slices.Contains(order, p.owner) {
			order = append(order, p.owner)
		}
	}
	return order
}

// The index, with its cells and its wrap, is the textbook's ring: for any nodes,
// weights and health, on the points themselves and beside them, also where points
// collide.
func TestIndexIsTheTextbooksRing(t *testing.T) {
	rng := seeded(t)
	for round := range 300 {
		nodes := fleet(1 + rng.IntN(8))
		for i := range nodes {
			nodes[i].Weight = 1 + rng.IntN(3)
		}
		place := xxhash.Sum64String
		if round%3 == 0 { // 64 places: everything collides
			place = func(s string) uint64 { return xxhash.Sum64String(s) << 58 }
		}
		if round%7 == 0 { // the ends of the circle are taken
			place = func(s string) uint64 {
				return []uint64{0, 1, 1 << 63, ^uint64(0) - 1, ^uint64(0)}[xxhash.Sum64String(s)%5]
			}
		}
		r, err := newRing(nodes, Options{VirtualNodes: 1 + rng.IntN(20)}, place)
		require.NoError(t, err)
		book := textbook{r.points, map[uint16]bool{}}
		for i, m := range r.members {
			down := rng.IntN(4) == 0
			require.NoError(t, r.SetDown(m.node.ID, down))
			book.up[uint16(i)] = !down
		}
		if x := r.index.Load(); !slices.ContainsFunc(r.members, func(m *member) bool { return !m.down }) {
			require.Equal(t, len(nodes), x.up)
			for i := range nodes {
				book.up[uint16(i)] = true
			}
		}
		x := r.index.Load()
		places := []uint64{0, 1, 1<<63 - 1, 1 << 63, ^uint64(0) - 1, ^uint64(0)}
		for _, p := range r.points {
			places = append(places, p.hash-1, p.hash, p.hash+1, rng.Uint64())
		}
		for _, h := range places {
			want := book.clockwise(h)
			require.Equal(t, int(want[0]), x.owner(h), "place %x", h)
			var got []uint16
			for w := x.walk(h); ; {
				m, ok := w.next()
				if !ok {
					break
				}
				got = append(got, uint16(m))
			}
			require.Equal(t, want, got, "place %x", h)
		}
	}
}

// needless returns how many keys moved although neither their old nor their new
// node was the one that changed.
func needless(before, after []string, changed string) (n int) {
	for i := range before {
		if before[i] != after[i] && before[i] != changed && after[i] != changed {
			n++
		}
	}
	return n
}

func TestOnlyTheChangedNodesKeysMove(t *testing.T) {
	ks := keys(50_000)
	r := newTestRing(t, fleet(20), Options{VirtualNodes: 100, Rise: 1})
	step := func(name, changed string, gains bool, change func() error) {
		before := owners(t, r, ks)
		require.NoError(t, change(), name)
		after := owners(t, r, ks)
		assert.Zero(t, needless(before, after, changed), name)
		moved := 0
		for i := range ks {
			if before[i] != after[i] {
				moved++
				assert.Equal(t, gains, after[i] == changed, name)
			}
		}
		assert.NotZero(t, moved, name)
	}
	step("added", "new", true, func() error { return r.Update([]Node{{ID: "new"}}, nil) })
	step("heavier", "new", true, func() error { return r.Update([]Node{{ID: "new", Weight: 3}}, nil) })
	step("lighter", "new", false, func() error { return r.Update([]Node{{ID: "new", Weight: 2}}, nil) })
	step("removed", "new", false, func() error { return r.Update(nil, []string{"new"}) })
	home := owners(t, r, ks)
	step("down", "node-4", false, func() error { return r.SetDown("node-4", true) })
	step("up", "node-4", true, func() error { return r.SetDown("node-4", false) })
	assert.Equal(t, home, owners(t, r, ks), "a node that comes back gets its own keys")

	// What such a check is worth: a hash modulo the number of nodes fails it.
	modulo := func(nodes int) (out []string) {
		for _, k := range ks {
			out = append(out, fmt.Sprintf("node-%d", xxhash.Sum64String(k)%uint64(nodes)))
		}
		return out
	}
	assert.Greater(t, needless(modulo(20), modulo(21), "node-20"), len(ks)/2)
}

func TestReplicasKeepTheirOrderWhenANodeLeaves(t *testing.T) {
	r := newTestRing(t, fleet(12), Options{})
	gone := "node-5"
	before := map[string][]Node{}
	for _, k := range keys(2000) {
		before[k] = r.GetN(k, 4, nil)
		first, _ := r.Get(k)
		require.Equal(t, first, before[k][0])
	}
	require.NoError(t, r.Update(nil, []string{gone}))
	for k, was := range before {
		rest := slices.DeleteFunc(slices.Clone(was), func(n Node) bool { return n.ID == gone })
		require.Equal(t, rest, r.GetN(k, 4, nil)[:len(rest)], k)
	}
}

func TestGetN(t *testing.T) {
	r := newTestRing(t, fleet(3), Options{})
	assert.Len(t, r.GetN("k", 2, nil), 2)
	assert.Len(t, r.GetN("k", 9, nil), 3, "not more than there are")
	assert.Empty(t, r.GetN("k", 0, nil))
	assert.Empty(t, r.GetN("k", -1, nil))
	kept := r.GetN("k", 1, []Node{{ID: "kept"}})
	assert.Equal(t, "kept", kept[0].ID)
	assert.Len(t, kept, 2)
	require.NoError(t, r.SetDown("node-1", true))
	for _, n := range r.GetN("k", 9, nil) {
		assert.NotEqual(t, "node-1", n.ID)
	}
}

func TestHealth(t *testing.T) {
	r := newTestRing(t, fleet(3), Options{Rise: 3})
	ks := keys(1000)
	home := owners(t, r, ks)
	report := func(down ...bool) {
		for _, d := range down {
			require.NoError(t, r.SetDown("node-0", d))
		}
	}
	const bad, good = true, false
	isDown := func() bool { return !slices.Contains(owners(t, r, ks), "node-0") }
	report(good)
	assert.Equal(t, home, owners(t, r, ks), "a good report of a node that is up changes nothing")
	report(bad)
	assert.True(t, isDown(), "at once")
	report(good, good)
	assert.True(t, isDown(), "not before the third")
	report(bad, good, good)
	assert.True(t, isDown(), "a bad report starts the count again")
	report(good)
	assert.Equal(t, home, owners(t, r, ks))

	// Everything down is as good as everything up.
	for _, n := range fleet(3) {
		require.NoError(t, r.SetDown(n.ID, bad))
	}
	assert.Equal(t, home, owners(t, r, ks))
	_, done, ok := r.Acquire("k")
	assert.True(t, ok)
	done()
	// An update keeps what is known of the others.
	report(good, good, good)
	require.NoError(t, r.Update([]Node{{ID: "node-3"}, {ID: "node-1", Weight: 4}}, []string{"node-2"}))
	var down []string
	for _, n := range r.Stats().Nodes {
		if n.Down {
			down = append(down, n.ID)
		}
	}
	assert.Equal(t, []string{"node-1"}, down)
	require.ErrorIs(t, r.SetDown("node-2", bad), ErrInvalid)
}

func TestEmptyRing(t *testing.T) {
	r := newTestRing(t, nil, Options{})
	_, ok := r.Get("k")
	assert.False(t, ok)
	assert.Empty(t, r.GetN("k", 3, nil))
	_, done, ok := r.Acquire("k")
	assert.False(t, ok)
	done()
	assert.Equal(t, Stats{}, r.Stats())
	require.NoError(t, r.Update(fleet(1), nil))
	n, ok := r.Get("k")
	assert.True(t, ok)
	assert.Equal(t, Node{ID: "node-0", Weight: 1}, n)
	require.NoError(t, r.Update(nil, []string{"node-0", "never there"}))
	_, ok = r.Get("k")
	assert.False(t, ok)
}

func TestInvalid(t *testing.T) {
	for want, opts := range map[string]Options{
		"VirtualNodes -1":    {VirtualNodes: -1},
		"VirtualNodes 70000": {VirtualNodes: 70000},
		"LoadFactor 0.9":     {LoadFactor: 0.9},
		"LoadFactor 101":     {LoadFactor: 101},
		"Rise -1":            {Rise: -1},
	} {
		_, err := New(fleet(1), opts)
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
	for want, nodes := range map[string][]Node{
		"id of node 1":   {{ID: "a"}, {}},
		"257 bytes":      {{ID: strings.Repeat("x", 257)}},
		`weight -1 of`:   {{ID: "a", Weight: -1}},
		`weight 101 of`:  {{ID: "a", Weight: 101}},
		`"a" is added t`: {{ID: "a"}, {ID: "a"}},
		"4097 nodes":     fleet(4097),
	} {
		_, err := New(nodes, Options{VirtualNodes: 1})
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
	_, err := New(fleet(100), Options{VirtualNodes: 65536})
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, "points")

	r := newTestRing(t, fleet(3), Options{})
	before := owners(t, r, keys(100))
	err = r.Update([]Node{{ID: "new"}, {ID: "node-1"}}, []string{"node-1"})
	require.ErrorIs(t, err, ErrInvalid)
	assert.Equal(t, before, owners(t, r, keys(100)), "an error changes nothing")
}

func TestReadsAllocateNothing(t *testing.T) {
	r := newTestRing(t, fleet(20), Options{})
	dst := make([]Node, 0, 3)
	for name, call := range map[string]func(){
		"Get":  func() { r.Get("some key") },
		"GetN": func() { r.GetN("some key", 3, dst) },
		"Acquire": func() {
			_, done, _ := r.Acquire("some key")
			done()
		},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, call), name)
	}
}

// A reader sees a whole list of nodes, never half an update.
func TestReadersDuringUpdates(t *testing.T) {
	a, b := fleet(5), []Node{{ID: "x"}, {ID: "y"}, {ID: "z"}}
	ids := func(nodes []Node) (out []string) {
		for _, n := range nodes {
			out = append(out, n.ID)
		}
		slices.Sort(out)
		return out
	}
	r := newTestRing(t, a, Options{VirtualNodes: 8})
	stop, failed := make(chan struct{}), make(chan []string, 4)
	for g := range 4 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(g), 0))
			for {
				select {
				case <-stop:
					failed <- nil
					return
				default:
				}
				got := ids(r.GetN(fmt.Sprint(rng.Uint64()), 9, nil))
				if !slices.Equal(got, ids(a)) && !slices.Equal(got, ids(b)) {
					failed <- got
					return
				}
				_, done, _ := r.Acquire("k")
				done()
			}
		}()
	}
	for range 300 {
		require.NoError(t, r.Update(b, ids(a)))
		require.NoError(t, r.Update(a, ids(b)))
	}
	close(stop)
	for range 4 {
		assert.Empty(t, <-failed)
	}
	assert.Zero(t, r.Stats().UnderWay)
}

package hashring

import (
	"fmt"
	"testing"
)

func benchRing(b *testing.B, nodes int) *Ring {
	b.Helper()
	r, err := New(fleet(nodes), Options{})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// fleet returns nodes called node-0, node-1, ….
func fleet(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i].ID = fmt.Sprintf("node-%d", i)
	}
	return nodes
}

// keys returns n keys called user:0, user:1, ….
func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("user:%d", i)
	}
	return out
}

var sink int

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			r, ks, i := benchRing(b, n), keys(1<<14), 0
			b.ReportAllocs()
			for b.Loop() {
				node, _ := r.Get(ks[i&(1<<14-1)])
				sink += len(node.ID)
				i++
			}
		})
	}
}

func BenchmarkGetN(b *testing.B) {
	r, ks, i := benchRing(b, 100), keys(1<<14), 0
	dst := make([]Node, 0, 3)
	b.ReportAllocs()
	for b.Loop() {
		sink += len(r.GetN(ks[i&(1<<14-1)], 3, dst))
		i++
	}
}

func BenchmarkAcquire(b *testing.B) {
	r, ks, i := benchRing(b, 100), keys(1<<14), 0
	b.ReportAllocs()
	for b.Loop() {
		_, done, _ := r.Acquire(ks[i&(1<<14-1)])
		done()
		i++
	}
}

func BenchmarkAcquireParallel(b *testing.B) {
	r, ks := benchRing(b, 100), keys(1<<14)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_, done, _ := r.Acquire(ks[i&(1<<14-1)])
			done()
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	r := benchRing(b, 100)
	for b.Loop() {
		if err := r.Update([]Node{{ID: "new"}}, nil); err != nil {
			b.Fatal(err)
		}
		if err := r.Update(nil, []string{"new"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetDown(b *testing.B) {
	r := benchRing(b, 100)
	r.opts.Rise = 1
	for b.Loop() {
		_ = r.SetDown("node-7", true)
		_ = r.SetDown("node-7", false)
	}
}

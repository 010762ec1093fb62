//go:build unix

package bench

import (
	"fmt"
	"sync"
	"testing"

	buraksezer "github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	jump "github.com/dgryski/go-jump"
	"github.com/dgryski/go-rendezvous"
	"github.com/kkdai/maglev"
	serialx "github.com/serialx/hashring"
	gozero "github.com/zeromicro/go-zero/core/hash"

	"github.com/spillway-go/spillway/hashring"
	"github.com/spillway-go/spillway/hashring/hotkey"
)

// A lookup is a ring that has been made.
type lookup func(key string) string

// rings are made with the settings that each has by itself.
var rings = []struct {
	name string
	make func(b *testing.B, nodes []string) lookup
}{
	{"spillway", func(b *testing.B, nodes []string) lookup {
		var all []hashring.Node
		for _, n := range nodes {
			all = append(all, hashring.Node{ID: n})
		}
		r, err := hashring.New(all, hashring.Options{})
		if err != nil {
			b.Fatal(err)
		}
		return func(key string) string {
			n, _ := r.Get(key)
			return n.ID
		}
	}},
	{"go-zero", func(_ *testing.B, nodes []string) lookup {
		r := gozero.NewConsistentHash()
		for _, n := range nodes {
			r.Add(n)
		}
		return func(key string) string {
			n, _ := r.Get(key)
			return n.(string)
		}
	}},
	{"buraksezer", func(_ *testing.B, nodes []string) lookup {
		var all []buraksezer.Member
		for _, n := range nodes {
			all = append(all, member(n))
		}
		r := buraksezer.New(all, buraksezer.Config{Hasher: sum64{}})
		return func(key string) string { return r.LocateKey([]byte(key)).String() }
	}},
	{"serialx", func(_ *testing.B, nodes []string) lookup {
		r := serialx.New(nodes)
		return func(key string) string {
			n, _ := r.GetNode(key)
			return n
		}
	}},
	// What go-redis's Ring uses for itself.
	{"go-redis-rendezvous", func(_ *testing.B, nodes []string) lookup {
		return rendezvous.New(nodes, xxhash.Sum64String).Lookup
	}},
	// The small table of the Maglev paper: the large one takes seconds to make here.
	{"maglev", func(b *testing.B, nodes []string) lookup {
		r, err := maglev.NewMaglev(nodes, 65537)
		if err != nil {
			b.Fatal(err)
		}
		return func(key string) string {
			n, _ := r.Get(key)
			return n
		}
	}},
	// Nodes can come and go at the end of the list only.
	{"jump", func(_ *testing.B, nodes []string) lookup {
		return func(key string) string { return nodes[jump.Hash(xxhash.Sum64String(key), len(nodes))] }
	}},
}

type member string

func (m member) String() string { return string(m) }

type sum64 struct{}

func (sum64) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

// BenchmarkRing looks up keys, from one goroutine, and reports what the ring is worth:
//
//	peak/mean   keys of the node that has most, by the mean
//	needless-%  keys that move from one old node to another when a node is added
func BenchmarkRing(b *testing.B) {
	keys := numbered("user:", 6, 200_000)
	for _, row := range rings {
		for _, nodes := range []int{10, 100} {
			b.Run(fmt.Sprintf("%s/nodes=%d", row.name, nodes), func(b *testing.B) {
				names := numbered("10.0.0.", 3, nodes+1)
				get := row.make(b, names[:nodes])
				spin(b, func() {
					for i := range b.N {
						get(keys[i&(1<<14-1)])
					}
				})
				counts, before := map[string]int{}, make([]string, len(keys))
				for i, k := range keys {
					before[i] = get(k)
					counts[before[i]]++
				}
				most, needless := 0, 0
				for _, n := range counts {
					most = max(most, n)
				}
				get = row.make(b, names)
				for i, k := range keys {
					if now := get(k); now != before[i] && now != names[nodes] {
						needless++
					}
				}
				b.ReportMetric(float64(most)*float64(nodes)/float64(len(keys)), "peak/mean")
				b.ReportMetric(100*float64(needless)/float64(len(keys)), "needless-%")
			})
		}
	}
}

// spin measures b.N operations of a few nanoseconds, made by one goroutine in a loop
// of their own: run's bookkeeping, or a call each, would be too much.
func spin(b *testing.B, work func()) {
	b.Helper()
	b.ReportAllocs()
	cpu := cpuTime(b)
	b.ResetTimer()
	work()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N), "CPU-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkHotKeys observes a stream in which one key of 20 is one of ten hot ones.
func BenchmarkHotKeys(b *testing.B) {
	stream := numbered("room:", 6, 1<<16)
	for i := range stream {
		if i%20 == 0 {
			stream[i] = fmt.Sprintf("star:%d", i/20%10)
		}
	}
	b.Run("spillway", func(b *testing.B) {
		d, err := hotkey.NewDetector(hotkey.Options{Enter: 0.004})
		if err != nil {
			b.Fatal(err)
		}
		spin(b, func() {
			for i := range b.N {
				d.Observe(stream[i&(1<<16-1)])
			}
		})
	})
	b.Run("spillway-hot", func(b *testing.B) {
		d, err := hotkey.NewDetector(hotkey.Options{Enter: 0.004})
		if err != nil {
			b.Fatal(err)
		}
		for i := range 1 << 22 {
			d.Observe(stream[i&(1<<16-1)])
		}
		spin(b, func() {
			for i := range b.N {
				d.Hot(stream[i&(1<<16-1)])
			}
		})
	})
	// An exact count of everything, which never forgets and never ends to grow.
	b.Run("map", func(b *testing.B) {
		var mu sync.Mutex
		counts := map[string]int{}
		spin(b, func() {
			for i := range b.N {
				mu.Lock()
				counts[stream[i&(1<<16-1)]]++
				mu.Unlock()
			}
		})
	})
}

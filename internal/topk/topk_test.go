package topk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
)

// listed returns the keys of the list, largest first.
func listed(s *Sketch) (keys []string) {
	counts := map[string]uint32{}
	for i := range s.Len() {
		k, _, n := s.At(i)
		keys = append(keys, string(k))
		counts[string(k)] = n
	}
	slices.SortFunc(keys, func(a, b string) int { return int(counts[b]) - int(counts[a]) })
	return keys
}

// recall returns how many of the 20 most frequent keys of a Zipf stream are
// among the 20 first of the list.
func recall(skew float64, seed uint64, add func(string), list func() []string) int {
	rng := rand.New(rand.NewPCG(seed, 0))
	zipf := rand.NewZipf(rng, skew, 1, 200_000)
	counts := map[string]int{}
	for range 300_000 {
		key := fmt.Sprint("key-", zipf.Uint64())
		counts[key]++
		add(key)
	}
	want := slices.Collect(func(yield func(string) bool) {
		for k := range counts {
			if !yield(k) {
				return
			}
		}
	})
	slices.SortFunc(want, func(a, b string) int { return counts[b] - counts[a] })
	found := 0
	got := list()
	for _, k := range want[:20] {
		if slices.Contains(got[:min(20, len(got))], k) {
			found++
		}
	}
	return found
}

func TestFindsTheMostFrequent(t *testing.T) {
	for _, skew := range []float64{1.05, 1.2, 1.5} {
		seed := rand.Uint64()
		s := New(64, seed|1)
		found := recall(skew, seed, func(k string) { s.Add(k, xxhash.Sum64String(k)) }, func() []string { return listed(s) })
		t.Logf("skew %.2f, seed %d: %d of 20", skew, seed, found)
		assert.GreaterOrEqual(t, found, 19)
		// The first 64 keys to come, counted exactly, are what a list without a
		// sketch would have.
		first := map[string]int{}
		found = recall(skew, seed, func(k string) {
			if _, ok := first[k]; ok || len(first) < 20 {
				first[k]++
			}
		}, func() (keys []string) {
			for k := range first {
				keys = append(keys, k)
			}
			return keys
		})
		assert.Less(t, found, 19)
	}
}

// In the list a key is counted exactly.
func TestCountsExactly(t *testing.T) {
	s := New(8, 1)
	for i := range 8000 {
		k := fmt.Sprint(i % 8)
		s.Add(k, xxhash.Sum64String(k))
	}
	for i := range s.Len() {
		k, h, n := s.At(i)
		assert.Equal(t, xxhash.Sum64(k), h)
		assert.Equal(t, uint32(1000), n, string(k))
	}
	s.Halve()
	_, _, n := s.At(0)
	assert.Equal(t, uint32(500), n)
	assert.Equal(t, 4000.0, s.Total())
}

// A key that was pushed out and comes back goes on where it was.
func TestRemembersWhoLeft(t *testing.T) {
	s := New(1, 1)
	add := func(k string, n int) {
		for range n {
			s.Add(k, xxhash.Sum64String(k))
		}
	}
	add("a", 10)
	add("b", 11)
	assert.Equal(t, []string{"b"}, listed(s))
	add("a", 2)
	assert.Equal(t, []string{"a"}, listed(s))
	_, _, n := s.At(0)
	assert.Equal(t, uint32(12), n)
}

// What is past fades: the new leader takes over although the old one was larger.
func TestForgets(t *testing.T) {
	s := New(2, 1)
	for range 1000 {
		s.Add("old", xxhash.Sum64String("old"))
	}
	for range 6 {
		s.Halve()
		for range 10 {
			s.Add("new", xxhash.Sum64String("new"))
		}
	}
	assert.Equal(t, []string{"new", "old"}, listed(s))
}

func TestLongKeysCountInTotalOnly(t *testing.T) {
	s := New(2, 1)
	s.Add(strings.Repeat("x", maxKey+1), 1)
	assert.Zero(t, s.Len())
	assert.Equal(t, 1.0, s.Total())
	s.Add(strings.Repeat("x", maxKey), 1)
	assert.Equal(t, 1, s.Len())
}

func TestAllocatesNothing(t *testing.T) {
	s, keys, i := New(16, 1), make([]string, 1000), 0
	for k := range keys {
		keys[k] = fmt.Sprintf("key-%04d", k)
		s.Add(keys[k], xxhash.Sum64String(keys[k]))
	}
	assert.Zero(t, testing.AllocsPerRun(5000, func() {
		k := keys[i%len(keys)]
		s.Add(k, xxhash.Sum64String(k))
		i++
	}))
}

func BenchmarkAdd(b *testing.B) {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.1, 1, 100_000)
	keys, hashes := make([]string, 1<<14), make([]uint64, 1<<14)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", zipf.Uint64())
		hashes[i] = xxhash.Sum64String(keys[i])
	}
	s, i := New(64, 1), 0
	b.ReportAllocs()
	for b.Loop() {
		s.Add(keys[i&(1<<14-1)], hashes[i&(1<<14-1)])
		i++
	}
}

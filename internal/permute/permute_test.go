package permute

import (
	"fmt"
	"math"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every number below the domain is hit exactly once, and found again.
func TestBijection(t *testing.T) {
	domains := []int64{2, 3, 4, 5, 7, 10, 62, 63, 64, 65, 100, 127, 128, 129, 1000, 62 * 62, 1 << 12, 1<<13 + 1, 62 * 62 * 62}
	for _, domain := range domains {
		for _, key := range []string{"", "a", "another key, of more than thirty-two bytes"} {
			p := New([]byte(key), domain)
			hit := make([]bool, domain)
			for x := range domain {
				y := p.Permute(x)
				require.False(t, y < 0 || y >= domain, "domain %d: %d goes to %d", domain, x, y)
				require.False(t, hit[y], "domain %d: %d is hit twice", domain, y)
				hit[y] = true
				require.Equal(t, x, p.Invert(y), "domain %d", domain)
			}
		}
	}
}

func TestLargeDomains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		domain := rapid.Int64Range(2, math.MaxInt64).Draw(t, "domain")
		p := New(rapid.SliceOf(rapid.Byte()).Draw(t, "key"), domain)
		for range 20 {
			x := rapid.Int64Range(0, domain-1).Draw(t, "x")
			y := p.Permute(x)
			if y < 0 || y >= domain || p.Invert(y) != x || p.Permute(p.Invert(x)) != x {
				t.Fatalf("domain %d: %d goes to %d and comes back as %d", domain, x, y, p.Invert(y))
			}
		}
	})
}

// What was handed out must not change with a release.
func TestGolden(t *testing.T) {
	p := New([]byte("golden"), 3_521_614_606_208)
	var got []int64
	for x := range int64(4) {
		got = append(got, p.Permute(x))
	}
	require.Equal(t, []int64{779430674627, 326447677701, 2671193664317, 2887380902761}, got)
}

// A number tells nothing about its neighbour: a changed bit changes half of all,
// differences of neighbours spread over the whole domain, and order is lost.
func TestNeighboursAreUnrelated(t *testing.T) {
	for _, domain := range []int64{62 * 62 * 62, 56_800_235_584, 3_521_614_606_208, 218_340_105_584_896, 1_000_000_000} {
		p := New([]byte("k"), domain)
		require.NoError(t, unrelated(p.Permute, domain))
		require.Error(t, unrelated(func(x int64) int64 { return x }, domain), "the identity has to be caught")
		require.Error(t, unrelated(func(x int64) int64 { return x * 387_420_489 % domain }, domain), "a multiplication has to be caught")
	}
}

func unrelated(f func(int64) int64, domain int64) error {
	const n = 20_000
	var (
		flips, ascending, close int
		width                   = bits.Len64(uint64(domain) - 1)
		gaps                    = map[int64]int{}
	)
	start := domain / 3
	for x := start; x < start+n; x++ {
		a, b := f(x), f(x+1)
		flips += bits.OnesCount64(uint64(a ^ b))
		if b > a {
			ascending++
		}
		gap := (b - a + domain) % domain
		if gap < domain/1000 {
			close++
		}
		gaps[gap]++
	}
	most := 0
	for _, c := range gaps {
		most = max(most, c)
	}
	mean := float64(flips) / n / float64(width)
	switch {
	case mean < 0.40 || mean > 0.55:
		return fmt.Errorf("neighbours differ in %.2f of their bits", mean)
	case ascending < n*45/100 || ascending > n*55/100:
		return fmt.Errorf("%d of %d steps go up", ascending, n)
	case close > n/1000*3:
		return fmt.Errorf("%d of %d neighbours stay within a thousandth", close, n)
	case most > 20:
		return fmt.Errorf("one difference appears %d times in %d", most, n)
	}
	return nil
}

// The same over keys: what one key does to the first ids, another does not.
func TestKeysAreUnrelated(t *testing.T) {
	const keys = 50_000
	close, evens := 0, 0
	for k := range keys {
		p := New(fmt.Append(nil, k), 1_000_000_000)
		a, b := p.Permute(0), p.Permute(1)
		if d := (b - a + 1_000_000_000) % 1_000_000_000; d < 5_000_000 || d > 995_000_000 { // 1 %
			close++
		}
		evens += int(a & 1)
	}
	require.InDelta(t, keys/100, close, keys/1000)
	require.InDelta(t, keys/2, evens, keys/50)
}

func BenchmarkPermute(b *testing.B) {
	p := New([]byte("k"), 3_521_614_606_208)
	x := int64(0)
	for b.Loop() {
		x = p.Permute(x)
	}
}

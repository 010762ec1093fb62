package rain

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		total := int64(n) + rapid.Int64Range(0, 1000).Draw(t, "more")
		amounts := split(total, n)
		sum := int64(0)
		for _, fen := range amounts {
			if fen < 1 {
				t.Fatalf("%d fen", fen)
			}
			sum += fen
		}
		if sum != total || len(amounts) != n {
			t.Fatalf("%d packets of %d fen", len(amounts), sum)
		}
	})
	require.Equal(t, []int64{7}, split(7, 1))
	require.Equal(t, []int64{1, 1, 1}, split(3, 3))
}

// bias is by how many standard errors the first packets differ from the last, in mean and
// in spread, at most.
func bias(method func(total int64, n int) []int64) float64 {
	const rounds, n, total = 20_000, 10, 1000
	var sum, squares [n]float64
	for range rounds {
		for i, fen := range method(total, n) {
			sum[i] += float64(fen)
			squares[i] += float64(fen) * float64(fen)
		}
	}
	var mean, spread [n]float64
	for i := range n {
		mean[i] = sum[i] / rounds
		spread[i] = squares[i]/rounds - mean[i]*mean[i]
	}
	deviation := math.Sqrt(spread[0] / rounds)
	worst := (slices.Max(mean[:]) - slices.Min(mean[:])) / deviation
	return max(worst, 20*(slices.Max(spread[:])/slices.Min(spread[:])-1))
}

// It does not matter when one grabs. The usual ways to divide show that the test would
// see it if it did.
func TestSplitIsUnbiased(t *testing.T) {
	require.Less(t, bias(split), 6.0)
	greedy := func(total int64, n int) []int64 { // from what is left
		out := make([]int64, 0, n)
		for left := n; left > 1; left-- {
			fen := 1 + rand.N(total-int64(left)+1)
			out, total = append(out, fen), total-fen
		}
		return append(out, total)
	}
	doubleMean := func(total int64, n int) []int64 { // up to twice the mean of what is left
		out := make([]int64, 0, n)
		for left := n; left > 1; left-- {
			fen := 1 + rand.N(2*total/int64(left)-1)
			out, total = append(out, fen), total-fen
		}
		return append(out, total)
	}
	require.Greater(t, bias(greedy), 12.0)
	require.Greater(t, bias(doubleMean), 12.0)
}

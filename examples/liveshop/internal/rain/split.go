package rain

import (
	"math/rand/v2"
	"slices"
)

// split divides total fen into n amounts of at least 1 fen, every way to do so equally
// likely: the places of n-1 cuts are drawn among the total-1 between neighbouring fen.
// So no packet is better than another because of when it is grabbed, as with methods
// that draw one amount after the other from what is left. 1 <= n <= total; O(n log n).
func split(total int64, n int) []int64 {
	// Sampling without repetition after Floyd ("Programming Pearls: A Sample of Brilliance").
	taken := make(map[int64]bool, n)
	for top := total - int64(n) + 1; top < total; top++ {
		cut := 1 + rand.N(top) // crypto-strength: amounts are money
		if taken[cut] {
			cut = top
		}
		taken[cut] = true
	}
	cuts := make([]int64, 0, n)
	for cut := range taken {
		cuts = append(cuts, cut)
	}
	slices.Sort(cuts)
	cuts = append(cuts, total)
	for i := n - 1; i > 0; i-- {
		cuts[i] -= cuts[i-1]
	}
	return cuts
}

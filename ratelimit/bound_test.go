package ratelimit

import (
	"math/big"
	"slices"

	"github.com/stretchr/testify/require"
)

// excess returns by how many units the grants exceed burst + rate·t at most, over
// all windows that begin and end with a grant: 0 or less is right. It is O(n): with
// S the sum of grants up to and including one, and D = S - rate·at, the excess of
// the window (i, j) is D[j] - (D[i] - units[i]) - burst.
func excess(limit Limit, grants []grant) *big.Rat {
	grants = slices.Clone(grants)
	slices.SortStableFunc(grants, func(a, b grant) int { return int(a.at - b.at) })
	var least, worst *big.Rat
	sum := int64(0)
	for _, g := range grants {
		before := new(big.Rat).Sub(big.NewRat(sum, 1), limit.refill(g.at))
		if least == nil || before.Cmp(least) < 0 {
			least = before
		}
		sum += g.units
		d := new(big.Rat).Sub(big.NewRat(sum, 1), limit.refill(g.at))
		d.Sub(d, least)
		d.Sub(d, big.NewRat(limit.Burst, 1))
		if worst == nil || d.Cmp(worst) > 0 {
			worst = d
		}
	}
	if worst == nil {
		return new(big.Rat)
	}
	return worst
}

// requireBound fails if in any window more was granted than burst + rate·t + extra.
func requireBound(t require.TestingT, limit Limit, grants []grant, extra float64) {
	f, _ := excess(limit, grants).Float64()
	require.LessOrEqual(t, f, extra, "units beyond limit %+v", limit)
}

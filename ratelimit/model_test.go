package ratelimit

import (
	"math/big"
)

// A model decides as the limits are documented, in rational numbers and with all of
// the past, in ways of its own: a bucket that fills up, counts by window, a list of
// all grants. Times are in µs.
type model struct {
	limits []Limit
	tokens []*big.Rat // GCRA: in the bucket at last
	last   int64
	past   []grant // every unit granted
	none   bool    // nothing was taken yet
}

func newModel(limits []Limit) *model {
	m := &model{limits: limits, none: true}
	for _, l := range limits {
		m.tokens = append(m.tokens, big.NewRat(l.Burst, 1))
	}
	return m
}

func (m *model) advance(now int64) {
	for i, l := range m.limits {
		if !m.none {
			m.tokens[i].Add(m.tokens[i], l.refill(now-m.last))
		}
		if full := big.NewRat(l.Burst, 1); m.tokens[i].Cmp(full) > 0 {
			m.tokens[i] = full
		}
	}
	m.last, m.none = now, false
}

// refill is what comes in us.
func (l Limit) refill(us int64) *big.Rat {
	r := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(us), big.NewInt(l.Rate)), big.NewInt(l.Period.Microseconds()))
	return r
}

// left is how many units there are of limit i, as a rational.
func (m *model) left(i int, now int64) *big.Rat {
	l, p := m.limits[i], m.limits[i].Period.Microseconds()
	sum := func(from, to int64) (n int64) { // granted in [from, to)
		for _, g := range m.past {
			if g.at >= from && g.at < to {
				n += g.units
			}
		}
		return n
	}
	start := now - now%p
	left := big.NewRat(l.Burst, 1)
	switch l.Algorithm {
	case GCRA:
		left.Set(m.tokens[i])
	case FixedWindow:
		left.Sub(left, big.NewRat(sum(start, start+p), 1))
	case SlidingWindow:
		left.Sub(left, big.NewRat(sum(start, start+p), 1))
		overlap := new(big.Rat).SetFrac64(start+p-now, p)
		left.Sub(left, overlap.Mul(overlap, big.NewRat(sum(start-p, start), 1)))
	case SlidingLog:
		left.Sub(left, big.NewRat(sum(now-p+1, now+1), 1))
	}
	return left
}

func floorRat(r *big.Rat) int64 {
	q := new(big.Int)
	q.Div(r.Num(), r.Denom()) // Euclidean: floor for a positive divisor
	return q.Int64()
}

// available is the least of the limits, never below 0.
func (m *model) available(now int64) (least int64, which []int) {
	least = 1 << 62
	for i := range m.limits {
		n := max(0, floorRat(m.left(i, now)))
		if n < least {
			least, which = n, nil
		}
		if n == least {
			which = append(which, i)
		}
	}
	return least, which
}

// take decides as take.lua does.
func (m *model) take(q run, now int64) int64 {
	m.advance(now)
	if q.n == 0 {
		return q.k
	}
	least, _ := m.available(now)
	granted := min(q.k, least/q.n)
	if granted > 0 {
		m.charge(granted*q.n, now)
	}
	return granted
}

func (m *model) charge(n, now int64) {
	for i := range m.limits {
		m.tokens[i].Sub(m.tokens[i], big.NewRat(n, 1))
	}
	m.past = append(m.past, grant{now, n})
}

// enough reports whether n units would be there at a time, if nothing is taken before.
func (m *model) enough(n, at int64) bool {
	saved := model{limits: m.limits, last: m.last, past: m.past}
	for _, t := range m.tokens {
		saved.tokens = append(saved.tokens, new(big.Rat).Set(t))
	}
	saved.advance(at)
	least, _ := saved.available(at)
	return least >= n
}

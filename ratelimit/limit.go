package ratelimit

import (
	"fmt"
	"math/bits"
	"strconv"
	"time"
)

// An Algorithm is how a limit counts. In the bounds, n/period is the limit's rate.
type Algorithm uint8

const (
	// GCRA, the default, is a token bucket by another name: Burst units at once, and
	// a new one every Period/Rate. In any t it grants at most Burst + Rate·t/Period.
	// It keeps two numbers a key, whatever the rate.
	GCRA Algorithm = iota
	// FixedWindow grants Rate units per window, windows being aligned to the server's
	// clock (those of NewLocal to its start). At the edge of two windows it grants
	// twice that at once.
	FixedWindow
	// SlidingWindow keeps the counts of two windows and assumes that the units of the
	// one before were spread evenly. It grants at most Rate + Rate·t/Period in any t:
	// where they were not spread evenly, close to twice Rate in one Period, though
	// never at once as FixedWindow does. Where demand does not end it grants up to one
	// unit a window less than is due, which matters for small rates.
	SlidingWindow
	// SlidingLog keeps the time of every grant: at most Rate units in any Period,
	// exactly. A call costs O(Rate) and a key some 9 bytes per grant, hence Rate
	// is at most 1000.
	SlidingLog
)

// A Limit is so many units per period.
type Limit struct {
	// Name appears in Result.Limiting and in HTTP fields; "<Rate>/<Period>" if empty.
	// The limits of one limiter have different names.
	Name string
	// Rate is the number of units per Period. Any rate is exact: 7 a second do not drift.
	Rate int64
	// Period is at least 1 µs, at most 366 days, in whole microseconds.
	Period time.Duration
	// Burst is how many units can be had at once, for GCRA, at least 1. The others count
	// windows: there it equals Rate, as PerSecond, PerMinute and PerHour have it.
	Burst int64
	// Algorithm is GCRA if zero.
	Algorithm Algorithm
}

// PerSecond is a limit of n units a second, all of which may come at once.
func PerSecond(n int64) Limit { return Limit{Rate: n, Period: time.Second, Burst: n} }

// PerMinute is a limit of n units a minute, all of which may come at once.
func PerMinute(n int64) Limit { return Limit{Rate: n, Period: time.Minute, Burst: n} }

// PerHour is a limit of n units an hour, all of which may come at once.
func PerHour(n int64) Limit { return Limit{Rate: n, Period: time.Hour, Burst: n} }

// WithBurst returns the limit with another burst.
func (l Limit) WithBurst(n int64) Limit {
	l.Burst = n
	return l
}

// Limits of a Limit. They keep every figure of the scripts an exact integer.
const (
	maxLimits  = 8
	maxPeriod  = 366 * 24 * time.Hour
	maxBurst   = 1 << 40
	maxRefill  = int64(10*366*24*time.Hour) / 1000 // µs
	maxLog     = 1000
	maxInteger = 1 << 52
)

// A rule is a Limit in the integers that read.lua describes.
type rule struct {
	name      string
	algorithm Algorithm
	a, b, c   int64 // GCRA: a + b/c µs per unit; else the window a
	unit      int64 // a·c + b
	burst     int64
	full      int64 // GCRA: µs to refill the burst, and the part of one in 1/c
	fullPart  int64
}

// compile checks limits and returns their rules.
func compile(limits []Limit) ([]rule, error) {
	if len(limits) == 0 || len(limits) > maxLimits {
		return nil, fmt.Errorf("%w: %d limits, want 1 to %d", ErrInvalid, len(limits), maxLimits)
	}
	rules := make([]rule, len(limits))
	for i, l := range limits {
		if l.Name == "" {
			l.Name = strconv.FormatInt(l.Rate, 10) + "/" + l.Period.String()
		}
		r, err := l.compile()
		if err != nil {
			return nil, fmt.Errorf("%w: limit %q: %w", ErrInvalid, l.Name, err)
		}
		for j := range rules[:i] {
			if rules[j].name == l.Name {
				return nil, fmt.Errorf("%w: two limits are named %q", ErrInvalid, l.Name)
			}
		}
		rules[i] = r
	}
	return rules, nil
}

func (l Limit) compile() (rule, error) {
	us := l.Period.Microseconds()
	switch {
	case l.Rate <= 0 || l.Rate > maxBurst:
		return rule{}, fmt.Errorf("its Rate is %d, want 1 to 2^40", l.Rate)
	case l.Burst <= 0 || l.Burst > maxBurst:
		return rule{}, fmt.Errorf("its Burst is %d, want 1 to 2^40", l.Burst)
	case l.Period < time.Microsecond || l.Period > maxPeriod || l.Period%time.Microsecond != 0:
		return rule{}, fmt.Errorf("its Period is %v, want 1µs to %v, whole microseconds", l.Period, maxPeriod)
	case l.Algorithm > SlidingLog:
		return rule{}, fmt.Errorf("its Algorithm is %d, want GCRA to SlidingLog", l.Algorithm)
	case l.Algorithm != GCRA && l.Burst != l.Rate:
		return rule{}, fmt.Errorf("its Burst is %d, want the Rate %d: only GCRA has bursts of another size", l.Burst, l.Rate)
	case l.Algorithm == SlidingLog && l.Rate > maxLog:
		return rule{}, fmt.Errorf("its Rate is %d, want at most %d: the log keeps every grant", l.Rate, maxLog)
	case l.Algorithm == SlidingWindow && l.Rate > maxInteger/us:
		return rule{}, fmt.Errorf("its Rate %d times Period %v overflows: want at most 2^52 in µs", l.Rate, l.Period)
	}
	r := rule{name: l.Name, algorithm: l.Algorithm, burst: l.Burst, a: us, c: 1}
	if l.Algorithm != GCRA {
		return r, nil
	}
	g := gcd(us, l.Rate)
	r.unit, r.c = us/g, l.Rate/g
	r.a, r.b = r.unit/r.c, r.unit%r.c
	hi, lo := bits.Mul64(uint64(l.Burst), uint64(r.unit))
	switch {
	case r.c > maxInteger/l.Burst:
		return rule{}, fmt.Errorf("its Burst %d at %d per %v overflows: want Burst·Rate, less common factors with Period, up to 2^52",
			l.Burst, l.Rate, l.Period)
	case hi >= uint64(r.c), div(hi, lo, r.c) > maxRefill:
		return rule{}, fmt.Errorf("its Burst %d at %d per %v takes more than ten years to refill", l.Burst, l.Rate, l.Period)
	}
	r.full, r.fullPart = r.costs(l.Burst)
	return r, nil
}

// costs returns the time that n units take to refill: µs, and 1/c µs.
func (r *rule) costs(n int64) (us, part int64) {
	if r.b == 0 { // spares two divisions
		return n * r.a, 0
	}
	return n*r.a + n*r.b/r.c, n * r.b % r.c
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// div returns (hi·2^64 + lo) / d, which must fit.
func div(hi, lo uint64, d int64) int64 {
	q, _ := bits.Div64(hi, lo, uint64(d))
	return int64(q)
}

// letters are the algorithms as read.lua names them.
const letters = "GFSL"

// args appends the rule as read.lua takes it.
func (r *rule) args(to []any) []any {
	return append(to, letters[r.algorithm:r.algorithm+1], r.a, r.b, r.c, r.burst)
}

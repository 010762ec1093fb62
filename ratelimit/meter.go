package ratelimit

import "math/bits"

// A meter is what one limit knows of one key, without Redis. Its methods are those
// of read.lua and take.lua, in the same integers; times are in µs.
type meter struct {
	tat, part int64 // GCRA: when all is refilled, and the part of one µs in 1/c
	window    int64 // F, S: the number of the window
	before    int64 // S: units in the window before
	used      int64 // F, S, L: units in this window
	log       []grant
}

type grant struct{ at, units int64 }

// advance brings the meter to now.
func (m *meter) advance(r *rule, now int64) {
	switch r.algorithm {
	case GCRA:
		if m.tat < now {
			m.tat, m.part = now, 0
		}
	case FixedWindow, SlidingWindow:
		w := now / r.a
		switch w - m.window {
		case 0:
			return
		case 1:
			m.before, m.used = m.used, 0
		default:
			m.before, m.used = 0, 0
		}
		m.window = w
	case SlidingLog:
		n := 0
		for n < len(m.log) && m.log[n].at+r.a <= now {
			m.used -= m.log[n].units
			n++
		}
		m.log = m.log[:copy(m.log, m.log[n:])]
	}
}

// available returns how many units there are now.
func (m *meter) available(r *rule, now int64) int64 {
	switch r.algorithm {
	case GCRA:
		us, part := now+r.full-m.tat, r.fullPart-m.part
		if part < 0 {
			us, part = us-1, part+r.c
		}
		if us < 0 {
			return 0
		}
		hi, lo := bits.Mul64(uint64(us), uint64(r.c))
		lo, carry := bits.Add64(lo, uint64(part), 0)
		if hi+carry == 0 {
			return int64(lo / uint64(r.unit))
		}
		return div(hi+carry, lo, r.unit)
	case SlidingWindow:
		rest := (m.window+1)*r.a - now
		return max(0, ((r.burst-m.used)*r.a-m.before*rest)/r.a)
	}
	return r.burst - m.used
}

// delay returns the µs until there are n units, 0 or less if there are.
func (m *meter) delay(r *rule, now, n int64) int64 {
	switch r.algorithm {
	case GCRA:
		us, part := r.costs(n)
		us, part = us+m.tat-now-r.full, part+m.part
		if part >= r.c {
			us, part = us+1, part-r.c
		}
		if part > r.fullPart {
			us++
		}
		return us
	case FixedWindow:
		if m.used+n > r.burst {
			return (m.window+1)*r.a - now
		}
	case SlidingWindow:
		rest := (m.window+1)*r.a - now
		if m.used+n > r.burst {
			return rest + max(0, r.a-(r.burst-n)*r.a/m.used)
		}
		if m.before > 0 {
			return rest - (r.burst-m.used-n)*r.a/m.before
		}
	case SlidingLog:
		need := m.used + n - r.burst
		for i := 0; need > 0; i++ {
			if need -= m.log[i].units; need <= 0 {
				return m.log[i].at + r.a - now
			}
		}
	}
	return 0
}

// charge takes n units at a time that is now or, for GCRA, later.
func (m *meter) charge(r *rule, at, n int64) {
	switch r.algorithm {
	case GCRA:
		if m.tat < at {
			m.tat, m.part = at, 0
		}
		us, part := r.costs(n)
		m.tat, m.part = m.tat+us, m.part+part
		if m.part >= r.c {
			m.tat, m.part = m.tat+1, m.part-r.c
		}
	case SlidingLog:
		if last := len(m.log) - 1; last >= 0 && m.log[last].at == at {
			m.log[last].units += n
		} else {
			m.log = append(m.log, grant{at, n})
		}
		m.used += n
	default:
		m.used += n
	}
}

// ready returns when everything is there again.
func (m *meter) ready(r *rule, now int64) int64 {
	switch {
	case r.algorithm == GCRA && m.part > 0:
		return m.tat + 1
	case r.algorithm == GCRA:
		return m.tat
	case r.algorithm == SlidingLog && len(m.log) > 0:
		return m.log[len(m.log)-1].at + r.a
	case r.algorithm == SlidingWindow && m.used > 0:
		return (m.window + 2) * r.a
	case r.algorithm == SlidingWindow && m.before > 0, r.algorithm == FixedWindow && m.used > 0:
		return (m.window + 1) * r.a
	}
	return now
}

package ratelimit

import "slices"

// Meters are those of one key, one for each limit. A call is granted by all or none.
type meters []meter

// decide is the loop of take.lua. It reports whether anything was taken.
func (m meters) decide(rules []rule, q run, now int64, v *verdict) (taken bool) {
	for i := range m {
		m[i].advance(&rules[i], now)
	}
	v.granted, v.now = q.k, now
	v.left, v.limit = m.available(rules, now)
	if q.n == 0 {
		if v.left == 0 {
			v.us, _ = m.delay(rules, now, 1)
		}
	} else {
		n := v.left
		if q.n > 1 { // spares a division
			n /= q.n
		}
		v.granted = min(q.k, n)
		taken = v.granted > 0
		if taken {
			m.charge(rules, now, v.granted*q.n)
		}
		v.left -= v.granted * q.n
		if v.granted < q.k {
			v.us, v.limit = m.delay(rules, now, q.n)
			if q.wait > 0 && v.us <= q.wait {
				v.found = &found{meters: slices.Clone(m)}
				m.charge(rules, now+v.us, q.n)
				v.granted, taken = 1, true
				v.left, v.limit = m.available(rules, now)
			}
		}
	}
	v.reset = max(0, m[v.limit].ready(&rules[v.limit], now)-now)
	return taken
}

func (m meters) available(rules []rule, now int64) (least int64, limit int) {
	for i := range m {
		if n := m[i].available(&rules[i], now); i == 0 || n < least {
			least, limit = n, i
		}
	}
	return least, limit
}

func (m meters) delay(rules []rule, now, n int64) (longest int64, limit int) {
	for i := range m {
		if us := m[i].delay(&rules[i], now, n); us > longest {
			longest, limit = us, i
		}
	}
	return longest, limit
}

func (m meters) charge(rules []rule, at, n int64) {
	for i := range m {
		m[i].charge(&rules[i], at, n)
	}
}

// ready returns when everything is there again.
func (m meters) ready(rules []rule, now int64) int64 {
	last := now
	for i := range m {
		last = max(last, m[i].ready(&rules[i], now))
	}
	return last
}

// giveBack undoes a charge of n units that were there, of limits that are all GCRA.
func (m meters) giveBack(rules []rule, n int64) {
	for i := range m {
		us, part := rules[i].costs(n)
		if m[i].part < part {
			m[i].tat, m[i].part = m[i].tat-1, m[i].part+rules[i].c
		}
		m[i].tat, m[i].part = m[i].tat-us, m[i].part-part
	}
}

package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A suite is what the rounds measured, in the order of the first one.
type suite struct{ rows []*row }

// A row is one benchmark: Benchmark<work>/<impl>[/<param>].
type row struct {
	work, impl, param string
	metrics           map[string][]float64 // by unit, one figure a round
}

func (r *row) name() string { return strings.TrimSuffix(r.work+"/"+r.impl+"/"+r.param, "/") }

// group names the rows that r is compared with.
func (r *row) group() string { return strings.TrimSuffix(r.work+"/"+r.param, "/") }

var (
	procs  = regexp.MustCompile(`-\d+$`)
	result = regexp.MustCompile(`^Benchmark\S+\s+\d+\s+\S`)
)

// add takes a line of go test's output; it returns nil if that is none of a result.
func (s *suite) add(line string) *row {
	if !result.MatchString(line) {
		return nil
	}
	f := strings.Fields(line)
	parts := strings.SplitN(procs.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), ""), "/", 3)
	parts = append(parts, "", "")
	r := s.row(parts[0], parts[1], parts[2])
	if r == nil {
		r = &row{work: parts[0], impl: parts[1], param: parts[2], metrics: map[string][]float64{}}
		s.rows = append(s.rows, r)
	}
	for i := 2; i+1 < len(f); i += 2 {
		if v, err := strconv.ParseFloat(f[i], 64); err == nil {
			r.metrics[f[i+1]] = append(r.metrics[f[i+1]], v)
		}
	}
	// A row that leaves the time to go test has operations a second all the same.
	if ns := r.metrics["ns/op"]; len(ns) > len(r.metrics["ops/s"]) && ns[len(ns)-1] > 0 {
		r.metrics["ops/s"] = append(r.metrics["ops/s"], 1e9/ns[len(ns)-1])
	}
	return r
}

// A subject is what a group of rows is about: the figure its chart shows.
type subject struct{ title, unit string }

// subjects in the order in which they are looked for: a quick answer after many loads
// is no merit, and what a row takes in memory was measured for its own sake.
var subjects = []subject{
	{"loads", "loads/op"},
	{"bytes a job", "B/job"},
	{"bytes an object", "B/object"},
	{"µs to the next holder, median", "p50-us"},
	{"operations a second", "ops/s"},
	{"milliseconds late, 99th percentile", "p99-ms"},
}

func about(rows []*row) subject {
	for _, s := range subjects {
		if slices.ContainsFunc(rows, func(r *row) bool { return len(r.metrics[s.unit]) > 0 }) {
			return s
		}
	}
	return subject{"nothing", ""}
}

// row returns the row of that name, or nil.
func (s *suite) row(work, impl, param string) *row {
	for _, r := range s.rows {
		if r.work == work && r.impl == impl && r.param == param {
			return r
		}
	}
	return nil
}

// groups returns the rows that are compared with each other.
func (s *suite) groups() [][]*row {
	var names []string
	by := map[string][]*row{}
	for _, r := range s.rows {
		g := r.group()
		if by[g] == nil {
			names = append(names, g)
		}
		by[g] = append(by[g], r)
	}
	out := make([][]*row, len(names))
	for i, n := range names {
		out[i] = by[n]
	}
	return out
}

// median returns the median over the rounds; false where r has no such metric.
func (r *row) median(unit string) (float64, bool) { return median(r.metrics[unit]) }

// ratio is the median over the rounds of r's metric by o's: both were measured
// within the same minute, and what slowed the machine in one round cancels out.
func ratio(r, o *row, unit string) (float64, bool) {
	if r == nil || o == nil {
		return 0, false
	}
	a, b := r.metrics[unit], o.metrics[unit]
	var q []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			q = append(q, a[i]/b[i])
		}
	}
	return median(q)
}

func median(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2, true
}

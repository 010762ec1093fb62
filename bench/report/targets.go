package main

import "fmt"

// A target is what the project set itself: a ratio of two rows in the same round,
// or, where than is empty, a bound on one row.
type target struct {
	work, impl, param string
	than              string // impl of the same work and param
	unit              string
	atLeast, atMost   float64 // one of them
}

var targets = []target{
	{work: "StockDeduct", impl: "spillway", param: "goroutines=64", than: "spillway-unmerged", unit: "ops/s", atLeast: 2},
	{work: "StockDeduct", impl: "spillway", param: "goroutines=64", than: "redsync-lock", unit: "ops/s", atLeast: 20},
	{work: "StockDeduct", impl: "spillway", param: "goroutines=64", than: "decrby", unit: "ops/s", atLeast: 0.9},
	{work: "StockDeduct", impl: "spillway", param: "goroutines=256", than: "spillway-unmerged", unit: "ops/s", atLeast: 3},
	{work: "StockDeduct", impl: "spillway", param: "goroutines=256", than: "decrby", unit: "ops/s", atLeast: 1.3},
	{work: "StockDeduct", impl: "spillway-unmerged", param: "goroutines=64", than: "lua-minimal", unit: "ops/s", atLeast: 0.4},
	{work: "StockDeduct", impl: "spillway-unmerged", param: "goroutines=256", than: "lua-minimal", unit: "ops/s", atLeast: 0.4},
	{work: "StockDeduct", impl: "spillway", param: "goroutines=64", unit: "B/order", atMost: 200},
	{work: "StockDeduct", impl: "spillway-reserve", param: "goroutines=64", unit: "B/order", atMost: 200},
	{work: "StockSoldOut", impl: "spillway", than: "round-trip", unit: "ops/s", atLeast: 50},
	{work: "Ring", impl: "spillway", param: "nodes=100", unit: "CPU-ns/op", atMost: 15},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "go-zero", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "buraksezer", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "serialx", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "go-redis-rendezvous", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "maglev", unit: "ops/s", atLeast: 0.9},
	{work: "HotKeys", impl: "spillway", unit: "CPU-ns/op", atMost: 20},
	{work: "CounterAdd", impl: "spillway", unit: "CPU-ns/op", atMost: 45},
	{work: "CounterAdd", impl: "spillway-handle", unit: "CPU-ns/op", atMost: 12},
	{work: "CounterAdd", impl: "spillway", than: "incr", unit: "ops/s", atLeast: 100},
	{work: "CounterMemory", impl: "spillway", unit: "B/object", atMost: 160},
	{work: "CounterMemory", impl: "spillway-packed", unit: "B/object", atMost: 26},
}

func (t target) String() string {
	s := fmt.Sprintf("%s, %s", t.work, t.impl)
	if t.param != "" {
		s += ", " + t.param
	}
	if t.than != "" {
		return fmt.Sprintf("%s: %s at least %g × %s", s, t.unit, t.atLeast, t.than)
	}
	return fmt.Sprintf("%s: at most %g %s", s, t.atMost, t.unit)
}

// judge returns what was measured; known is false if the rows did not run.
func (t target) judge(s *suite) (got float64, met, known bool) {
	r := s.row(t.work, t.impl, t.param)
	if r == nil {
		return 0, false, false
	}
	if t.than != "" {
		got, known = ratio(r, s.row(t.work, t.than, t.param), t.unit)
	} else {
		got, known = r.median(t.unit)
	}
	return got, known && got >= t.atLeast && (t.atMost == 0 || got <= t.atMost), known
}

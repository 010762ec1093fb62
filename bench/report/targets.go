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
	{work: "StockBuckets", impl: "spillway", param: "masters=3,buckets=6", unit: "us-redis-cpu/op/master", atMost: 1},
	{work: "DelayQueueAdd", impl: "spillway", param: "goroutines=64", than: "asynq", unit: "ops/s", atLeast: 1},
	{work: "DelayQueueAddMany", impl: "spillway", than: "asynq", unit: "ops/s", atLeast: 3},
	{work: "DelayQueueProcess", impl: "spillway", than: "asynq", unit: "ops/s", atLeast: 8},
	{work: "DelayQueueLatency", impl: "spillway", unit: "p99-ms", atMost: 10},
	{work: "DelayQueueLatency", impl: "spillway", unit: "early-ms", atMost: 0.001},
	{work: "DelayQueueMemory", impl: "spillway", unit: "B/job", atMost: 300},
	{work: "Ring", impl: "spillway", param: "nodes=100", unit: "CPU-ns/op", atMost: 15},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "go-zero", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "stathat", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "buraksezer", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "serialx", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "go-redis-rendezvous", unit: "ops/s", atLeast: 1},
	{work: "Ring", impl: "spillway", param: "nodes=100", than: "maglev", unit: "ops/s", atLeast: 0.9},
	{work: "HotKeys", impl: "spillway", unit: "CPU-ns/op", atMost: 20},
	{work: "CounterAdd", impl: "spillway", unit: "CPU-ns/op", atMost: 45},
	{work: "CounterAdd", impl: "spillway-handle", unit: "CPU-ns/op", atMost: 12},
	{work: "CounterAdd", impl: "spillway", than: "incr", unit: "ops/s", atLeast: 100},
	{work: "ID", impl: "spillway-segment", unit: "CPU-ns/op", atMost: 12},
	{work: "ID", impl: "spillway-segment", than: "spillway-snowflake", unit: "ops/s", atLeast: 1},
	{work: "ID", impl: "spillway-segment", than: "xid", unit: "ops/s", atLeast: 1},
	{work: "ID", impl: "spillway-segment", than: "yitter-dense", unit: "ops/s", atLeast: 1},
	{work: "ID", impl: "bwmarrin", than: "spillway-snowflake", unit: "CPU-ns/op", atLeast: 3},
	{work: "Code", impl: "hashids", than: "spillway", unit: "CPU-ns/op", atLeast: 10},
	{work: "Redirect", impl: "spillway", than: "bare-net-http", unit: "ops/s", atLeast: 0.8},
	{work: "CounterMemory", impl: "spillway", unit: "B/object", atMost: 160},
	{work: "CounterMemory", impl: "spillway-packed", unit: "B/object", atMost: 26},

	{work: "LockUncontended", impl: "spillway", than: "redislock", unit: "ops/s", atLeast: 0.6},
	{work: "LockUncontended", impl: "spillway-linger", than: "redislock", unit: "ops/s", atLeast: 20},
	{work: "LockContended", impl: "spillway", than: "redislock", unit: "ops/s", atLeast: 10},
	{work: "LockContended", impl: "spillway", than: "redsync", unit: "ops/s", atLeast: 10},
	{work: "LockContended", impl: "spillway", than: "rueidislock", unit: "ops/s", atLeast: 10},
	{work: "LockContended", impl: "spillway", than: "redislock", unit: "p99-ms", atMost: 0.05},
	{work: "LockContended", impl: "spillway", than: "redsync", unit: "p99-ms", atMost: 0.05},
	{work: "LockContended", impl: "spillway", than: "rueidislock", unit: "p99-ms", atMost: 0.05},
	{work: "LockContended", impl: "spillway-fair", unit: "max/min", atMost: 1.5},
	{work: "LockProcesses", impl: "spillway", unit: "requests/op", atMost: 2},
	{work: "LockProcesses", impl: "spillway-fair", unit: "max/min", atMost: 1.5},
	{work: "CacheHit", impl: "spillway", than: "ristretto", unit: "ns/op", atMost: 1},
	{work: "CacheHit", impl: "spillway", unit: "allocs/op", atMost: 0.5},
	{work: "CacheHitParallel", impl: "spillway", than: "ristretto", unit: "ns/op", atMost: 1},
	{work: "CacheRemoteHit", impl: "spillway", param: "goroutines=64", than: "go-redis-cache", unit: "ops/s", atLeast: 2},
	{work: "CacheColdStampede", impl: "spillway", param: "level=local", unit: "loads/op", atMost: 1},
	{work: "CacheColdStampede", impl: "spillway", param: "level=redis", unit: "loads/op", atMost: 1},
	// A second has room for cool-downs of 100, 200, 400 and 800 ms, less a fifth each.
	{work: "CacheFailingLoader", impl: "spillway", param: "level=local", unit: "loads/op", atMost: 4},
	{work: "CacheFailingLoader", impl: "spillway", param: "level=redis", unit: "loads/op", atMost: 4},

	{work: "LockHandoff", impl: "spillway", than: "redislock", unit: "p50-us", atMost: 0.334},
	{work: "LimiterHotKey", impl: "spillway", param: "goroutines=64", than: "redis_rate", unit: "ops/s", atLeast: 5},
	{work: "LimiterHotKey", impl: "spillway", param: "goroutines=64", than: "ulule", unit: "ops/s", atLeast: 4},
	{work: "LimiterHotKey", impl: "spillway", param: "goroutines=64", than: "go-zero-period", unit: "ops/s", atLeast: 5},
	{work: "LimiterHotKey", impl: "spillway-lease", param: "goroutines=64", than: "redis_rate", unit: "ops/s", atLeast: 40},
	{work: "LimiterDenied", impl: "spillway", param: "goroutines=64", than: "redis_rate", unit: "ops/s", atLeast: 100},
	{work: "LimiterMulti", impl: "spillway", param: "goroutines=64", than: "redis_rate", unit: "ops/s", atLeast: 2},
	{work: "LimiterLocal", impl: "spillway", param: "goroutines=64", than: "x-time-rate", unit: "ops/s", atLeast: 1.5},
	{work: "Overload", impl: "spillway", unit: "%-of-peak", atLeast: 95},
	{work: "Overload", impl: "unprotected", unit: "%-of-peak", atMost: 20},
}

func (t target) String() string {
	s := fmt.Sprintf("%s, %s", t.work, t.impl)
	if t.param != "" {
		s += ", " + t.param
	}
	bound, figure := "at least", t.atLeast
	if t.atMost > 0 {
		bound, figure = "at most", t.atMost
	}
	if t.than != "" {
		return fmt.Sprintf("%s: %s %s %g × %s", s, t.unit, bound, figure, t.than)
	}
	return fmt.Sprintf("%s: %s %g %s", s, bound, figure, t.unit)
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

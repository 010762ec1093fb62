package infra

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillway-go/spillway/cache"
)

// CountCache lets the figures of a cache count in Caches and in /metrics. Each name
// is used once.
func (e *Env) CountCache(name string, stats func() cache.Stats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.caches = append(e.caches, stats)
	figure := func(outcome string, of func(cache.Stats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "liveshop_cache_total", Help: "What caches were asked.",
			ConstLabels: prometheus.Labels{"cache": name, "outcome": outcome},
		}, func() float64 { return float64(of(stats())) })
	}
	e.Metrics.MustRegister(
		figure("local", func(s cache.Stats) uint64 { return s.LocalHits }),
		figure("redis", func(s cache.Stats) uint64 { return s.RedisHits }),
		figure("load", func(s cache.Stats) uint64 { return s.Loads }),
	)
}

// Caches returns how often the caches of this process had what they were asked for,
// and how often not.
func (e *Env) Caches() (hits, misses uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, stats := range e.caches {
		s := stats()
		hits += s.LocalHits + s.RedisHits
		misses += s.Loads
	}
	return hits, misses
}

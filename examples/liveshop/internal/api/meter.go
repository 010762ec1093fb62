package api

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats are figures of this server since it began; the latencies are those of the
// last 2,048 requests.
type Stats struct {
	Requests map[string]uint64 `json:"requests"` // by status
	P50      float64           `json:"p50_ms"`
	P99      float64           `json:"p99_ms"`
	Allowed  uint64            `json:"-"` // by the limits of callers
	Denied   uint64            `json:"-"`
}

// A meter counts requests, for Prometheus and for the page.
type meter struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	mu     sync.Mutex
	status map[string]uint64
	recent [2048]time.Duration // a ring
	n      int
}

func newMeter(metrics *prometheus.Registry) *meter {
	m := &meter{
		status: map[string]uint64{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liveshop_http_requests_total", Help: "Requests by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "liveshop_http_seconds", Help: "Time of requests by route.", Buckets: prometheus.ExponentialBuckets(0.0005, 3, 9),
		}, []string{"route"}),
	}
	metrics.MustRegister(m.requests, m.seconds)
	return m
}

// measured is h, seen by m. The route is the pattern and never the path, of which
// there is no end.
func (m *meter) measured(route string, h http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		began := time.Now()
		h.ServeHTTP(rec, r)
		if rec.hijacked {
			return // a WebSocket is open for minutes, and no request
		}
		took := time.Since(began)
		status := strconv.Itoa(rec.status)
		m.requests.WithLabelValues(route, status).Inc()
		seconds.Observe(took.Seconds())
		m.mu.Lock()
		defer m.mu.Unlock()
		m.status[status]++
		m.recent[m.n%len(m.recent)] = took
		m.n++
	})
}

func (m *meter) stats() Stats {
	m.mu.Lock()
	s := Stats{Requests: maps.Clone(m.status)}
	recent := slices.Clone(m.recent[:min(m.n, len(m.recent))])
	m.mu.Unlock()
	if len(recent) > 0 {
		slices.Sort(recent)
		ms := func(i int) float64 { return float64(recent[i].Microseconds()) / 1000 }
		s.P50, s.P99 = ms(len(recent)/2), ms(len(recent)*99/100)
	}
	return s
}

// Stats returns the figures of this server.
func (m *Mux) Stats() Stats {
	s := m.meter.stats()
	s.Allowed, s.Denied = m.limits.allowed.Load(), m.limits.denied.Load()
	return s
}

// A recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status   int
	hijacked bool
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack is for WebSockets.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	r.hijacked = err == nil
	return conn, rw, err
}

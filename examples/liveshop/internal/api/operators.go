package api

import (
	"net/http"
	"net/http/pprof"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// operators registers what is looked at by machines, and by people when it is late.
func (m *Mux) operators() {
	m.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	// A server that stops says so first. That Redis or the database is down it does
	// not say here: all servers have the same, and taking all away helps nobody.
	m.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.ready.Load() || slices.ContainsFunc(m.parts, func(ready func() bool) bool { return !ready() }) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	m.mux.Handle("GET /metrics", promhttp.HandlerFor(m.env.Metrics, promhttp.HandlerOpts{}))
	for path, h := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		m.mux.HandleFunc("GET /debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := m.local(&Request{Request: r, W: w}); err != nil {
				writeError(w, Failure(err), newTrace())
				return
			}
			h(w, r)
		})
	}
}

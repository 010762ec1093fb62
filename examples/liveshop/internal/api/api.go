// Package api is how the service speaks HTTP: routes, who may call them, one shape
// for every answer, limits, and what operators look at.
package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Prefix is before the paths of all calls.
const Prefix = "/api/v1"

// patience is how long a call may take; long is it for those that look at everything.
const (
	patience = 5 * time.Second
	long     = 15 * time.Second
)

// A Handler answers a call: with data, which becomes JSON, or with an error: an
// *Error as it is, any other as Failure tells.
type Handler func(r *Request) (any, error)

// A Request is a call.
type Request struct {
	*http.Request
	W   http.ResponseWriter
	UID int64 // who calls; 0 for nobody
}

// An Authenticator returns whose token it is; 0 if nobody's.
type Authenticator func(ctx context.Context, token string) (uid int64, err error)

// A Mux routes calls. Patterns are those of http.ServeMux.
//
//   - Public is for everybody; a token is looked at if there is one.
//   - User is for those with a token.
//   - Admin is for programs and pages on the same machine; AdminLong too, and may take
//     15 s instead of 5.
//   - Raw is any http.Handler, under a pattern without Prefix.
type Mux struct {
	env     *infra.Env
	mux     *http.ServeMux
	who     Authenticator
	limits  *limits
	meter   *meter
	foreign *http.CrossOriginProtection
	unknown http.Handler
	ready   atomic.Bool
	parts   []func() bool // whether they are ready
}

// New returns a Mux with the routes of operators: /healthz, /readyz, /metrics and
// /debug/pprof.
func New(env *infra.Env, who Authenticator) (*Mux, error) {
	limits, err := newLimits()
	if err != nil {
		return nil, err
	}
	m := &Mux{
		env: env, mux: http.NewServeMux(), who: who, limits: limits, meter: newMeter(env.Metrics),
		foreign: http.NewCrossOriginProtection(),
	}
	m.unknown = m.meter.measured("unknown", http.HandlerFunc(m.answerUnknown))
	m.operators()
	return m, nil
}

// Public registers a call that anybody may make.
func (m *Mux) Public(pattern string, h Handler) { m.handle(pattern, h, m.optional, patience) }

// User registers a call that needs a token.
func (m *Mux) User(pattern string, h Handler) { m.handle(pattern, h, m.required, patience) }

// Admin registers a call that only this machine may make.
func (m *Mux) Admin(pattern string, h Handler) { m.handle(pattern, h, m.local, patience) }

// AdminLong registers a call that only this machine may make, and that may take long.
func (m *Mux) AdminLong(pattern string, h Handler) { m.handle(pattern, h, m.local, long) }

// Raw registers a handler as it is, under a pattern without Prefix.
func (m *Mux) Raw(pattern string, h http.Handler) {
	m.mux.Handle(pattern, m.meter.measured(pattern, h))
}

func (m *Mux) handle(pattern string, h Handler, enter func(*Request) error, limit time.Duration) {
	method, path, _ := strings.Cut(pattern, " ")
	pattern = method + " " + Prefix + path
	m.mux.Handle(pattern, m.meter.measured(pattern, http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		ctx, cancel := context.WithTimeout(hr.Context(), limit)
		defer cancel()
		r := &Request{Request: hr.WithContext(ctx), W: w}
		trace := newTrace()
		data, err := func() (_ any, err error) {
			defer recovered(&err)
			if err := enter(r); err != nil {
				return nil, err
			}
			if err := m.limits.allow(r); err != nil {
				return nil, err
			}
			return h(r)
		}()
		if err == nil {
			write(w, http.StatusOK, envelope{Code: "ok", Data: data, Trace: trace})
			return
		}
		// Who was too slow with the body is told so, but to net/http they have left.
		slow := new(Error)
		if !(errors.As(err, &slow) && slow.Status == http.StatusRequestTimeout) && errors.Is(hr.Context().Err(), context.Canceled) {
			w.WriteHeader(statusClientLeft)
			return
		}
		e := Failure(err)
		if e.Status >= 500 {
			m.env.Log.Warn("call failed", "route", pattern, "uid", r.UID, "trace", trace, "status", e.Status, "err", err)
		}
		writeError(w, e, trace)
	})))
}

// statusClientLeft is what nginx calls a request whose client did not wait.
const statusClientLeft = 499

// SetReady says whether this server wants requests, which /readyz answers.
func (m *Mux) SetReady(ready bool) { m.ready.Store(ready) }

// ReadyWhen makes /readyz also ask a part of the server; called while the server is
// put together.
func (m *Mux) ReadyWhen(ready func() bool) { m.parts = append(m.parts, ready) }

// ServeHTTP makes Mux a handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.cors(w, r) {
		return
	}
	if strings.HasPrefix(r.URL.Path, Prefix+"/") && !m.known(r) {
		m.unknown.ServeHTTP(w, r)
		return
	}
	m.mux.ServeHTTP(w, r)
}

// cors lets pages of the allowed origins call, and reports whether the request was
// the browser's question whether they may. Tokens are in headers and never in
// cookies, hence no credentials.
func (m *Mux) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	w.Header().Add("Vary", "Origin")
	if m.env.Config.OriginAllowed(origin, r.Host) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Retry-After")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, PUT")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return true
		}
	}
	return false
}

func newTrace() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

package httplimit

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/ratelimit"
)

// Options of a Middleware. The zero value of a field is its default.
type Options struct {
	// Cost is how many units a request takes, 1 for each if nil. 0 lets a request
	// pass; one that costs more than the burst is answered 429 without Retry-After.
	Cost func(*http.Request) int64
	// Legacy adds X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset, the
	// last in seconds from now, for clients that know only these.
	Legacy bool
}

// Middleware returns a wrapper for handlers that asks l for each request, under the
// key that key names. It panics without a limiter or a key.
func Middleware(l *ratelimit.Limiter, key KeyFunc, opts Options) func(http.Handler) http.Handler {
	if l == nil || key == nil {
		panic("httplimit: Middleware wants a limiter and a KeyFunc, such as ByIP()")
	}
	m := &middleware{limiter: l, key: key, opts: opts, quota: make(map[string]int64)}
	var policies []string
	for _, limit := range l.Limits() {
		m.quota[limit.Name] = limit.Burst
		policies = append(policies, policy(limit))
	}
	m.policies = strings.Join(policies, ", ")
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

type middleware struct {
	limiter  *ratelimit.Limiter
	key      KeyFunc
	opts     Options
	policies string
	quota    map[string]int64
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	cost := int64(1)
	if m.opts.Cost != nil {
		cost = m.opts.Cost(r)
	}
	res, err := m.limiter.AllowN(r.Context(), m.key(r), cost)
	h := w.Header()
	h.Set("RateLimit-Policy", m.policies)
	switch {
	case errors.Is(err, ratelimit.ErrExceedsBurst):
		deny(w, http.StatusTooManyRequests, "The request costs more than the quota allows at once", "")
		return
	case err != nil:
		deny(w, http.StatusServiceUnavailable, "The rate limiter failed", "")
		return
	}
	reset := seconds(res.ResetAfter)
	h.Set("RateLimit", quote(res.Limiting)+";r="+strconv.FormatInt(res.Remaining, 10)+";t="+reset)
	if m.opts.Legacy {
		h.Set("X-RateLimit-Limit", strconv.FormatInt(m.quota[res.Limiting], 10))
		h.Set("X-RateLimit-Remaining", strconv.FormatInt(res.Remaining, 10))
		h.Set("X-RateLimit-Reset", reset)
	}
	if !res.OK() && cost > 0 {
		h.Set("Retry-After", seconds(res.RetryAfter))
		deny(w, http.StatusTooManyRequests, "Request cannot be satisfied as assigned quota has been exceeded", res.Limiting)
		return
	}
	next.ServeHTTP(w, r)
}

// deny answers with a problem body. quota-exceeded is the type that the draft
// registers.
func deny(w http.ResponseWriter, status int, title, violated string) {
	body := struct {
		Type     string   `json:"type"`
		Title    string   `json:"title"`
		Status   int      `json:"status"`
		Violated []string `json:"violated-policies,omitempty"`
	}{Type: "about:blank", Title: title, Status: status}
	if violated != "" {
		body.Type, body.Violated = "https://iana.org/assignments/http-problem-types#quota-exceeded", []string{violated}
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}

// policy describes a limit as the draft does: a quota of q units in a window of w
// seconds. A bucket's window is the time in which it fills up.
func policy(l ratelimit.Limit) string {
	window := l.Period
	if l.Algorithm == ratelimit.GCRA {
		window = time.Duration(float64(l.Period) * float64(l.Burst) / float64(l.Rate))
	}
	return quote(l.Name) + ";q=" + strconv.FormatInt(l.Burst, 10) + ";w=" + seconds(max(window, 1))
}

// seconds rounds up: a client told to come back too early would be denied again.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// quote makes s a string of a structured field (RFC 9651), which is ASCII.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

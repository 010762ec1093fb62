package shorturl

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// Headers that all answers share. Nothing writes to them.
var (
	notCached = []string{"private, max-age=0"}
	cachedDay = []string{"public, max-age=86400"}
	plain     = []string{"text/plain; charset=utf-8"}
)

// Handler returns the handler that redirects /<code>. Mount it at the root of the
// short domain, or behind http.StripPrefix.
//
// It answers 302, not to be cached, so that a changed link is followed and clicks are
// counted. A Permanent link gets 301, cached for a day, unless it has an end or clicks
// are recorded. 404 is a code that is unknown, 410 a link that is expired, disabled or
// used up, 429 what Options.Limit refused, 503 a Store that failed.
//
// A link with MaxClicks is counted in the Store before the redirect. HEAD and known
// bots are not counted, and get 204 without the address for such a link: it would
// be a way around the count. Whether it is used up they are told as it was when the
// link was last read.
func (s *Service) Handler() http.Handler { return http.HandlerFunc(s.redirect) }

func (s *Service) redirect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed)
		return
	}
	code := strings.TrimPrefix(r.URL.Path, "/")
	now := time.Now()
	e := s.atHand(code, now)
	if e == nil {
		if s.opts.Limit != nil && !s.opts.Limit(r) {
			w.Header().Set("Retry-After", "1")
			answer(w, http.StatusTooManyRequests)
			return
		}
		var err error
		if e, err = s.load(r.Context(), code); err != nil {
			refuse(w, err)
			return
		}
		now = time.Now()
	}
	if e.link.MaxClicks > 0 && (r.Method == http.MethodHead || isBot(r.UserAgent())) {
		if !e.link.alive(now) {
			answer(w, http.StatusGone)
			return
		}
		answer(w, http.StatusNoContent)
		return
	}
	e, err := s.follow(r.Context(), e, now)
	if err != nil {
		refuse(w, err)
		return
	}
	h := w.Header()
	h["Location"] = e.location
	if e.link.PassQuery && r.URL.RawQuery != "" {
		h["Location"] = []string{withQuery(e.link.URL, r.URL.RawQuery)}
	}
	if s.queue != nil && r.Method == http.MethodGet {
		s.click(rawClick{e.code, r.Referer(), r.UserAgent(), s.address(r), now})
	}
	if e.link.Permanent && e.link.Expires.IsZero() && e.link.MaxClicks == 0 && s.queue == nil {
		h["Cache-Control"] = cachedDay
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	h["Cache-Control"] = notCached
	w.WriteHeader(http.StatusFound)
}

// withQuery appends query to that of url.
func withQuery(url, query string) string {
	before, fragment, marked := strings.Cut(url, "#")
	mark := "?"
	if strings.Contains(before, "?") {
		mark = "&"
	}
	out := before + mark + escapeRest(query)
	if marked {
		out += "#" + fragment
	}
	return out
}

func (s *Service) address(r *http.Request) string {
	if s.opts.Address != nil {
		return s.opts.Address(r)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrNotFound):
		answer(w, http.StatusNotFound)
	case errors.Is(err, ErrGone):
		answer(w, http.StatusGone)
	default:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable)
	}
}

func answer(w http.ResponseWriter, status int) {
	h := w.Header()
	h["Cache-Control"] = notCached
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	h["Content-Type"] = plain
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(http.StatusText(status) + "\n"))
}

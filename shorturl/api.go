package shorturl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const maxBody = 16 << 10 // bytes

// API returns a JSON API for those whom Options.Authenticate names; each sees and
// changes the links of that owner only.
//
//	POST   /links                 make one: url, alias, expires, max_clicks, permanent, pass_query, one_to_one
//	GET    /links?after=&limit=   list, by code; limit 100 if not given, at most 1,000
//	GET    /links/{code}
//	PATCH  /links/{code}          url, expires (null: never), max_clicks, permanent, pass_query
//	POST   /links/{code}/disable
//	DELETE /links/{code}
//
// What goes wrong is answered as problem details (RFC 9457).
func (s *Service) API() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /links", s.as(s.apiCreate))
	mux.Handle("GET /links", s.as(s.apiList))
	mux.Handle("GET /links/{code}", s.as(s.apiGet))
	mux.Handle("PATCH /links/{code}", s.as(s.apiUpdate))
	mux.Handle("POST /links/{code}/disable", s.as(s.apiDisable))
	mux.Handle("DELETE /links/{code}", s.as(s.apiDelete))
	return mux
}

// linkJSON is a link on the wire. In a request nil is what was not given.
type linkJSON struct {
	Code      string     `json:"code,omitempty"`
	URL       string     `json:"url"`
	Created   time.Time  `json:"created"`
	Expires   *time.Time `json:"expires,omitempty"`
	MaxClicks int64      `json:"max_clicks,omitempty"`
	Clicks    int64      `json:"clicks,omitempty"`
	Permanent bool       `json:"permanent,omitempty"`
	PassQuery bool       `json:"pass_query,omitempty"`
	Disabled  bool       `json:"disabled,omitempty"`
}

func toJSON(l Link) linkJSON {
	out := linkJSON{l.Code, l.URL, l.Created, nil, l.MaxClicks, l.Clicks, l.Permanent, l.PassQuery, l.Disabled}
	if !l.Expires.IsZero() {
		out.Expires = &l.Expires
	}
	return out
}

// as runs call on behalf of the owner of a request, and writes what it returns.
func (s *Service) as(call func(r *http.Request, owner string) (status int, body any, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		owner, ok := "", false
		if s.opts.Authenticate != nil {
			owner, ok = s.opts.Authenticate(r)
		}
		if !ok {
			problem(w, http.StatusUnauthorized, "who are you?")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		status, body, err := call(r, owner)
		if err != nil {
			s.apiError(w, err)
			return
		}
		if body == nil {
			w.WriteHeader(status)
			return
		}
		text, err := json.Marshal(body)
		if err != nil {
			s.apiError(w, err)
			return
		}
		h.Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(text, '\n'))
	})
}

func (s *Service) apiError(w http.ResponseWriter, err error) {
	for _, known := range []struct {
		err    error
		status int
	}{
		{ErrInvalid, http.StatusBadRequest}, {ErrUnsafe, http.StatusUnprocessableEntity}, {ErrTaken, http.StatusConflict},
		{ErrNotFound, http.StatusNotFound}, {ErrGone, http.StatusGone}, {ErrClosed, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, known.err) {
			problem(w, known.status, err.Error())
			return
		}
	}
	s.opts.Logger.Warn("shorturl: a call of the API failed", "error", err)
	problem(w, http.StatusInternalServerError, "see the service's log") // not the store's words
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
}

// read decodes one JSON object with no unknown fields.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: body: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: body: more than one JSON value", ErrInvalid)
	}
	return nil
}

func (s *Service) apiCreate(r *http.Request, owner string) (int, any, error) {
	var in struct {
		URL       string    `json:"url"`
		Alias     string    `json:"alias"`
		Expires   time.Time `json:"expires"`
		MaxClicks int64     `json:"max_clicks"`
		Permanent bool      `json:"permanent"`
		PassQuery bool      `json:"pass_query"`
		OneToOne  bool      `json:"one_to_one"`
	}
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	l, err := s.Shorten(r.Context(), Request{URL: in.URL, Owner: owner, Alias: in.Alias, Expires: in.Expires,
		MaxClicks: in.MaxClicks, Permanent: in.Permanent, PassQuery: in.PassQuery, OneToOne: in.OneToOne})
	return http.StatusCreated, toJSON(l), err
}

// owned returns the link of the path. That of another owner is not found, so that
// nobody learns which codes exist.
func (s *Service) owned(r *http.Request, owner string) (Link, error) {
	l, err := s.Get(r.Context(), r.PathValue("code"))
	if err == nil && l.Owner != owner {
		err = fmt.Errorf("shorturl: get %q: %w", l.Code, ErrNotFound)
	}
	return l, err
}

func (s *Service) apiGet(r *http.Request, owner string) (int, any, error) {
	l, err := s.owned(r, owner)
	return http.StatusOK, toJSON(l), err
}

func (s *Service) apiList(r *http.Request, owner string) (int, any, error) {
	q, limit := r.URL.Query(), 100
	if text := q.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil {
			return 0, nil, fmt.Errorf("%w: limit %q, want 1 to %d", ErrInvalid, text, maxList)
		}
	}
	links, err := s.List(r.Context(), owner, q.Get("after"), limit)
	out := make([]linkJSON, len(links))
	for i, l := range links {
		out[i] = toJSON(l)
	}
	return http.StatusOK, map[string]any{"links": out}, err
}

func (s *Service) apiUpdate(r *http.Request, owner string) (int, any, error) {
	l, err := s.owned(r, owner)
	if err != nil {
		return 0, nil, err
	}
	// What the body does not name stays.
	in := struct {
		URL       *string          `json:"url"`
		Expires   *json.RawMessage `json:"expires"`
		MaxClicks *int64           `json:"max_clicks"`
		Permanent *bool            `json:"permanent"`
		PassQuery *bool            `json:"pass_query"`
	}{&l.URL, nil, &l.MaxClicks, &l.Permanent, &l.PassQuery}
	var raw json.RawMessage
	in.Expires = &raw
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Expires == nil { // null
		l.Expires = time.Time{}
	} else if len(raw) > 0 {
		if err := json.Unmarshal(raw, &l.Expires); err != nil {
			return 0, nil, fmt.Errorf("%w: expires: %w", ErrInvalid, err)
		}
	}
	l, err = s.Update(r.Context(), l.Code, Request{URL: l.URL, Owner: owner, Expires: l.Expires, MaxClicks: l.MaxClicks,
		Permanent: l.Permanent, PassQuery: l.PassQuery})
	return http.StatusOK, toJSON(l), err
}

func (s *Service) apiDisable(r *http.Request, owner string) (int, any, error) {
	l, err := s.owned(r, owner)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Disable(r.Context(), l.Code)
}

func (s *Service) apiDelete(r *http.Request, owner string) (int, any, error) {
	l, err := s.owned(r, owner)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Delete(r.Context(), l.Code)
}

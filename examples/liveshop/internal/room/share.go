package room

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/shorturl"
)

// A link is stored with this host, and followed without one: where the page is depends on
// who asks, and a host taken from a request would let anybody make links to anywhere.
const linkHost = "https://liveshop.example"

// like answers POST /rooms/{id}/like {n}: a page gathers the taps of a second. They are
// counted in memory and stored in batches.
func (r *Rooms) like(q *api.Request) (any, error) {
	id, err := q.ID("id")
	if err != nil {
		return nil, err
	}
	var in struct {
		N int64 `json:"n"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	if in.N < 1 || in.N > 20 {
		return nil, api.Bad("n: want 1 to 20 taps")
	}
	if _, err := r.GetOpen(q.Context(), id); err != nil {
		return nil, err
	}
	return nil, r.counts.Add(id, "likes", in.N)
}

// share answers POST /rooms/{id}/share: the room's link, the same each time.
func (r *Rooms) share(q *api.Request) (any, error) {
	id, err := q.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := q.Context()
	if _, err := r.Get(ctx, id); err != nil {
		return nil, err
	}
	l, err := r.links.Shorten(ctx, shorturl.Request{URL: fmt.Sprintf("%s/?room=%d", linkHost, id), Owner: "rooms", OneToOne: true})
	if err != nil {
		return nil, err
	}
	return map[string]string{"code": l.Code, "url": "/s/" + l.Code}, nil
}

// follow answers GET /s/{code}.
func (r *Rooms) follow() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		l, err := r.links.Resolve(q.Context(), q.PathValue("code"))
		switch {
		case errors.Is(err, shorturl.ErrNotFound):
			http.NotFound(w, q)
			return
		case errors.Is(err, shorturl.ErrGone):
			http.Error(w, "this link is no more", http.StatusGone)
			return
		}
		u, parseErr := url.Parse(l.URL)
		if err = errors.Join(err, parseErr); err != nil {
			r.env.Log.Warn("short link", "err", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, q, u.RequestURI(), http.StatusFound)
	})
}

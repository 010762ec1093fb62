package shorturl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errDown = errors.New("down")

// A spy is a Store that counts looks, can be slow and be down.
type spy struct {
	Store
	gets, counts atomic.Int64
	down         atomic.Bool
	delay        time.Duration
}

func (s *spy) Get(ctx context.Context, code string) (Link, error) {
	s.gets.Add(1)
	if s.down.Load() {
		return Link{}, errDown
	}
	l, err := s.Store.Get(ctx, code)
	if s.delay > 0 {
		<-time.After(s.delay)
	}
	return l, err
}

func (s *spy) Count(ctx context.Context, code string, now time.Time) (Link, error) {
	s.counts.Add(1)
	return s.Store.Count(ctx, code, now)
}

func shorten(t *testing.T, s *Service, r Request) Link {
	t.Helper()
	if r.URL == "" {
		r.URL = "https://example.com/x"
	}
	l, err := s.Shorten(t.Context(), r)
	require.NoError(t, err)
	return l
}

func get(s *Service, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestRedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, Options{})
		l := shorten(t, s, Request{})
		w := get(s, "GET", "/"+l.Code)
		require.Equal(t, 302, w.Code)
		require.Equal(t, "https://example.com/x", w.Header().Get("Location"))
		require.Equal(t, "private, max-age=0", w.Header().Get("Cache-Control"))
		require.Equal(t, 302, get(s, "HEAD", "/"+l.Code).Code)
		require.Equal(t, 405, get(s, "POST", "/"+l.Code).Code)

		l = shorten(t, s, Request{Permanent: true})
		w = get(s, "GET", "/"+l.Code)
		require.Equal(t, 301, w.Code)
		l = shorten(t, s, Request{Permanent: true, Expires: time.Now().Add(time.Hour)})
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code, "it has an end")
		time.Sleep(time.Hour)
		require.Equal(t, 410, get(s, "GET", "/"+l.Code).Code)
		_, err := s.Resolve(t.Context(), l.Code)
		require.ErrorIs(t, err, ErrGone)

		for _, unknown := range []string{"/0000000", "/", "/a/b", "/a.b", "/" + strings.Repeat("a", 100), "/%00"} {
			require.Equal(t, 404, get(s, "GET", unknown).Code, unknown)
		}

		l = shorten(t, s, Request{URL: "https://example.com/x?a=1#top", PassQuery: true})
		require.Equal(t, "https://example.com/x?a=1&b=2&c=%22#top", get(s, "GET", "/"+l.Code+"?b=2&c=%22").Header().Get("Location"))
		require.Equal(t, "https://example.com/x?a=1#top", get(s, "GET", "/"+l.Code).Header().Get("Location"))
		l = shorten(t, s, Request{PassQuery: true})
		require.Equal(t, "https://example.com/x?b=2", get(s, "GET", "/"+l.Code+"?b=2").Header().Get("Location"))
	})
}

func TestUpdateDisableDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := MemoryStore()
		s, other := service(t, Options{Store: store}), service(t, Options{Store: store})
		l := shorten(t, s, Request{Owner: "ann"})
		for _, p := range []*Service{s, other} {
			require.Equal(t, 302, get(p, "GET", "/"+l.Code).Code)
		}
		_, err := s.Update(t.Context(), l.Code, Request{URL: "https://example.org", Owner: "bob"})
		require.ErrorIs(t, err, ErrNotFound)
		_, err = s.Update(t.Context(), l.Code, Request{URL: "javascript:x"})
		require.ErrorIs(t, err, ErrUnsafe)
		_, err = s.Update(t.Context(), l.Code, Request{URL: "https://example.org"})
		require.NoError(t, err)
		require.Equal(t, "https://example.org/", get(s, "GET", "/"+l.Code).Header().Get("Location"), "at once here")
		require.Equal(t, "https://example.com/x", get(other, "GET", "/"+l.Code).Header().Get("Location"))
		time.Sleep(10 * time.Second)
		require.Equal(t, "https://example.org/", get(other, "GET", "/"+l.Code).Header().Get("Location"), "after LocalTTL there")

		require.NoError(t, s.Disable(t.Context(), l.Code))
		require.Equal(t, 410, get(s, "GET", "/"+l.Code).Code)
		time.Sleep(10 * time.Second)
		require.Equal(t, 410, get(other, "GET", "/"+l.Code).Code)
		got, err := s.Get(t.Context(), l.Code)
		require.NoError(t, err)
		require.True(t, got.Disabled)
		require.NoError(t, s.Delete(t.Context(), l.Code))
		require.NoError(t, s.Delete(t.Context(), l.Code))
		require.Equal(t, 404, get(s, "GET", "/"+l.Code).Code)
		require.ErrorIs(t, s.Disable(t.Context(), l.Code), ErrNotFound)
		_, err = s.List(t.Context(), "ann", "", 0)
		require.ErrorIs(t, err, ErrInvalid)
		require.NoError(t, s.Close(t.Context()))
		_, err = s.Shorten(t.Context(), Request{URL: "https://example.com"})
		require.ErrorIs(t, err, ErrClosed)
	})
}

// A thousand callers of a code that is not at hand share one look, and one who leaves
// takes nobody with him.
func TestOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: MemoryStore(), delay: time.Second}
		s := service(t, Options{Store: store})
		l := shorten(t, s, Request{})
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 1000 {
			wg.Go(func() {
				mine := t.Context()
				if i%2 == 0 {
					mine = ctx
				}
				got, err := s.Resolve(mine, l.Code)
				if i%2 == 0 {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				} else if err != nil || got.URL != l.URL {
					t.Error(got, err)
				}
			})
		}
		time.Sleep(time.Millisecond)
		cancel()
		wg.Wait()
		require.EqualValues(t, 1, store.gets.Load())
	})
}

// Unknown codes reach the store once each in NotFoundTTL, not at all if a Guard knows,
// and not when the limiter says no; known ones go on.
func TestUnknownCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: MemoryStore()}
		allowed := true
		s := service(t, Options{Store: store, Limit: func(*http.Request) bool { return allowed }})
		l := shorten(t, s, Request{})
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code)
		store.gets.Store(0)
		for range 100 {
			require.Equal(t, 404, get(s, "GET", "/unknown").Code)
		}
		require.EqualValues(t, 1, store.gets.Load())
		time.Sleep(5 * time.Second)
		require.Equal(t, 404, get(s, "GET", "/unknown").Code)
		require.EqualValues(t, 2, store.gets.Load())
		allowed = false
		require.Equal(t, 429, get(s, "GET", "/unknow2").Code)
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code, "what is at hand is not limited")
		require.EqualValues(t, 2, store.gets.Load())

		store = &spy{Store: MemoryStore()}
		s = service(t, Options{Store: store, Guard: &setGuard{}})
		l = shorten(t, s, Request{})
		for i := range 1000 {
			require.Equal(t, 404, get(s, "GET", fmt.Sprintf("/x%06d", i)).Code)
		}
		require.Zero(t, store.gets.Load())
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code)
	})
}

// A one-to-one link that the Guard has not seen is inserted without a look; one that it
// may have seen is looked up, and inserted if the Guard was wrong. Who is late gets the
// link that is there.
func TestOneToOneAsksTheGuard(t *testing.T) {
	store, guard := &looks{store: MemoryStore()}, &setGuard{}
	s := service(t, Options{Store: store, Guard: guard})
	shortened := func(url string) (Link, int) {
		before := store.n
		l := shorten(t, s, Request{URL: url, Owner: "o", OneToOne: true})
		return l, store.n - before
	}
	first, n := shortened("https://example.com/1")
	require.Equal(t, 1, n, "no: only the insert")
	again, n := shortened("https://EXAMPLE.com:443/1")
	require.Equal(t, 1, n, "maybe: only the look, by the digest of the normalised URL")
	require.Equal(t, first, again)
	guard.Add(t.Context(), "digest:"+digestOf("https://example.com/2", "o"))
	_, n = shortened("https://example.com/2")
	require.Equal(t, 2, n, "a false maybe")
	other := shorten(t, s, Request{URL: "https://example.com/1", Owner: "other", OneToOne: true})
	require.NotEqual(t, first.Code, other.Code, "each owner has one")
	for range 2 { // and without OneToOne as many as wanted
		require.NotEqual(t, first.Code, shorten(t, s, Request{URL: "https://example.com/1", Owner: "o"}).Code)
	}

	// A Guard of another process that has not heard of it yet: the unique digest decides.
	late := service(t, Options{Store: store, Guard: &setGuard{}, IDs: s.opts.IDs})
	got := shorten(t, late, Request{URL: "https://example.com/1", Owner: "o", OneToOne: true})
	require.Equal(t, first, got)
}

// A setGuard is exact.
type setGuard struct{ keys sync.Map }

func (g *setGuard) Has(_ context.Context, key string) bool {
	_, ok := g.keys.Load(key)
	return ok
}

func (g *setGuard) Add(_ context.Context, key string) { g.keys.Store(key, true) }

// A store that is down is 503, what is at hand goes on, and nothing of it is
// remembered.
func TestStoreDown(t *testing.T) {
	store := &spy{Store: MemoryStore()}
	s := service(t, Options{Store: store})
	known, cold := shorten(t, s, Request{}), shorten(t, s, Request{})
	require.Equal(t, 302, get(s, "GET", "/"+known.Code).Code)
	store.down.Store(true)
	w := get(s, "GET", "/"+cold.Code)
	require.Equal(t, 503, w.Code)
	require.NotContains(t, w.Body.String(), "down")
	require.Equal(t, 302, get(s, "GET", "/"+known.Code).Code)
	_, err := s.Resolve(t.Context(), cold.Code)
	require.ErrorIs(t, err, errDown)
	store.down.Store(false)
	require.Equal(t, 302, get(s, "GET", "/"+cold.Code).Code)
}

// A store that hangs is given up, whoever waits, and asked again by the next.
func TestStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{Store: MemoryStore()}
		s := service(t, Options{Store: store})
		l := shorten(t, s, Request{})
		began := time.Now()
		require.Equal(t, 503, get(s, "GET", "/"+l.Code).Code)
		require.Equal(t, loadPatience, time.Since(began))
		_, err := s.Resolve(t.Context(), l.Code)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		store.well.Store(true)
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code)
	})
}

// Nor does a click that hangs outlast that, or the end of its ctx.
func TestCountHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{Store: MemoryStore()}
		store.well.Store(true)
		s := service(t, Options{Store: store})
		l := shorten(t, s, Request{MaxClicks: 1})
		_, err := s.load(t.Context(), l.Code)
		require.NoError(t, err)
		store.well.Store(false)
		began := time.Now()
		require.Equal(t, 503, get(s, "GET", "/"+l.Code).Code)
		require.Equal(t, loadPatience, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Resolve(ctx, l.Code)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, loadPatience+time.Second, time.Since(began))
		store.well.Store(true)
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code)
	})
}

// A look that hangs does not keep Close beyond its ctx.
func TestCloseDuringLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, Options{Store: &hanging{Store: MemoryStore()}})
		looked := make(chan error, 1)
		go func() {
			_, err := s.Resolve(t.Context(), "unknown")
			looked <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, s.Close(ctx), context.DeadlineExceeded)
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		require.ErrorIs(t, <-looked, context.Canceled)
	})
}

// A hanging Store answers once it is well.
type hanging struct {
	Store
	well atomic.Bool
}

func (h *hanging) Get(ctx context.Context, code string) (Link, error) {
	if !h.well.Load() {
		<-ctx.Done()
		return Link{}, ctx.Err()
	}
	return h.Store.Get(ctx, code)
}

func (h *hanging) Count(ctx context.Context, code string, now time.Time) (Link, error) {
	if !h.well.Load() {
		<-ctx.Done()
		return Link{}, ctx.Err()
	}
	return h.Store.Count(ctx, code, now)
}

// A link for three clicks gives three, whoever asks at once, and HEAD and bots
// neither count nor learn where it leads.
func TestMaxClicks(t *testing.T) {
	store := &spy{Store: MemoryStore()}
	s := service(t, Options{Store: store})
	l := shorten(t, s, Request{MaxClicks: 3})
	for range 5 {
		for _, w := range []*httptest.ResponseRecorder{
			get(s, "HEAD", "/"+l.Code), get(s, "GET", "/"+l.Code, "User-Agent", "Googlebot/2.1"), get(s, "GET", "/"+l.Code, "User-Agent", ""),
		} {
			require.Equal(t, 204, w.Code)
			require.Empty(t, w.Header().Get("Location"))
		}
	}
	var through atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if w := get(s, "GET", "/"+l.Code); w.Code == 302 {
				through.Add(1)
			} else if w.Code != 410 {
				t.Error(w.Code)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 3, through.Load())
	require.EqualValues(t, 50, store.counts.Load())
	got, err := s.Get(t.Context(), l.Code)
	require.NoError(t, err)
	require.EqualValues(t, 3, got.Clicks)
}

type discardWriter struct{ h http.Header }

func (d *discardWriter) Header() http.Header         { return d.h }
func (d *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (d *discardWriter) WriteHeader(int)             {}

func TestOptions(t *testing.T) {
	good := Options{Store: MemoryStore(), IDs: new(counter), Key: []byte("k")}
	_, err := New(good)
	require.NoError(t, err)
	for field, change := range map[string]func(o *Options){
		"Store": func(o *Options) { o.Store = nil }, "IDs": func(o *Options) { o.IDs = nil }, "Key": func(o *Options) { o.Key = nil },
		"Codes": func(o *Options) { o.Codes = 9 }, "Length": func(o *Options) { o.Length = 11 }, "Local": func(o *Options) { o.Local = -2 },
		"LocalTTL": func(o *Options) { o.LocalTTL = -1 }, "NotFoundTTL": func(o *Options) { o.NotFoundTTL = -2 },
		"Schemes": func(o *Options) { o.Schemes = []string{"javascript"} },
	} {
		o := good
		change(&o)
		_, err := New(o)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, field)
	}
}

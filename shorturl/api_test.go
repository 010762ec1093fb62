package shorturl

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// call makes a call of the API as an owner and decodes what it answers.
func call(t *testing.T, s *Service, owner, method, target, body string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Owner", owner)
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	out := map[string]any{}
	if w.Body.Len() > 0 {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out), "%s", w.Body)
	}
	if w.Code >= 400 {
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		require.EqualValues(t, w.Code, out["status"])
		require.Equal(t, http.StatusText(w.Code), out["title"])
	}
	return w.Code, out
}

func apiService(t *testing.T) *Service {
	return service(t, Options{Authenticate: func(r *http.Request) (string, bool) {
		owner := r.Header.Get("Owner")
		return owner, owner != ""
	}})
}

func TestAPI(t *testing.T) {
	s := apiService(t)
	status, l := call(t, s, "ann", "POST", "/links", `{"url": "https://example.com", "alias": "tea-time", "max_clicks": 5}`)
	require.Equal(t, 201, status)
	require.Equal(t, "tea-time", l["code"])
	require.Equal(t, "https://example.com/", l["url"])
	status, l = call(t, s, "ann", "GET", "/links/tea-time", "")
	require.Equal(t, 200, status)
	require.EqualValues(t, 5, l["max_clicks"])

	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	status, l = call(t, s, "ann", "PATCH", "/links/tea-time", `{"url": "https://example.org/", "expires": "`+expires+`"}`)
	require.Equal(t, 200, status)
	require.Equal(t, expires, l["expires"])
	require.EqualValues(t, 5, l["max_clicks"], "what is not named stays")
	status, l = call(t, s, "ann", "PATCH", "/links/tea-time", `{"expires": null, "max_clicks": 0}`)
	require.Equal(t, 200, status)
	require.Nil(t, l["expires"])
	require.Nil(t, l["max_clicks"])
	require.Equal(t, "https://example.org/", l["url"])

	_, first := call(t, s, "ann", "POST", "/links", `{"url": "https://example.com/1", "one_to_one": true}`)
	_, second := call(t, s, "ann", "POST", "/links", `{"url": "https://example.com/1", "one_to_one": true}`)
	require.Equal(t, first["code"], second["code"])
	_, page := call(t, s, "ann", "GET", "/links?limit=1", "")
	require.Len(t, page["links"], 1)
	one := page["links"].([]any)[0].(map[string]any)["code"].(string)
	_, page = call(t, s, "ann", "GET", "/links?after="+one, "")
	require.Len(t, page["links"], 1)

	status, _ = call(t, s, "ann", "POST", "/links/tea-time/disable", "")
	require.Equal(t, 204, status)
	require.Equal(t, 410, get(s, "GET", "/tea-time").Code)
	status, _ = call(t, s, "ann", "DELETE", "/links/tea-time", "")
	require.Equal(t, 204, status)
	status, _ = call(t, s, "ann", "GET", "/links/tea-time", "")
	require.Equal(t, 404, status)
}

// An end that JSON cannot write is refused, and a link that has one all the same, in the
// store, is an error that can be seen.
func TestAPIYear10000(t *testing.T) {
	s := apiService(t)
	for _, expires := range []string{"9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59-00:01"} {
		status, _ := call(t, s, "ann", "POST", "/links", `{"url": "https://example.com", "expires": "`+expires+`"}`)
		require.Equal(t, 400, status)
	}
	status, l := call(t, s, "ann", "POST", "/links", `{"url": "https://example.com", "alias": "last", "expires": "9999-12-31T23:59:59.999999999Z"}`)
	require.Equal(t, 201, status)
	require.Equal(t, "9999-12-31T23:59:59.999Z", l["expires"])
	status, _ = call(t, s, "ann", "PATCH", "/links/last", `{"expires": "9999-12-31T23:59:59-01:00"}`)
	require.Equal(t, 400, status)
	status, page := call(t, s, "ann", "GET", "/links", "")
	require.Equal(t, 200, status)
	require.Len(t, page["links"], 1)

	late := Link{Code: "late", URL: "https://example.com/", Owner: "ann", Expires: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}
	_, err := s.opts.Store.Insert(t.Context(), late, "")
	require.NoError(t, err)
	for _, target := range []string{"/links", "/links/late"} {
		status, _ = call(t, s, "ann", "GET", target, "")
		require.Equal(t, 500, status)
	}
}

func TestAPIRefuses(t *testing.T) {
	s := apiService(t)
	call(t, s, "ann", "POST", "/links", `{"url": "https://example.com", "alias": "ann-1"}`)
	for _, c := range []struct {
		owner, method, target, body string
		status                      int
	}{
		{"", "GET", "/links", "", 401},
		{"ann", "POST", "/links", `{`, 400},
		{"ann", "POST", "/links", `{"url": "https://example.com", "colour": 1}`, 400},
		{"ann", "POST", "/links", `{"url": "https://example.com"} {}`, 400},
		{"ann", "POST", "/links", `{"url": "https://example.com", "max_clicks": -1}`, 400},
		{"ann", "POST", "/links", `"` + strings.Repeat("x", maxBody) + `"`, 400},
		{"ann", "POST", "/links", `{"url": "javascript:alert(1)"}`, 422},
		{"ann", "POST", "/links", `{"url": "https://example.com", "alias": "ann-1"}`, 409},
		{"ann", "GET", "/links?limit=0", "", 400},
		{"ann", "GET", "/links?limit=x", "", 400},
		{"ann", "GET", "/links?after=%ff", "", 400},
		{"ann", "GET", "/links?after=a%00", "", 400},
		{"ann\xff", "GET", "/links", "", 400},
		{strings.Repeat("a", maxOwner+1), "GET", "/links", "", 400},
		{"ann", "GET", "/links/unknown", "", 404},
		{"ann", "PATCH", "/links/ann-1", `{"expires": "soon"}`, 400},
		{"ann", "PATCH", "/links/ann-1", `{"url": "ftp://example.com"}`, 422},
		// Another owner's links do not exist.
		{"bob", "GET", "/links/ann-1", "", 404},
		{"bob", "PATCH", "/links/ann-1", `{"url": "https://evil.example"}`, 404},
		{"bob", "POST", "/links/ann-1/disable", "", 404},
		{"bob", "DELETE", "/links/ann-1", "", 404},
	} {
		status, _ := call(t, s, c.owner, c.method, c.target, c.body)
		require.Equal(t, c.status, status, "%+v", c)
	}
	require.Equal(t, 302, get(s, "GET", "/ann-1").Code)
	_, page := call(t, s, "bob", "GET", "/links", "")
	require.Empty(t, page["links"])

	s = service(t, Options{})
	status, _ := call(t, s, "ann", "GET", "/links", "")
	require.Equal(t, 401, status, "without Authenticate nobody is let in")
	store := &spy{Store: MemoryStore()}
	store.down.Store(true)
	s = service(t, Options{Store: store, Authenticate: func(*http.Request) (string, bool) { return "ann", true }})
	status, out := call(t, s, "ann", "GET", "/links/abc", "")
	require.Equal(t, 500, status)
	require.NotContains(t, out["detail"], "down", "not the store's words")
}

package page

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func get(t *testing.T, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestHandlerServesThePage(t *testing.T) {
	res := get(t, "/")
	require.Equal(t, http.StatusOK, res.Code)
	assert.Equal(t, "text/html; charset=utf-8", res.Header().Get("Content-Type"))
	assert.Equal(t, "nosniff", res.Header().Get("X-Content-Type-Options"))

	policy := res.Header().Get("Content-Security-Policy")
	assert.Contains(t, policy, "default-src 'none'")
	assert.Contains(t, policy, "script-src 'self';", "nothing inline, nothing from elsewhere")
	assert.NotContains(t, policy, "unsafe")
}

func TestHandlerServesEveryFileAsWhatItIs(t *testing.T) {
	for url, f := range load() {
		want := types[path.Ext(url)]
		if url == "/" {
			want = types[".html"]
		}
		require.NotEmpty(t, want, "%s: no content type for this kind of file", url)
		res := get(t, url)
		assert.Equal(t, http.StatusOK, res.Code, url)
		assert.Equal(t, want, res.Header().Get("Content-Type"), url)
		assert.Equal(t, len(f.body), res.Body.Len(), url)
	}
}

func TestHandlerAnswers304ToWhoHasTheFile(t *testing.T) {
	etag := get(t, "/js/main.js").Header().Get("ETag")
	require.NotEmpty(t, etag)
	assert.Equal(t, http.StatusNotModified, get(t, "/js/main.js", "If-None-Match", etag).Code)
	assert.Equal(t, http.StatusOK, get(t, "/js/api.js", "If-None-Match", etag).Code, "another file has another tag")
}

func TestHandlerKnowsNothingElse(t *testing.T) {
	for _, url := range []string{"/index.html", "/js", "/js/", "/web/index.html", "/js/../page.go", "/nothing.js", "/api/v1/rooms"} {
		assert.Equal(t, http.StatusNotFound, get(t, url).Code, url)
	}
}

func TestIndexNamesItsFiles(t *testing.T) {
	files := load()
	index := string(files["/"].body)
	for url := range files {
		if strings.HasSuffix(url, ".css") {
			assert.Contains(t, index, `href="`+url+`"`, "a style sheet that nobody loads")
		}
	}
	for _, m := range attribute.FindAllStringSubmatch(index, -1) {
		if url := m[1]; strings.HasPrefix(url, "/") {
			assert.Contains(t, files, url, "index.html names a file that is not there")
		}
	}
}

package main

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A link survives a restart, and ids go on behind those of before.
func TestShortener(t *testing.T) {
	file := filepath.Join(t.TempDir(), "links.db")
	codes := map[string]bool{}
	for range 3 {
		db, err := sql.Open("sqlite", "file:"+file+pragmas)
		require.NoError(t, err)
		h, err := shortener(t.Context(), db, "key", "token")
		require.NoError(t, err)
		do := func(method, path, body, token string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, path, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		require.Equal(t, http.StatusUnauthorized, do("POST", "/api/links", `{"url": "https://go.dev"}`, "guess").Code)
		w := do("POST", "/api/links", `{"url": "https://go.dev"}`, "token")
		require.Equal(t, http.StatusCreated, w.Code, w.Body)
		var link struct{ Code string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &link))
		require.False(t, codes[link.Code])
		codes[link.Code] = true
		for code := range codes {
			require.Equal(t, "https://go.dev/", do("GET", "/"+code, "", "").Header().Get("Location"))
		}
		require.NoError(t, db.Close())
	}
}

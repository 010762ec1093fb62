// Package page is the one page of the shop: static files in the binary, without a
// build step and without anything from elsewhere.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed web
var embedded embed.FS

// policy lets the page load and call its own origin and nothing else. There is no
// 'unsafe-inline' in it: a script that somebody smuggles into a name or a comment
// does not run, should it ever get into the page as HTML.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// types are the kinds of files that there are. The mime package asks the operating
// system, and some answer that a script is plain text.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// A file is what is sent for one path.
type file struct {
	body        []byte
	contentType string
	etag        string
}

// Handler serves the page under / and its files beside it; other paths are 404.
// A browser asks for each file each time, and mostly gets 304: a new release is there
// at once, and never half of it from a cache.
func Handler() http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.contentType)
		h.Set("ETag", f.etag)
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
	})
}

// load returns the files by the path of their URL.
func load() map[string]file {
	files := map[string]file{}
	err := fs.WalkDir(embedded, "web", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		url := strings.TrimPrefix(name, "web")
		if url == "/index.html" {
			url = "/"
		}
		files[url] = file{body: body, contentType: types[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	if err != nil {
		panic(err) // of files in the binary
	}
	return files
}

package shorturl

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func service(t testing.TB, opts Options) *Service {
	t.Helper()
	if opts.Store == nil {
		opts.Store = MemoryStore()
	}
	if opts.Codes == Sequential && opts.IDs == nil {
		opts.IDs = new(counter)
	}
	if opts.Key == nil {
		opts.Key = []byte("test")
	}
	s, err := New(opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func TestNormalise(t *testing.T) {
	s := service(t, Options{Domains: []string{"sho.rt"}})
	for in, want := range map[string]string{
		"https://example.com":                   "https://example.com/",
		"HTTP://Example.COM:80/A/../b?q=1#f":    "http://example.com/A/../b?q=1#f",
		"https://example.com:443/":              "https://example.com/",
		"https://example.com:8443/":             "https://example.com:8443/",
		"https://example.com./x":                "https://example.com/x",
		"https://example.com:/x":                "https://example.com/x",
		"https://example.com/名?q=名&b=\"<":       "https://example.com/%E5%90%8D?q=%E5%90%8D&b=%22%3C",
		"https://xn--fiqs8s.example/":           "https://xn--fiqs8s.example/",
		"https://8.8.8.8/":                      "https://8.8.8.8/",
		"https://0x08080808/":                   "https://8.8.8.8/",
		"https://[2606:4700:4700:0::1111]:444/": "https://[2606:4700:4700::1111]:444/",
		"https://e.com/?u=javascript:alert(1)":  "https://e.com/?u=javascript:alert(1)",
	} {
		got, err := s.normalise(t.Context(), in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
		again, err := s.normalise(t.Context(), got)
		require.NoError(t, err, got)
		require.Equal(t, got, again)
	}
}

var unsafeURLs = []string{
	"", "x", "/x", "//example.com", "example.com/x", "http:", "http://", "http:///x", "http:example.com", "https:/example.com",
	"javascript:alert(1)", "JavaScript:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)",
	"\x01javascript:alert(1)", "javascript://example.com/%0aalert(1)", "data:text/html,x", "DATA:text/html;base64,eA==",
	"vbscript:x", "blob:https://example.com/x", "file:///etc/passwd", "ftp://example.com/", "view-source:https://example.com",
	"https://user@example.com/", "https://user:pw@example.com/", "https://example.com@evil.example/", "https://@example.com/",
	"https:\\\\example.com", "https://example.com\\@evil.example/", "https://example.com/\r\nSet-Cookie:x", "https://example.com/\x00",
	"https://exa mple.com/", "https://example.com/\u202Egnp.exe", "https://\uff45xample.com/", "https://sho\u3002rt/", "https://ex%61mple.com/",
	"https://example.com:99999/", "https://example.com:0/", "https://example.com:x/", "https://.example.com/", "https://a..b/", "https://a../",
	"https://sho.rt/abc", "https://SHO.RT./abc", "https://sho.rt:443/abc",
	"http://localhost/", "http://LOCALHOST:80/", "http://a.localhost/", "http://router/", "http://db.internal/", "http://printer.local/",
	"http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0x7f.1/", "http://0/",
	"http://10.0.0.1/", "http://192.168.1.1/", "http://172.16.0.1/", "http://169.254.169.254/latest", "http://100.64.0.1/", "http://1.2.3.4.5/",
	"http://256.1.1.1/", "http://1.2.3.08/", "http://224.0.0.1/", "http://255.255.255.255/", "http://0.0.0.0/",
	"http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fd00::1]/", "http://[::ffff:127.0.0.1]/",
	"http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[::1", "http://[example.com]/",
	"https://" + strings.Repeat("a", 2100) + ".com/", "https://example.com/?" + strings.Repeat("\"", 1000),
}

func TestUnsafe(t *testing.T) {
	s := service(t, Options{Domains: []string{"sho.rt"}})
	for _, in := range unsafeURLs {
		got, err := s.normalise(t.Context(), in)
		require.ErrorIs(t, err, ErrUnsafe, "%q became %q", in, got)
	}
	s = service(t, Options{AllowPrivate: true})
	for _, in := range []string{"http://localhost:8080/", "http://127.1/", "http://[::1]/"} {
		_, err := s.normalise(t.Context(), in)
		require.NoError(t, err)
	}
}

func TestBan(t *testing.T) {
	errBanned := errors.New("malware")
	s := service(t, Options{Ban: func(_ context.Context, u *url.URL) error {
		if u.Hostname() == "evil.example" {
			return errBanned
		}
		return nil
	}})
	_, err := s.Shorten(t.Context(), Request{URL: "https://EVIL.example./x"})
	require.ErrorIs(t, err, errBanned)
	_, err = s.Shorten(t.Context(), Request{URL: "https://good.example"})
	require.NoError(t, err)
}

// What is accepted is http(s) to a public host by two readings, is stable, and can
// stand in a header.
func FuzzNormalise(f *testing.F) {
	for _, u := range unsafeURLs {
		f.Add(u)
	}
	f.Add("https://example.com/a?b#c")
	s := service(f, Options{Domains: []string{"sho.rt"}})
	f.Fuzz(func(t *testing.T, in string) {
		out, err := s.normalise(t.Context(), in)
		if err != nil {
			return
		}
		if verdict := check(out); verdict != "" {
			t.Fatalf("%q became %q: %s", in, out, verdict)
		}
		again, err := s.normalise(t.Context(), out)
		if err != nil || again != out {
			t.Fatalf("%q became %q, and that %q, %v", in, out, again, err)
		}
		if verdict := check(withQuery(out, in)); verdict != "" {
			t.Fatalf("%q with the query %q: %s", out, in, verdict)
		}
	})
}

// check reads a URL in a way of its own: with string functions.
func check(u string) string {
	if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
		return "scheme"
	}
	for i := range len(u) {
		if u[i] <= ' ' || u[i] >= 0x7f || u[i] == '\\' {
			return "a byte that is no URL's"
		}
	}
	_, rest, _ := strings.Cut(u, "://")
	end := strings.IndexAny(rest, "/?#")
	if end <= 0 {
		return "no host, or no path"
	}
	host := rest[:end]
	if strings.Contains(host, "@") || strings.Contains(host, "%") || host != strings.ToLower(host) {
		return "host"
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	if host == "sho.rt" || host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".") {
		return "own or local host"
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && (a.IsLoopback() || a.IsPrivate() || a.IsUnspecified() || a.IsLinkLocalUnicast()) {
		return "private address"
	}
	return ""
}

func TestCheckCatches(t *testing.T) {
	caught := slices.DeleteFunc(slices.Clone(unsafeURLs), func(u string) bool { return check(u) == "" })
	require.Greater(t, len(caught), len(unsafeURLs)*2/3)
}

func FuzzWellFormed(f *testing.F) {
	f.Add("abc")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, code string) {
		if wellFormed(code) && (strings.ContainsAny(code, "/.%?# \x00") || url.PathEscape(code) != code) {
			t.Fatalf("%q", code)
		}
	})
}

// A domain that no URL can have would protect from no loop.
func TestDomainsAreHosts(t *testing.T) {
	base := Options{Store: MemoryStore(), Codes: Random, Key: []byte("test")}
	for _, d := range []string{"", "https://sho.rt", "sho.rt:8080", "sho.rt/", "::1", "[::1", "[0::1]", "слон.example"} {
		o := base
		o.Domains = []string{"sho.rt", d}
		_, err := New(o)
		require.ErrorIs(t, err, ErrInvalid, d)
		require.ErrorContains(t, err, "Options.Domains[1]")
	}
	for d, u := range map[string]string{
		"Sho.rt.": "https://sho.rt/x", "10.0.0.1": "http://10.0.0.1:80/", "[2606:4700::1]": "http://[2606:4700:0::1]/", "a_b.example": "https://a_b.example/",
	} {
		s := service(t, Options{Codes: Random, Domains: []string{d}, AllowPrivate: true})
		_, err := s.Shorten(t.Context(), Request{URL: u})
		require.ErrorIs(t, err, ErrUnsafe, d)
		require.ErrorContains(t, err, "this service itself", d)
	}
	base.Schemes = []string{""}
	_, err := New(base)
	require.ErrorIs(t, err, ErrInvalid)
}

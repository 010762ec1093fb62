package httplimit

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/ratelimit"
)

func prefixes(cidrs ...string) (out []netip.Prefix) {
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return out
}

// What is missing is told when the server is put together, not at the first request.
func TestMisuse(t *testing.T) {
	l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(1)})
	require.NoError(t, err)
	require.Panics(t, func() { Middleware(l, nil, Options{}) })
	require.Panics(t, func() { Middleware(nil, ByIP(), Options{}) })
	require.NotPanics(t, func() { Middleware(l, ByIP(), Options{}) })
}

func TestByIP(t *testing.T) {
	proxies := prefixes("10.0.0.0/8", "fd00::/8", "::ffff:192.168.0.0/112")
	for name, c := range map[string]struct {
		remote    string
		forwarded []string
		trusted   []netip.Prefix
		want      string
	}{
		"direct":                     {"203.0.113.7:4711", nil, nil, "203.0.113.7"},
		"header without proxies":     {"203.0.113.7:4711", []string{"1.2.3.4"}, nil, "203.0.113.7"},
		"header from a stranger":     {"203.0.113.7:4711", []string{"1.2.3.4"}, proxies, "203.0.113.7"},
		"one proxy":                  {"10.0.0.1:80", []string{"203.0.113.7"}, proxies, "203.0.113.7"},
		"spoofed before one proxy":   {"10.0.0.1:80", []string{"1.2.3.4, 203.0.113.7"}, proxies, "203.0.113.7"},
		"two proxies":                {"10.0.0.1:80", []string{"1.2.3.4, 203.0.113.7, 10.9.9.9"}, proxies, "203.0.113.7"},
		"two header lines":           {"10.0.0.1:80", []string{"1.2.3.4, 203.0.113.7", "10.9.9.9"}, proxies, "203.0.113.7"},
		"spoofed as a proxy":         {"10.0.0.1:80", []string{"1.2.3.4, 10.7.7.7, 203.0.113.7"}, proxies, "203.0.113.7"},
		"all trusted":                {"10.0.0.1:80", []string{"10.0.0.3, 10.0.0.2"}, proxies, "10.0.0.3"},
		"no header":                  {"10.0.0.1:80", nil, proxies, "10.0.0.1"},
		"empty header":               {"10.0.0.1:80", []string{""}, proxies, "10.0.0.1"},
		"garbage":                    {"10.0.0.1:80", []string{"203.0.113.7, unknown"}, proxies, "10.0.0.1"},
		"garbage further left":       {"10.0.0.1:80", []string{"'; DROP, 203.0.113.7"}, proxies, "203.0.113.7"},
		"port":                       {"10.0.0.1:80", []string{"203.0.113.7:1234"}, proxies, "203.0.113.7"},
		"spaces":                     {"10.0.0.1:80", []string{" 203.0.113.7 ,\t10.0.0.2 "}, proxies, "203.0.113.7"},
		"v6":                         {"[2001:db8:1:2:3:4:5:6]:80", nil, nil, "2001:db8:1:2::/64"},
		"v6, same network":           {"[2001:db8:1:2:ffff::1]:80", nil, nil, "2001:db8:1:2::/64"},
		"v6 zone":                    {"[fe80::1%eth0]:80", nil, nil, "fe80::/64"},
		"v6 proxy":                   {"[fd00::1]:80", []string{"2001:db8::1"}, proxies, "2001:db8::/64"},
		"v6 brackets and port":       {"[fd00::1]:80", []string{"[2001:db8::1]:443"}, proxies, "2001:db8::/64"},
		"v6 brackets":                {"[fd00::1]:80", []string{"[2001:db8::1]"}, proxies, "2001:db8::/64"},
		"mapped peer":                {"[::ffff:203.0.113.7]:80", nil, nil, "203.0.113.7"},
		"mapped proxy":               {"[::ffff:10.0.0.1]:80", []string{"203.0.113.7"}, proxies, "203.0.113.7"},
		"proxy as a mapped prefix":   {"192.168.3.4:80", []string{"203.0.113.7"}, proxies, "203.0.113.7"},
		"prefix that is not masked":  {"192.0.2.9:80", []string{"203.0.113.7"}, prefixes("192.0.2.1/24"), "203.0.113.7"},
		"socket":                     {"@", []string{"203.0.113.7"}, proxies, "@"},
		"mapped client, as a client": {"10.0.0.1:80", []string{"::ffff:203.0.113.7"}, proxies, "203.0.113.7"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		require.Equal(t, "ip:"+c.want, ByIP(c.trusted...)(r), name)
	}
}

// Whatever a client sends in the header, it counts as an address that it cannot
// choose: the one that the first trusted proxy saw.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.2.3.4")
	f.Add("10.0.0.1, ")
	f.Add("[::1]:80,,")
	f.Add("10.0.0.9,10.0.0.8")
	key := ByIP(prefixes("10.0.0.0/8")...)
	f.Fuzz(func(t *testing.T, sent string) {
		for _, forwarded := range [][]string{{sent + ",203.0.113.7"}, {sent, "203.0.113.7"}, {sent + ", 203.0.113.7, 10.1.2.3"}} {
			r := &http.Request{RemoteAddr: "10.0.0.1:80", Header: http.Header{"X-Forwarded-For": forwarded}}
			require.Equal(t, "ip:203.0.113.7", key(r))
		}
		r := &http.Request{RemoteAddr: "203.0.113.7:80", Header: http.Header{"X-Forwarded-For": {sent}}}
		require.Equal(t, "ip:203.0.113.7", key(r))
		quoted := quote(sent)
		for i := range len(quoted) {
			require.True(t, quoted[i] >= 0x20 && quoted[i] < 0x7f)
		}
	})
}

func TestOtherKeys(t *testing.T) {
	r := httptest.NewRequest("GET", "/orders/7", nil)
	r.Header.Set("X-Api-Key", "k1")
	r.RemoteAddr = "203.0.113.7:1"
	user := func(r *http.Request) (string, bool) { u, _, ok := r.BasicAuth(); return u, ok }
	require.Equal(t, "header:X-Api-Key:k1", ByHeader("X-Api-Key")(r))
	require.Equal(t, "header:Other:", ByHeader("Other")(r))
	require.Equal(t, "route:GET", ByRoute()(r))
	require.Equal(t, "ip:203.0.113.7", ByUser(user, ByIP())(r))
	r.SetBasicAuth("203.0.113.7", "")
	require.Equal(t, "user:203.0.113.7", ByUser(user, ByIP())(r))

	mux := http.NewServeMux()
	var route string
	mux.HandleFunc("GET /orders/{id}", func(_ http.ResponseWriter, r *http.Request) { route = ByRoute()(r) })
	mux.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, "route:GET /orders/{id}", route)

	fixed := func(s string) KeyFunc { return func(*http.Request) string { return s } }
	require.NotEqual(t, Join(fixed("a"), fixed("bc"))(r), Join(fixed("ab"), fixed("c"))(r))
	require.NotEqual(t, Join(fixed("1:a"))(r), Join(fixed("a"))(r))
}

// serve sends a request to a handler behind a limiter.
func serve(ctx context.Context, t *testing.T, l *ratelimit.Limiter, o Options) *httptest.ResponseRecorder {
	t.Helper()
	passed := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
	Middleware(l, ByIP(), o)(passed).ServeHTTP(w, r)
	return w
}

func TestFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hour := ratelimit.PerHour(1000)
		hour.Name = `"hour" \ é`
		l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(10).WithBurst(2), hour})
		require.NoError(t, err)
		o := Options{Legacy: true}

		for _, want := range []string{"1", "0"} {
			res := serve(t.Context(), t, l, o)
			require.Equal(t, http.StatusNoContent, res.Code)
			require.Equal(t, `"10/1s";q=2;w=1, "\"hour\" \\ ??";q=1000;w=3600`, res.Header().Get("RateLimit-Policy"))
			require.Equal(t, `"10/1s";r=`+want+`;t=1`, res.Header().Get("RateLimit"))
			require.Equal(t, "2", res.Header().Get("X-RateLimit-Limit"))
			require.Equal(t, want, res.Header().Get("X-RateLimit-Remaining"))
			require.Equal(t, "1", res.Header().Get("X-RateLimit-Reset"))
			require.Empty(t, res.Header().Get("Retry-After"))
		}
		res := serve(t.Context(), t, l, Options{})
		require.Equal(t, http.StatusTooManyRequests, res.Code)
		require.Equal(t, "application/problem+json", res.Header().Get("Content-Type"))
		require.Empty(t, res.Header().Get("X-RateLimit-Limit"))
		var problem map[string]any
		require.NoError(t, json.NewDecoder(res.Body).Decode(&problem))
		require.Equal(t, map[string]any{
			"type":   "https://iana.org/assignments/http-problem-types#quota-exceeded",
			"title":  "Request cannot be satisfied as assigned quota has been exceeded",
			"status": 429.0, "violated-policies": []any{"10/1s"},
		}, problem)

		// Whoever waits as told is not denied again.
		after, err := strconv.Atoi(res.Header().Get("Retry-After"))
		require.NoError(t, err)
		require.Equal(t, 1, after) // 0.1 s, rounded up
		time.Sleep(time.Duration(after) * time.Second)
		require.Equal(t, http.StatusNoContent, serve(t.Context(), t, l, o).Code)
	})
}

func TestCostAndErrors(t *testing.T) {
	l, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerHour(10)})
	require.NoError(t, err)
	costs := func(n int64) Options { return Options{Cost: func(*http.Request) int64 { return n }} }
	require.Equal(t, 204, serve(t.Context(), t, l, costs(10)).Code)
	require.Equal(t, 429, serve(t.Context(), t, l, costs(1)).Code)
	require.Equal(t, 204, serve(t.Context(), t, l, costs(0)).Code)
	res := serve(t.Context(), t, l, costs(11))
	require.Equal(t, 429, res.Code)
	require.Empty(t, res.Header().Get("Retry-After"), "it can never come true")
	require.Equal(t, 503, serve(t.Context(), t, l, costs(-1)).Code)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, 503, serve(ctx, t, l, Options{}).Code, "what is not answered is 200 to a client that is there")
	require.NoError(t, l.Close(t.Context()))
	require.Equal(t, 503, serve(t.Context(), t, l, Options{}).Code)
}

// Where a deadline that was put on the request ends before Redis answers, the client is
// not told that all is well.
func TestDeadlineOfTheRequest(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0") // takes what it is sent, and is silent
	require.NoError(t, err)
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr().String(), ReadTimeout: 200 * time.Millisecond, MaxRetries: -1})
	defer rdb.Close()
	l, err := ratelimit.New(rdb, []ratelimit.Limit{ratelimit.PerSecond(1)}, ratelimit.Options{WhenDown: ratelimit.FailClosed, Timeout: time.Minute})
	require.NoError(t, err)
	reached := false
	limited := Middleware(l, ByIP(), Options{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
		defer cancel()
		limited.ServeHTTP(w, r.WithContext(ctx))
	}))
	defer site.Close()
	res, err := site.Client().Post(site.URL, "text/plain", nil)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	require.False(t, reached)
	_ = l.Close(t.Context()) // of no interest here
}

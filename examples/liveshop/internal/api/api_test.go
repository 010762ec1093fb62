package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/stock"
)

func mux(t *testing.T, cfg infra.Config) *api.Mux {
	t.Helper()
	m, err := api.New(shoptest.Open(t, cfg, false), func(_ context.Context, token string) (int64, error) {
		if token == "anna" {
			return 7, nil
		}
		return 0, nil
	})
	require.NoError(t, err)
	return m
}

func request(method, path string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+path, strings.NewReader(`{"n":1}`))
	r.RemoteAddr = "127.0.0.1:1234"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func serve(m http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	m := mux(t, infra.Config{})
	answers := map[string]error{
		"bad": api.Bad("n: %d", 3), "gone": api.NotFound("room"), "taken": api.Conflict("taken", "by another"),
		"unavailable": fmt.Errorf("order: %w", stock.ErrUnavailable), "unknown": stock.ErrUnknown,
		"breaker": gobreaker.ErrOpenState, "late": context.DeadlineExceeded, "broken": io.ErrUnexpectedEOF, "eof": io.EOF,
		"dial": &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "read": &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		"unsent": fmt.Errorf("%w: %w", stock.ErrUnavailable, context.DeadlineExceeded), "pool": redis.ErrPoolTimeout,
		"commit": mysql.ErrInvalidConn, "left": context.Canceled,
		"secret": errors.New("password is 1234"), "fine": nil,
	}
	m.Public("GET /answers/{which}", func(r *api.Request) (any, error) {
		if r.PathValue("which") == "panic" {
			panic("oh")
		}
		return map[string]int64{"uid": r.UID}, answers[r.PathValue("which")]
	})
	for which, want := range map[string]string{
		"bad":         `400 {"code":"bad_request","msg":"n: 3","data":null`,
		"gone":        `404 {"code":"not_found","msg":"no such room"`,
		"taken":       `409 {"code":"taken","msg":"by another"`,
		"unavailable": `503 {"code":"unavailable"`,
		"unknown":     `503 {"code":"unknown"`,
		"breaker":     `503 {"code":"unavailable"`,
		"late":        `503 {"code":"unknown"`,
		"left":        `503 {"code":"unknown"`,
		"unsent":      `503 {"code":"unavailable"`,
		"pool":        `503 {"code":"unavailable"`,
		"dial":        `503 {"code":"unavailable"`,
		"read":        `503 {"code":"unknown"`,
		"eof":         `503 {"code":"unknown"`,
		"commit":      `503 {"code":"unknown"`,
		"broken":      `500 {"code":"internal"`,
		"secret":      `500 {"code":"internal","msg":"it did not work"`,
		"panic":       `500 {"code":"internal"`,
		"fine":        `200 {"code":"ok","data":{"uid":0},"trace":"`,
	} {
		w := serve(m, request("GET", "/api/v1/answers/"+which))
		require.Contains(t, fmt.Sprint(w.Code, " ", w.Body), want, which)
		require.Equal(t, w.Code == 503, w.Header().Get("Retry-After") == "1", which)
	}
	w := serve(m, request("GET", "/api/v1/answers/fine", "Authorization", "Bearer anna"))
	require.Contains(t, w.Body.String(), `{"uid":7}`)
}

func TestDecode(t *testing.T) {
	m := mux(t, infra.Config{})
	m.Public("POST /n/{id}", func(r *api.Request) (any, error) {
		var in struct {
			N int64 `json:"n"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		id, err := r.ID("id")
		return in.N + id, err
	})
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/n/1", `{"n":2}`, 200},
		{"/n/1", `{"n":2} `, 200},
		{"/n/1", `{"n":2}{}`, 400},
		{"/n/1", `{"m":2}`, 400},
		{"/n/1", `{"n":2.5}`, 400},
		{"/n/1", ``, 400},
		{"/n/0", `{"n":2}`, 400},
		{"/n/x", `{"n":2}`, 400},
		{"/n/1", `{"n":2,"n":"` + strings.Repeat("x", 64<<10) + `"}`, 413},
	} {
		r := httptest.NewRequest("POST", "/api/v1"+c.path, strings.NewReader(c.body))
		require.Equal(t, c.status, serve(m, r).Code, "%.40s", c.body)
	}
}

// Calls end before their clients give up, those that look at everything later.
func TestHowLongACallMayTake(t *testing.T) {
	m := mux(t, infra.Config{})
	left := func(r *api.Request) (any, error) {
		end, ok := r.Context().Deadline()
		require.True(t, ok)
		return time.Until(end).Round(time.Second).String(), nil
	}
	m.Public("GET /public", left)
	m.Admin("GET /admin/x", left)
	m.AdminLong("GET /admin/long", left)
	for path, want := range map[string]string{"public": "5s", "admin/x": "5s", "admin/long": "15s"} {
		require.Contains(t, serve(m, request("GET", "/api/v1/"+path)).Body.String(), want, path)
	}
	r := request("GET", "/api/v1/admin/long")
	r.RemoteAddr = "10.0.0.9:99"
	require.Equal(t, 403, serve(m, r).Code)
}

func TestWhoMayCall(t *testing.T) {
	m := mux(t, infra.Config{})
	fine := func(*api.Request) (any, error) { return nil, nil }
	m.User("POST /user", fine)
	m.Admin("POST /admin/x", fine)
	require.Equal(t, 401, serve(m, request("POST", "/api/v1/user")).Code)
	require.Equal(t, 401, serve(m, request("POST", "/api/v1/user", "Authorization", "Bearer bert")).Code)
	require.Equal(t, 401, serve(m, request("POST", "/api/v1/user", "Authorization", "anna")).Code)
	require.Equal(t, 200, serve(m, request("POST", "/api/v1/user", "Authorization", "Bearer anna")).Code)

	for _, path := range []string{"/api/v1/admin/x", "/debug/pprof/cmdline"} {
		method := map[bool]string{true: "POST", false: "GET"}[strings.Contains(path, "admin")]
		for _, c := range []struct {
			name   string
			change func(*http.Request)
			status int
		}{
			{"from here", func(*http.Request) {}, 200},
			{"from here, IPv6", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:99", "[::1]:8080" }, 200},
			{"through a proxy here", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") }, 200},
			{"from elsewhere", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:99" }, 403},
			{"from elsewhere, saying otherwise", func(r *http.Request) {
				r.RemoteAddr = "10.0.0.9:99"
				r.Header.Set("X-Forwarded-For", "127.0.0.1")
			}, 403},
			{"through a proxy here, from elsewhere", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1, 10.0.0.9") }, 403},
			{"a name that leads here", func(r *http.Request) { r.Host = "evil.example:8080" }, 403},
		} {
			r := request(method, path)
			c.change(r)
			require.Equal(t, c.status, serve(m, r).Code, "%s %s", path, c.name)
		}
	}
	require.Equal(t, 403, serve(m, request("POST", "/api/v1/admin/x", "Sec-Fetch-Site", "cross-site")).Code, "another site's page")
	require.Equal(t, 403, serve(m, request("POST", "/api/v1/admin/x", "Origin", "http://evil.example")).Code)
	require.Equal(t, 200, serve(m, request("POST", "/api/v1/admin/x", "Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "same-origin")).Code)
}

func TestCORS(t *testing.T) {
	m := mux(t, infra.Config{Origins: "https://shop.example,https://m.shop.example"})
	m.Public("GET /x", func(*api.Request) (any, error) { return nil, nil })
	ask := func(origin string) http.Header {
		return serve(m, request("GET", "/api/v1/x", "Origin", origin)).Header()
	}
	require.Equal(t, "https://m.shop.example", ask("https://m.shop.example").Get("Access-Control-Allow-Origin"))
	require.Equal(t, "Origin", ask("https://m.shop.example").Get("Vary"))
	for _, origin := range []string{"https://evil.example", "https://shop.example.evil.example", "null", "https://shop.example,https://m.shop.example"} {
		require.Empty(t, ask(origin).Get("Access-Control-Allow-Origin"), origin)
	}
	w := serve(m, request("OPTIONS", "/api/v1/x", "Origin", "https://shop.example", "Access-Control-Request-Method", "POST"))
	require.Equal(t, 204, w.Code)
	require.Contains(t, w.Header().Get("Access-Control-Allow-Headers"), "Authorization")
	require.NotEqual(t, 204, serve(m, request("OPTIONS", "/api/v1/x", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")).Code)
}

func TestLimits(t *testing.T) {
	m := mux(t, infra.Config{})
	m.Public("GET /x", func(*api.Request) (any, error) { return nil, nil })
	// allows demands that so many calls are allowed at once, and no more than came back since.
	allows := func(since time.Time, burst, perSecond int, header ...string) {
		t.Helper()
		for n := 0; ; n++ {
			if w := serve(m, request("GET", "/api/v1/x", header...)); w.Code == 429 {
				require.NotEmpty(t, w.Header().Get("Retry-After"))
				require.Contains(t, w.Body.String(), `"code":"too_many"`)
				require.GreaterOrEqual(t, n, burst)
				require.LessOrEqual(t, n, burst+1+int(time.Since(since).Seconds()*float64(perSecond)))
				return
			}
		}
	}
	allows(time.Now(), 60, 20, "Authorization", "Bearer anna")
	allows(time.Now(), 200, 50)
	began := time.Now()
	allows(began, 200, 50, "X-Forwarded-For", "10.0.0.1")        // another address
	allows(began, 0, 50, "X-Forwarded-For", "6.6.6.6, 10.0.0.1") // who writes the header does not choose the address
	s := m.Stats()
	require.Equal(t, s.Requests["429"], s.Denied)
	require.Equal(t, s.Requests["200"], s.Allowed)
	require.Positive(t, s.P99)
	require.Contains(t, serve(m, request("GET", "/metrics")).Body.String(), `liveshop_http_requests_total{route="GET /api/v1/x",status="429"}`)
}

package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// What there is not is answered in the shape of all answers, beside a page that answers
// for every path.
func TestCallsThatThereAreNot(t *testing.T) {
	m := mux(t, infra.Config{})
	fine := func(*api.Request) (any, error) { return nil, nil }
	m.Public("GET /x", fine)
	m.Public("POST /x", fine)
	m.User("PUT /y/{id}", fine)
	m.Raw("GET /", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }))
	for call, want := range map[string]string{
		"GET /api/v1/x":         `200  {"code":"ok"`,
		"HEAD /api/v1/x":        `200  `,
		"GET /api/v1/nothing":   `404  {"code":"not_found","msg":"no such call"`,
		"POST /api/v1/nothing":  `404  {"code":"not_found"`,
		"DELETE /api/v1/x":      `405 GET, POST {"code":"bad_request","msg":"want GET or POST, not DELETE"`,
		"GET /api/v1/y/1":       `405 PUT {"code":"bad_request"`,
		"POST /api/v1/y/1":      `405 PUT {"code":"bad_request"`,
		"GET /api/v1/x/":        `404  {"code":"not_found"`,
		"GET /api/v1/y/1/../..": `404  {"code":"not_found"`,
		"GET /nothing":          `200  the page`,
		"GET /":                 `200  the page`,
	} {
		method, path, _ := strings.Cut(call, " ")
		w := serve(m, request(method, path))
		require.Contains(t, fmt.Sprint(w.Code, " ", w.Header().Get("Allow"), " ", w.Body), want, call)
	}
	require.Contains(t, serve(m, request("GET", "/metrics")).Body.String(), `liveshop_http_requests_total{route="unknown",status="405"} 3`)
}

// What is wrong with a body is said in words of JSON.
func TestDecodeSays(t *testing.T) {
	m := mux(t, infra.Config{})
	m.Public("POST /n", func(r *api.Request) (any, error) {
		var in struct {
			N     int64 `json:"n"`
			Name  string
			On    bool
			Lines []struct{ Qty int }
		}
		return nil, r.Decode(&in)
	})
	for body, want := range map[string]string{
		``:                          "body: want a JSON object, and there is nothing",
		`[]`:                        "body: want an object, not a JSON array",
		`{"n":"1"}`:                 "n: want a whole number below 2^63, not a JSON string",
		`{"n":9223372036854775808}`: "n: want a whole number below 2^63, not a JSON number 9223372036854775808",
		`{"Name":5}`:                "Name: want a string, not a JSON number",
		`{"On":"yes"}`:              "On: want true or false, not a JSON string",
		`{"Lines":{}}`:              "Lines: want an array, not a JSON object",
		`{"Lines":[{"Qty":1.5}]}`:   "Lines.Qty: want a whole number below 2^63, not a JSON number 1.5",
		`{"n":1,"m":2}`:             `body: unknown field \"m\"`,
		`{"n":1}{}`:                 "body: more than one JSON value",
		`{"n":1`:                    "body: unexpected EOF",
	} {
		w := serve(m, httptest.NewRequest("POST", "/api/v1/n", strings.NewReader(body)))
		require.Equal(t, 400, w.Code, body)
		require.Contains(t, w.Body.String(), `"msg":"`+want+`"`, body)
	}
}

// Who begins a body and does not go on is not waited for longer than a call may take.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	m := mux(t, infra.Config{})
	m.Public("POST /n", func(r *api.Request) (any, error) { return nil, r.Decode(&struct{}{}) })
	web := httptest.NewServer(m)
	t.Cleanup(web.Close)
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /api/v1/n HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	wire := bufio.NewReader(conn)
	res, err := http.ReadResponse(wire, nil)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, 408, res.StatusCode)
	require.Contains(t, string(body), `"code":"too_slow"`)
	_, err = wire.ReadByte()
	require.ErrorIs(t, err, io.EOF, "and it does not wait for the rest")
}

func TestBearerInAnyCase(t *testing.T) {
	m := mux(t, infra.Config{})
	m.User("GET /user", func(*api.Request) (any, error) { return nil, nil })
	for header, status := range map[string]int{
		"Bearer anna": 200, "bearer anna": 200, "BEARER anna": 200, "Basic anna": 401, "anna": 401, "Bearer": 401, "Bearer ": 401, "": 401,
	} {
		require.Equal(t, status, serve(m, request("GET", "/api/v1/user", "Authorization", header)).Code, header)
	}
}

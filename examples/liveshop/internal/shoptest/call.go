package shoptest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// An Answer is what a call was answered.
type Answer struct {
	Status int
	Code   string
	Data   json.RawMessage
	Header map[string][]string
}

// Into reads the data of a call that has to have succeeded.
func (a Answer) Into(t testing.TB, v any) {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("status %d: %s", a.Status, a.Code)
	}
	if err := json.Unmarshal(a.Data, v); err != nil {
		t.Fatalf("%v: %s", err, a.Data)
	}
}

// Caller returns a function that calls the routes of parts, on behalf of a user; 0 is
// nobody, each time from another address of this machine. It may be called from many
// goroutines.
func Caller(t testing.TB, env *infra.Env, parts ...interface{ Routes(*api.Mux) }) func(uid int64, route, body string) Answer {
	t.Helper()
	mux, err := api.New(env, func(_ context.Context, token string) (int64, error) { return strconv.ParseInt(token, 10, 64) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		p.Routes(mux)
	}
	var calls atomic.Int32
	return func(uid int64, route, body string) (a Answer) {
		method, path, _ := strings.Cut(route, " ")
		if !strings.HasPrefix(path, "/s/") {
			path = api.Prefix + path
		}
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		n := calls.Add(1)
		r.RemoteAddr, r.Host = fmt.Sprintf("127.1.%d.%d:1", n>>8&255, n&255), "localhost"
		if uid != 0 {
			r.Header.Set("Authorization", "Bearer "+strconv.FormatInt(uid, 10))
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		a.Status, a.Header = w.Code, w.Header()
		var out struct {
			Code string
			Data json.RawMessage
		}
		if json.Unmarshal(w.Body.Bytes(), &out) == nil {
			a.Code, a.Data = out.Code, out.Data
		}
		return a
	}
}

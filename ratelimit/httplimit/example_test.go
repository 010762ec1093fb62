package httplimit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/spillway-go/spillway/ratelimit"
	"github.com/spillway-go/spillway/ratelimit/httplimit"
)

// Two requests a minute for each user and route; strangers count by address.
func Example() {
	limiter, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerMinute(2)}) // or New, on Redis
	if err != nil {
		fmt.Println(err)
		return
	}
	user := func(r *http.Request) (string, bool) {
		name, _, ok := r.BasicAuth() // that something before has checked
		return name, ok
	}
	balancers := netip.MustParsePrefix("10.0.0.0/8")
	key := httplimit.Join(httplimit.ByRoute(), httplimit.ByUser(user, httplimit.ByIP(balancers)))
	limit := httplimit.Middleware(limiter, key, httplimit.Options{
		Legacy: true,
		Cost: func(r *http.Request) int64 {
			if r.Method == http.MethodHead {
				return 0
			}
			return 1
		},
	})

	mux := http.NewServeMux()
	mux.Handle("POST /orders", limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ordered"))
	})))

	for range 3 {
		r := httptest.NewRequest(http.MethodPost, "/orders", nil)
		r.RemoteAddr = "10.1.2.3:80"
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		h := w.Header()
		fmt.Printf("%d %s %s retry %q\n", w.Code, h.Get("RateLimit-Policy"), h.Get("RateLimit"), h.Get("Retry-After"))
	}
	// Output:
	// 200 "2/1m0s";q=2;w=60 "2/1m0s";r=1;t=30 retry ""
	// 200 "2/1m0s";q=2;w=60 "2/1m0s";r=0;t=60 retry ""
	// 429 "2/1m0s";q=2;w=60 "2/1m0s";r=0;t=60 retry "30"
}

// Every API key has its own limit.
func ExampleByHeader() {
	key := httplimit.ByHeader("X-Api-Key")
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Api-Key", "k-1")
	fmt.Println(key(r))
	// Output: header:X-Api-Key:k-1
}

package overload_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/spillway-go/spillway/ratelimit/overload"
)

// A handler that turns requests away when they would only wait.
func ExampleShedder() {
	shedder, err := overload.NewShedder(8, 500)
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := shedder.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("served")) }))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Code, w.Body)

	// The same around anything else.
	done, err := shedder.Acquire()
	if errors.Is(err, overload.ErrShed) {
		return
	}
	defer done()
	stats := shedder.Stats()
	fmt.Println(stats.Admitted, stats.Shed, stats.InFlight)
	// Output:
	// 200 served
	// 2 0 1
}

// A circuit breaker around what is shed: it counts neither what was shed nor who left.
func Example_breaker() {
	breaker := gobreaker.NewCircuitBreaker[string](gobreaker.Settings{
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 2 },
		IsExcluded: func(err error) bool {
			return errors.Is(err, overload.ErrShed) || errors.Is(err, context.Canceled)
		},
	})
	for _, err := range []error{errors.New("failed"), overload.ErrShed, context.Canceled, errors.New("failed")} {
		_, _ = breaker.Execute(func() (string, error) { return "", err })
		fmt.Println(breaker.Counts().TotalSuccesses, breaker.State())
	}
	// Output:
	// 0 closed
	// 0 closed
	// 0 closed
	// 0 open
}

// One hot product may hold at most two database connections.
func ExamplePerKey() {
	perProduct, err := overload.NewPerKey(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for range 3 {
		release, err := perProduct.Acquire(ctx, "tea")
		if err != nil {
			fmt.Println(errors.Is(err, context.DeadlineExceeded))
			return
		}
		defer release()
		fmt.Println("query")
	}
	// Output:
	// query
	// query
	// true
}

// What can be left out is left out, by everybody.
func ExampleSwitches() {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer rdb.Close()

	switches, err := overload.NewSwitches(rdb, overload.Options{
		OnChange: func(name string, on bool) { fmt.Println(name, on) },
	})
	if errors.Is(err, overload.ErrInvalid) {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- switches.Run(ctx) }() // follows what others flip

	err = switches.Set(ctx, "no recommendations", true)
	switch {
	case errors.Is(err, overload.ErrUnavailable), errors.Is(err, overload.ErrUnknown), errors.Is(err, overload.ErrClosed):
		fmt.Println("not flipped, or nobody knows")
	}
	fmt.Println(switches.On("no recommendations"))

	switches.SetHere("no recommendations", false) // but in this process
	fmt.Println(switches.All())
	switches.Follow("no recommendations")

	cancel()
	fmt.Println(<-stopped, switches.Read().After(time.Now()))
	// Output:
	// no recommendations true
	// true
	// no recommendations false
	// map[no recommendations:false]
	// no recommendations true
	// <nil> false
}

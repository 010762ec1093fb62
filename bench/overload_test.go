//go:build unix

package bench

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-go/spillway/ratelimit/overload"
)

const (
	serviceWorkers  = 20 // of the service, 10 ms each: connections of a database, say
	serviceTakes    = 10 * time.Millisecond
	serviceCapacity = serviceWorkers * int(time.Second/serviceTakes)
	patience        = 100 * time.Millisecond // of the callers
)

// BenchmarkOverload sends three times what a handler can do, and reports what was served
// in time by its peak, which is measured in the same run: the most that is served in
// time at any load up to a little above the capacity.
func BenchmarkOverload(b *testing.B) {
	for _, row := range []struct {
		name    string
		protect func(h http.Handler) (http.Handler, error)
	}{
		{"spillway", func(h http.Handler) (http.Handler, error) {
			s, err := overload.NewShedder(4, 1000)
			if err != nil {
				return nil, err
			}
			return s.Handler(h), nil
		}},
		{"unprotected", func(h http.Handler) (http.Handler, error) { return h, nil }},
	} {
		b.Run(row.name, func(b *testing.B) {
			peak, good := 0.0, 0.0
			for range b.N {
				for _, percent := range []int{90, 95, 100, 105} {
					peak = max(peak, goodput(service(), serviceCapacity*percent/100, time.Second))
				}
				h, err := row.protect(service())
				if err != nil {
					b.Fatal(err)
				}
				good += goodput(h, 3*serviceCapacity, 2*time.Second) / float64(b.N)
			}
			b.ReportMetric(good, "ops/s")
			b.ReportMetric(peak, "peak/s")
			b.ReportMetric(100*good/peak, "%-of-peak")
		})
	}
}

// service works for callers who have gone, too: the usual one does not notice.
func service() http.Handler {
	workers := make(chan struct{}, serviceWorkers)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		workers <- struct{}{}
		time.Sleep(serviceTakes)
		<-workers
		w.WriteHeader(http.StatusNoContent)
	})
}

// goodput sends calls at a steady rate, and returns how many a second were served
// within the patience of their callers, in the second half of the time.
func goodput(h http.Handler, perSecond int, lasts time.Duration) float64 {
	var good atomic.Int64
	var wg sync.WaitGroup
	r := httptest.NewRequest(http.MethodGet, "/", nil) // one for all: making it costs more than serving it
	began := time.Now()
	for sent := 0; time.Since(began) < lasts; {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
			wg.Go(func() {
				start, w := time.Now(), httptest.NewRecorder()
				h.ServeHTTP(w, r)
				end := time.Now()
				if w.Code == http.StatusNoContent && end.Sub(start) <= patience && end.Sub(began) > lasts/2 && end.Sub(began) <= lasts {
					good.Add(1)
				}
			})
		}
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	return float64(good.Load()) / (lasts / 2).Seconds()
}

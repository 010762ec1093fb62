package overload

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A service is a handler with workers that take turns, as connections of a database
// do. It does a call's work when a worker is free, even for a caller who has gone: the
// usual service does not notice.
type service struct {
	workers chan struct{}
	takes   time.Duration
}

func newService(workers int, takes time.Duration) *service {
	return &service{make(chan struct{}, workers), takes}
}

func (s *service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.workers <- struct{}{}
	time.Sleep(s.takes)
	<-s.workers
	w.WriteHeader(http.StatusNoContent)
}

// drive sends calls at a steady rate for a while, and returns how many a second were
// served within the patience of their callers, in the second half of the time.
func drive(h http.Handler, perSecond int, patience, lasts time.Duration) float64 {
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

// At three times its capacity a service does nearly all that it can with a shedder,
// and next to nothing without: everything it does is too late.
func TestGoodput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const workers, takes, patience, lasts = 20, 10 * time.Millisecond, 100 * time.Millisecond, 8 * time.Second
		const capacity = workers * int(time.Second/takes)
		bare := func() http.Handler { return newService(workers, takes) }
		shedder := func() *Shedder {
			s, err := NewShedder(4, 1000)
			require.NoError(t, err)
			return s
		}
		peak := 0.0
		for percent := 90; percent <= 110; percent += 5 {
			peak = max(peak, drive(bare(), capacity*percent/100, patience, lasts/4))
		}
		sh := shedder()
		with := drive(sh.Handler(bare()), 3*capacity, patience, lasts)
		without := drive(bare(), 3*capacity, patience, lasts)
		t.Logf("peak %.0f/s, at three times the capacity %.0f/s with and %.0f/s without a shedder; %+v", peak, with, without, sh.Stats())
		require.InDelta(t, float64(capacity), peak, 0.01*float64(capacity))
		require.GreaterOrEqual(t, with, 0.95*peak)
		require.Less(t, without, 0.05*peak)

		// When that lasts it looks whether the service became slower, which costs nothing.
		require.GreaterOrEqual(t, drive(shedder().Handler(bare()), 3*capacity, patience, 15*time.Second), 0.95*peak)

		// It does not stand in the way of what the service can do, ...
		require.GreaterOrEqual(t, drive(shedder().Handler(bare()), capacity*90/100, patience, lasts), 0.95*0.9*float64(capacity))

		// ... and finds its way when the service becomes slower for good.
		slow := newService(workers, takes)
		h := shedder().Handler(slow)
		drive(h, 3*capacity, patience, 4*time.Second)
		slow.takes = 3 * takes
		require.GreaterOrEqual(t, drive(h, 3*capacity, patience, 20*time.Second), 0.9*float64(capacity)/3)
	})
}

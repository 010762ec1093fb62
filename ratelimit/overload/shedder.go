package overload

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// ErrShed turns a call away because too much is in flight.
var ErrShed = errors.New("overload: shed")

const (
	window    = 50 * time.Millisecond // of one measurement, if it has
	minCalls  = 8                     // as many calls
	tolerance = 1.5                   // times the latency without load that is still right
	smoothing = 0.3                   // of a step of the limit
	steepest  = 0.5                   // fall of the limit in a step, before smoothing
	floorFor  = 20                    // windows at the floor after which latency is taken as it is
	slowFor   = 200                   // slow windows in a row after which the limit goes to the floor
)

// A Shedder limits the calls in flight to what the service does without making them
// wait, by the gradient of latency (Netflix's concurrency-limits calls this one
// Gradient2): every 50 ms the limit is multiplied by the latency without load over
// the present one, and the square root of it is added, for a short queue; not where
// latency is three times what it was, or the limit would never fall below 4.
//
// Latency without load is the lowest seen; it is raised slowly while the service is
// half idle, and when the limit has been at its floor for a second: then what is
// measured is the service alone, which has become slower. To find that out where
// latency is a little higher, nothing is added to the limit when every window of ten
// seconds was slow: under load it falls until calls do not wait, which costs nothing,
// and else to the floor. Methods may be called from many goroutines.
type Shedder struct {
	least, most float64

	mu       sync.Mutex
	limit    float64
	inFlight int
	base     time.Duration // latency without load
	atFloor  int           // windows in a row
	slow     int           // windows in a row
	began    time.Time     // of the window
	calls    int
	sum      time.Duration
	peak     int
	admitted uint64
	shed     uint64
}

// NewShedder returns a shedder whose limit starts at least and stays between least and
// most calls in flight, both at least 1. Least is what the service can always bear,
// about the number of its workers or cores.
func NewShedder(least, most int) (*Shedder, error) {
	if least < 1 || most < least {
		return nil, fmt.Errorf("%w: least %d, most %d, want 1 <= least <= most", ErrInvalid, least, most)
	}
	return &Shedder{least: float64(least), most: float64(most), limit: float64(least), began: time.Now()}, nil
}

// Acquire lets a call in, or returns ErrShed at once. The caller calls done when its work
// ends, however it ends; again it does nothing.
func (s *Shedder) Acquire() (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight >= int(s.limit) {
		s.shed++
		return nil, ErrShed
	}
	s.inFlight++
	s.admitted++
	s.peak = max(s.peak, s.inFlight)
	began, ended := time.Now(), false
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !ended {
			ended = true
			s.done(began)
		}
	}, nil
}

// done is called with mu held.
func (s *Shedder) done(began time.Time) {
	now := time.Now()
	s.inFlight--
	s.calls++
	s.sum += now.Sub(began)
	if now.Sub(s.began) >= window && s.calls >= minCalls {
		s.adapt(s.sum / time.Duration(s.calls))
		s.began, s.calls, s.sum, s.peak = now, 0, 0, s.inFlight
	}
}

// adapt moves the limit after a window in which calls took that long.
func (s *Shedder) adapt(latency time.Duration) {
	latency = max(latency, 1)
	switch {
	case s.base == 0 || latency < s.base:
		s.base = latency
	case float64(s.peak) < s.limit/2:
		s.base += (latency - s.base) / 16
	}
	gradient := min(1, max(steepest, tolerance*float64(s.base)/float64(latency)))
	if s.slow++; gradient == 1 {
		s.slow = 0
	}
	if gradient == 1 && float64(s.peak) < s.limit/2 {
		return // nobody needs a higher limit
	}
	next := s.limit * gradient
	if gradient > steepest && s.slow < slowFor {
		next += math.Sqrt(s.limit)
	}
	s.limit = min(s.most, max(s.least, s.limit+smoothing*(next-s.limit)))
	if s.limit > s.least*1.5 || gradient == 1 {
		s.atFloor = 0
	} else if s.atFloor++; s.atFloor >= floorFor {
		s.base, s.atFloor, s.slow = latency, 0, 0
	}
}

// Stats are counters of this process since NewShedder, and the state of the moment.
type Stats struct {
	Admitted, Shed uint64
	InFlight       int
	Limit          int           // at present
	Latency        time.Duration // taken as that without load
}

// Stats returns the counters. It does no I/O.
func (s *Shedder) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Admitted: s.admitted, Shed: s.shed, InFlight: s.inFlight, Limit: int(s.limit), Latency: s.base}
}

// Handler returns next behind the shedder: what is shed is answered 503 with
// Retry-After: 1.
func (s *Shedder) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done, err := s.Acquire()
		if err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
			return
		}
		defer done()
		next.ServeHTTP(w, r)
	})
}

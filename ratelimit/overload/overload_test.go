package overload

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A service has workers that take turns, as connections of a database do.
type service struct {
	workers chan struct{}
	takes   time.Duration
}

func newService(workers int, takes time.Duration) *service {
	return &service{make(chan struct{}, workers), takes}
}

// serve does a call's work when a worker is free, even for a caller who has gone: the
// usual service does not notice.
func (s *service) serve() {
	s.workers <- struct{}{}
	time.Sleep(s.takes)
	<-s.workers
}

// drive sends calls at a steady rate for a while, and returns how many a second were
// answered within the patience of their callers, in the second half of the time.
func drive(s *service, sh *Shedder, perSecond int, patience, lasts time.Duration) float64 {
	var good atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for sent := 0; time.Since(began) < lasts; {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
			wg.Go(func() {
				start := time.Now()
				if sh != nil {
					done, err := sh.Acquire()
					if err != nil {
						return
					}
					defer done()
				}
				s.serve()
				end := time.Now()
				if end.Sub(start) <= patience && end.Sub(began) > lasts/2 && end.Sub(began) <= lasts {
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
	synctest.Test(t, func(t *testing.T) {
		const workers, takes, patience = 20, 10 * time.Millisecond, 100 * time.Millisecond
		const capacity = workers * int(time.Second/takes)
		run := func(sh *Shedder, rate int) float64 {
			return drive(newService(workers, takes), sh, rate, patience, 8*time.Second)
		}
		shedder := func() *Shedder {
			s, err := NewShedder(4, 1000)
			require.NoError(t, err)
			return s
		}
		peak := run(nil, capacity*95/100)
		sh := shedder()
		with, without := run(sh, 3*capacity), run(nil, 3*capacity)
		t.Logf("peak %.0f/s, at three times the capacity %.0f/s with and %.0f/s without a shedder; %+v", peak, with, without, sh.Stats())
		require.GreaterOrEqual(t, with, 0.95*peak)
		require.Less(t, without, 0.05*peak)

		// It does not stand in the way of what the service can do, ...
		require.GreaterOrEqual(t, run(shedder(), capacity*90/100), 0.9*0.95*float64(capacity))

		// ... and finds its way when the service becomes slower for good.
		slow := newService(workers, takes)
		sh = shedder()
		drive(slow, sh, 3*capacity, patience, 4*time.Second)
		slow.takes = 3 * takes
		require.GreaterOrEqual(t, drive(slow, sh, 3*capacity, patience, 20*time.Second), 0.9*float64(capacity)/3)
	})
}

func BenchmarkGoodput(b *testing.B) {
	const workers, takes, patience = 20, 10 * time.Millisecond, 100 * time.Millisecond
	const capacity = workers * int(time.Second/takes)
	for b.Loop() {
		peak := drive(newService(workers, takes), nil, capacity*95/100, patience, 2*time.Second)
		sh, err := NewShedder(4, 1000)
		if err != nil {
			b.Fatal(err)
		}
		with := drive(newService(workers, takes), sh, 3*capacity, patience, 4*time.Second)
		without := drive(newService(workers, takes), nil, 3*capacity, patience, 4*time.Second)
		b.ReportMetric(peak, "peak/s")
		b.ReportMetric(100*with/peak, "%-of-peak-with")
		b.ReportMetric(100*without/peak, "%-of-peak-without")
	}
}

func BenchmarkAcquire(b *testing.B) {
	s, err := NewShedder(1000, 1000)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if done, err := s.Acquire(); err == nil {
				done()
			}
		}
	})
}

func TestShedder(t *testing.T) {
	for _, c := range [][2]int{{0, 1}, {-1, 5}, {5, 4}} {
		_, err := NewShedder(c[0], c[1])
		require.ErrorIs(t, err, ErrInvalid)
	}
	s, err := NewShedder(2, 2)
	require.NoError(t, err)
	one, err := s.Acquire()
	require.NoError(t, err)
	two, err := s.Acquire()
	require.NoError(t, err)
	_, err = s.Acquire()
	require.ErrorIs(t, err, ErrShed)
	shed := httptest.NewRecorder()
	h := s.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	h.ServeHTTP(shed, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, http.StatusServiceUnavailable, shed.Code)
	require.Equal(t, "1", shed.Header().Get("Retry-After"))
	one()
	served := httptest.NewRecorder()
	h.ServeHTTP(served, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, http.StatusNoContent, served.Code)
	two()
	require.Equal(t, Stats{Admitted: 3, Shed: 2, Limit: 2}, s.Stats())
}

// Never more than n hold a key, they come in order, and whoever leaves takes no
// place with it. The control counts without a PerKey.
func TestPerKey(t *testing.T) {
	_, err := NewPerKey(0)
	require.ErrorIs(t, err, ErrInvalid)
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPerKey(3)
		require.NoError(t, err)
		var in, most [4]atomic.Int64
		var left atomic.Int64
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*10*time.Millisecond)
				defer cancel()
				release, err := p.Acquire(ctx, fmt.Sprint(i%4))
				if err != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					left.Add(1)
					return
				}
				n := in[i%4].Add(1)
				for m := most[i%4].Load(); n > m && !most[i%4].CompareAndSwap(m, n); m = most[i%4].Load() {
				}
				time.Sleep(10 * time.Millisecond)
				in[i%4].Add(-1)
				release()
			})
		}
		wg.Wait()
		for i := range most {
			require.Equal(t, int64(3), most[i].Load())
		}
		require.NotZero(t, left.Load())
		require.Empty(t, p.m, "keys that nobody holds")

		var order []int
		var mu sync.Mutex
		hold, err := p.Acquire(t.Context(), "k")
		require.NoError(t, err)
		for range 2 {
			_, err := p.Acquire(t.Context(), "k")
			require.NoError(t, err)
		}
		for i := range 5 {
			time.Sleep(time.Millisecond)
			wg.Go(func() {
				release, err := p.Acquire(context.WithoutCancel(t.Context()), "k")
				if err == nil {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					release()
				}
			})
		}
		synctest.Wait()
		hold()
		wg.Wait()
		require.True(t, slices.IsSorted(order))
		require.Len(t, order, 5)
	})
}

func TestSwitches(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, cancel := context.WithCancel(t.Context())
		prefix := redistest.Prefix(t)
		var mu sync.Mutex
		var told []string
		open := func(o Options) *Switches {
			o.Prefix, o.Every = prefix, 10*time.Millisecond
			s, err := NewSwitches(rdb, o)
			require.NoError(t, err)
			return s
		}
		here, other := open(Options{}), open(Options{Name: "other"})
		there := open(Options{OnChange: func(name string, on bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(name, on))
		}})
		var wg sync.WaitGroup
		for _, s := range []*Switches{here, there, other} {
			require.Zero(t, s.Read())
			wg.Go(func() { _ = s.Run(ctx) })
		}
		becomes := func(s *Switches, name string, on bool) {
			t.Helper()
			require.Eventually(t, func() bool { return s.On(name) == on }, 10*time.Second, time.Millisecond)
		}
		require.False(t, here.On("recommend"))
		require.NoError(t, here.Set(ctx, "recommend", true))
		require.True(t, here.On("recommend"), "at once")
		becomes(there, "recommend", true)
		require.False(t, other.On("recommend"))
		require.False(t, there.Read().IsZero())

		there.SetHere("recommend", false)
		require.False(t, there.On("recommend"))
		require.NoError(t, here.Set(ctx, "search", true))
		becomes(there, "search", true)
		require.False(t, there.On("recommend"), "this process goes its own way")
		there.Follow("recommend")
		require.True(t, there.On("recommend"))
		require.Equal(t, map[string]bool{"recommend": true, "search": true}, there.All())
		require.NoError(t, here.Set(ctx, "search", false))
		becomes(there, "search", false)

		cancel()
		wg.Wait()
		require.True(t, there.On("recommend"), "they stay as they were")
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []string{"recommendtrue", "recommendfalse", "searchtrue", "recommendtrue", "searchfalse"}, told)
	})
}

// What Redis said before a Set does not undo it.
func TestSwitchesLateRead(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "hgetall", Delay: time.Second})
		s, err := NewSwitches(b.Client(faults.Options), Options{OnChange: func(_ string, on bool) { require.True(t, on) }})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, s.Set(ctx, "x", true))
		for range 50 {
			require.True(t, s.On("x"))
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		require.NoError(t, <-done)
	})
}

func TestSwitchesWithoutRedis(t *testing.T) {
	_, err := NewSwitches(nil, Options{Every: 1})
	require.ErrorIs(t, err, ErrInvalid)
	s, err := NewSwitches(nil, Options{})
	require.NoError(t, err)
	require.NoError(t, s.Set(t.Context(), "x", true))
	require.True(t, s.On("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))

	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	s, err = NewSwitches(rdb, Options{})
	require.NoError(t, err)
	require.ErrorIs(t, s.Set(t.Context(), "x", true), ErrUnknown)
	require.False(t, s.On("x"))
	require.NoError(t, rdb.Close())
	require.ErrorIs(t, s.Set(t.Context(), "x", true), ErrClosed)
}

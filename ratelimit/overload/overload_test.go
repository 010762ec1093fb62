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

// Never more in flight than the limit, which rises while it is used and calls are no
// slower than without load, and falls when they are.
func TestShedderFollowsLatency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := NewShedder(4, 100)
		require.NoError(t, err)
		var in, most atomic.Int64
		load := func(callers int, takes, lasts time.Duration) {
			most.Store(0)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for end := time.Now().Add(lasts); time.Now().Before(end); {
						done, err := s.Acquire()
						if err != nil {
							time.Sleep(5 * time.Millisecond)
							continue
						}
						n := in.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						time.Sleep(takes)
						in.Add(-1)
						done()
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, most.Load(), int64(100))
		}
		load(1, 10*time.Millisecond, 5*time.Second)
		require.Equal(t, 4, s.Stats().Limit, "nobody needed more")
		load(200, 10*time.Millisecond, 10*time.Second)
		require.Equal(t, 100, s.Stats().Limit)
		require.Equal(t, int64(100), most.Load())
		require.Equal(t, 10*time.Millisecond, s.Stats().Latency)
		load(200, 50*time.Millisecond, time.Second)
		require.Less(t, s.Stats().Limit, 20)
		load(200, 50*time.Millisecond, 20*time.Second) // it is like that now
		require.Equal(t, 100, s.Stats().Limit)

		s, err = NewShedder(7, 7)
		require.NoError(t, err)
		load(50, time.Millisecond, time.Second)
		require.Equal(t, int64(7), most.Load())
		require.Zero(t, s.Stats().InFlight)
	})
}

// A service that became slower for good gets its limit back, however low the floor and
// whatever the slowdown.
func TestShedderLearnsThatTheServiceIsSlower(t *testing.T) {
	t.Parallel()
	for _, least := range []int{1, 2, 8} {
		for _, slow := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				s, err := NewShedder(least, 100)
				require.NoError(t, err)
				load := func(takes, lasts time.Duration) {
					var wg sync.WaitGroup
					for range 150 {
						wg.Go(func() {
							for end := time.Now().Add(lasts); time.Now().Before(end); {
								done, err := s.Acquire()
								if err != nil {
									time.Sleep(20 * time.Millisecond)
									continue
								}
								time.Sleep(takes)
								done()
							}
						})
					}
					wg.Wait()
				}
				load(10*time.Millisecond, 10*time.Second)
				require.Equal(t, 100, s.Stats().Limit)
				load(slow, time.Minute)
				require.Equal(t, 100, s.Stats().Limit, "least %d, %v", least, slow)
				require.Equal(t, slow, s.Stats().Latency)
			})
		}
	}
}

// crowd lets many callers, most of them impatient, ask for four keys, and returns how
// many held each at a time at most.
func crowd(t *testing.T, acquire func(ctx context.Context, key string) (release func(), err error)) (most [4]int64) {
	var in, peak [4]atomic.Int64
	var left atomic.Int64
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			patience := time.Duration(i%7) * 10 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			release, err := acquire(ctx, fmt.Sprint(i%4))
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, patience, time.Since(began), "it did not leave at once")
				left.Add(1)
				return
			}
			n := in[i%4].Add(1)
			for m := peak[i%4].Load(); n > m && !peak[i%4].CompareAndSwap(m, n); m = peak[i%4].Load() {
			}
			time.Sleep(10 * time.Millisecond)
			in[i%4].Add(-1)
			release()
		})
	}
	wg.Wait()
	require.NotZero(t, left.Load())
	for i := range peak {
		most[i] = peak[i].Load()
	}
	return most
}

// Never more than n hold a key, they come in order, and whoever leaves takes no
// place with it. The control forgets whom it let in when a waiter leaves.
func TestPerKey(t *testing.T) {
	_, err := NewPerKey(0)
	require.ErrorIs(t, err, ErrInvalid)
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPerKey(3)
		require.NoError(t, err)
		require.Equal(t, [4]int64{3, 3, 3, 3}, crowd(t, p.Acquire))
		require.Empty(t, p.m, "keys that nobody holds")

		broken, err := NewPerKey(3)
		require.NoError(t, err)
		for _, n := range crowd(t, func(ctx context.Context, key string) (func(), error) {
			release, err := broken.Acquire(ctx, key)
			if err != nil {
				broken.mu.Lock()
				if h := broken.m[key]; h != nil && h.in > 1 {
					h.in--
				}
				broken.mu.Unlock()
			}
			return release, err
		}) {
			require.Greater(t, n, int64(3), "the oracle does not catch a place that is given twice")
		}

		var order []int
		var mu sync.Mutex
		var wg sync.WaitGroup
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
			require.Eventually(t, func() bool { return s.On(name) == on }, time.Minute, time.Millisecond)
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

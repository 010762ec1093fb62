package chaos

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/internal/redistest"
)

// A rush is the config of a process whose goroutines all ask for the same key.
type rush struct {
	Addr, Prefix string
	Process      int
	Goroutines   int
	Mode         cache.Mode
	LoadTimeout  time.Duration
	StuckLoad    int64 // the load that never ends, counted over all processes; 0 for none
}

// A sighting is what such a process reports: that it is ready, that it loads, and
// in the end what its goroutines were told.
type sighting struct {
	Ready   bool
	Loading int64          // which load it is, counted over all processes
	Values  map[string]int // answers, and how many got each
	Errs    map[string]int
	Longest time.Duration // of all waits
}

const (
	rushPatience = time.Minute // of a caller, who shall not have needed it
	rushLoad     = 300 * time.Millisecond
)

// stampede is the job of such a process.
func stampede(ctx context.Context, w *Worker) error {
	var c rush
	if err := w.Config(&c); err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.Addr})
	defer rdb.Close()
	users, err := cache.New(rdb, "users", cache.Source[string, string]{Load: func(ctx context.Context, _ string) (string, error) {
		n, err := rdb.Incr(ctx, c.Prefix+":loads").Result()
		if err != nil {
			return "", err
		}
		if err := w.Report(sighting{Loading: n}); err != nil {
			return "", err
		}
		if n == c.StuckLoad {
			select {}
		}
		select { // a load takes its time
		case <-time.After(rushLoad):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		return fmt.Sprintf("load %d, by process %d", n, c.Process), nil
	}}, cache.Options{Prefix: c.Prefix, Mode: c.Mode, LoadTimeout: c.LoadTimeout, Timeout: 20 * time.Second})
	if err != nil {
		return err
	}
	if err := w.Report(sighting{Ready: true}); err != nil {
		return err
	}
	for ctx.Err() == nil { // go-redis does not interrupt a BLPOP
		if rdb.BLPop(ctx, time.Second, c.Prefix+":go").Err() == nil {
			break
		}
	}
	result := sighting{Values: map[string]int{}, Errs: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range c.Goroutines {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, rushPatience)
			defer cancel()
			begun := time.Now()
			v, err := users.Get(ctx, "star")
			mu.Lock()
			defer mu.Unlock()
			result.Longest = max(result.Longest, time.Since(begun))
			if err != nil {
				result.Errs[err.Error()]++
			} else {
				result.Values[v]++
			}
		})
	}
	wg.Wait()
	if err := w.Report(result); err != nil {
		return err
	}
	return users.Close(ctx)
}

// A crowd is eight processes that rush for a key which is nowhere.
type crowd struct {
	workers [8]*Process
	rdb     *redis.Client
	c       rush

	mu      sync.Mutex
	ready   chan int // process
	loading chan int // process
	results [8]sighting
}

func gather(t *testing.T, c rush) *crowd {
	c.Goroutines = 1000
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		c.Goroutines = 10_000
	}
	p := redistest.Server(t)
	c.Addr, c.Prefix = p.Addr(), redistest.Prefix(t)
	all := &crowd{rdb: p.Client(), c: c, ready: make(chan int, 8), loading: make(chan int, 8)}
	for i := range all.workers {
		c.Process = i
		all.workers[i] = Start(t, "stampede", c, func(s sighting) {
			switch {
			case s.Ready:
				all.ready <- i
			case s.Loading > 0:
				all.loading <- i
			default:
				all.mu.Lock()
				defer all.mu.Unlock()
				all.results[i] = s
			}
		})
	}
	for range all.workers {
		select {
		case <-all.ready:
		case <-time.After(rushPatience):
			t.Fatal("the processes do not start")
		}
	}
	return all
}

// rush lets all of them go at once.
func (a *crowd) rush(t *testing.T) {
	t.Helper()
	for range a.workers {
		require.NoError(t, a.rdb.RPush(t.Context(), a.c.Prefix+":go", "go").Err())
	}
}

// loads returns how often the key was loaded, in all processes.
func (a *crowd) loads(t *testing.T) int {
	t.Helper()
	n, err := a.rdb.Get(t.Context(), a.c.Prefix+":loads").Int()
	require.NoError(t, err)
	return n
}

// Eight processes, each with thousands of callers, find a key nowhere: one of them
// loads it, once, and all answer what it brought.
func TestCacheStampede(t *testing.T) {
	a := gather(t, rush{LoadTimeout: rushPatience})
	a.rush(t)
	longest := time.Duration(0)
	for _, w := range a.workers {
		require.NoError(t, w.Wait())
	}
	require.Equal(t, 1, a.loads(t))
	values := map[string]int{}
	for _, r := range a.results {
		require.Empty(t, r.Errs)
		for v, n := range r.Values {
			values[v] += n
		}
		longest = max(longest, r.Longest)
	}
	require.Len(t, values, 1)
	for v, n := range values {
		require.Equal(t, 8*a.c.Goroutines, n)
		t.Logf("%d callers in 8 processes: %s; the longest wait was %v", n, v, longest.Round(time.Millisecond))
	}
}

// Where every process loads for itself the count shows it.
func TestCacheStampedeIsCounted(t *testing.T) {
	a := gather(t, rush{LoadTimeout: rushPatience, Mode: cache.AddRefill})
	a.rush(t)
	for _, w := range a.workers {
		require.NoError(t, w.Wait())
	}
	require.Greater(t, a.loads(t), 1)
}

// The process that loads is killed: when its lease is over another one loads, once,
// and nobody else has noticed more than a wait.
func TestCacheLoaderIsKilled(t *testing.T) {
	t.Parallel() // it waits most of the time
	const loadTimeout = 3 * time.Second
	a := gather(t, rush{LoadTimeout: loadTimeout, StuckLoad: 1})
	a.rush(t)
	var killed int
	select {
	case killed = <-a.loading:
	case <-time.After(rushPatience):
		t.Fatal("nobody loads")
	}
	begun := time.Now()
	a.workers[killed].Kill()
	longest := time.Duration(0)
	for i, w := range a.workers {
		if i == killed {
			require.ErrorContains(t, w.Wait(), "killed")
			continue
		}
		require.NoError(t, w.Wait())
	}
	took := time.Since(begun)
	require.Equal(t, 2, a.loads(t))
	values := map[string]int{}
	for i, r := range a.results {
		if i == killed {
			require.Empty(t, r.Values)
			continue
		}
		require.Empty(t, r.Errs)
		for v, n := range r.Values {
			values[v] += n
		}
		longest = max(longest, r.Longest)
	}
	require.Len(t, values, 1)
	for v, n := range values {
		require.Contains(t, v, "load 2, ")
		require.Equal(t, 7*a.c.Goroutines, n)
		t.Logf("process %d was killed; %d callers in 7 others: %s; the longest wait was %v, all was over after %v",
			killed, n, v, longest.Round(time.Millisecond), took.Round(time.Millisecond))
	}
	require.Less(t, longest, 5*(loadTimeout+time.Second+rushLoad), "the lease, and one load")
}

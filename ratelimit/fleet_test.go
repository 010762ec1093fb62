package ratelimit

import (
	"cmp"
	"context"
	"flag"
	"math/big"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the parallel ones wait nearly all the time; the command line has the last word
	chaos.Main(m, map[string]chaos.Job{"take": takeJob})
}

// A taking is the config of a process of the fleet.
type taking struct {
	Addr, Prefix string
	Goroutines   int
	Limit        Limit
	Lease, For   time.Duration
	Naive        bool
}

// taken is what a process was granted: when, in µs of the clock that the server and the
// processes have in common.
type taken struct {
	At, Units int64
	Left      int64 // in Redis, after it
	Doubt     int64 // At is up to so much later than the grant: not by the server's clock
}

// takeJob asks for all it can get, from many goroutines.
func takeJob(ctx context.Context, w *chaos.Worker) error {
	var c taking
	if err := w.Config(&c); err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.Addr})
	defer rdb.Close()
	l, err := New(rdb, []Limit{c.Limit}, Options{Prefix: c.Prefix, Lease: c.Lease, Timeout: 30 * time.Second})
	if err != nil {
		return err
	}
	ask := func() (taken, time.Duration, error) { return askForOne(ctx, l) }
	if c.Naive {
		ask = func() (taken, time.Duration, error) { return getThenSet(ctx, rdb, c) }
	}
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	end := time.Now().Add(c.For)
	for range c.Goroutines {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				got, retry, err := ask()
				if err == nil && got.Units > 0 {
					err = w.Report(got)
				}
				if err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
					return
				}
				if got.Units == 0 {
					_ = sleep(ctx, min(retry, 5*time.Millisecond))
				}
			}
		})
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return l.Close(ctx)
}

// askForOne is Allow with the server's time.
func askForOne(ctx context.Context, l *Limiter) (taken, time.Duration, error) {
	var a answer
	asked := time.Now().UnixMicro()
	if err := l.take(ctx, "hot", run{n: 1, k: 1}, &a); err != nil {
		return taken{}, 0, err
	}
	got := taken{At: a.now, Units: a.granted, Left: a.left}
	if a.source == FromLease {
		got.At, got.Left = time.Now().UnixMicro(), 0
		got.Doubt = got.At - asked
	}
	return got, time.Duration(a.us) * time.Microsecond, nil
}

// getThenSet is the negative control: the textbook limiter that reads, decides and
// writes, by the server's clock even.
func getThenSet(ctx context.Context, rdb *redis.Client, c taking) (taken, time.Duration, error) {
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		return taken{}, 0, err
	}
	tat, err := rdb.Get(ctx, c.Prefix+":naive").Int64()
	if err != nil && err != redis.Nil { //nolint:errorlint // exactly what the textbook does
		return taken{}, 0, err
	}
	unit := c.Limit.Period.Microseconds() / c.Limit.Rate
	tat = max(tat, now.UnixMicro()) + unit
	if wait := tat - now.UnixMicro() - c.Limit.Burst*unit; wait > 0 {
		return taken{}, time.Duration(wait) * time.Microsecond, nil
	}
	return taken{At: now.UnixMicro(), Units: 1}, 0, rdb.Set(ctx, c.Prefix+":naive", tat, time.Minute).Err()
}

// fleet runs 8 processes on one key for a while, kills one of them if asked, and
// returns what they were granted.
func fleet(t *testing.T, c taking, kill bool) (all []taken) {
	t.Helper()
	server := redistest.Server(t)
	c.Addr, c.Prefix = server.Addr(), redistest.Prefix(t)
	var mu sync.Mutex
	var workers []*chaos.Process
	for range 8 {
		workers = append(workers, chaos.Start(t, "take", c, func(g taken) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, g)
		}))
	}
	if kill {
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(all) > 100 }, time.Minute, time.Millisecond)
		workers[0].Kill()
		workers = workers[1:]
	}
	for _, w := range workers {
		require.NoError(t, w.Wait())
	}
	return all
}

// longest is how long the fleet tests run.
func longest() time.Duration {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		return 5 * time.Minute
	}
	return 3 * time.Second
}

// judge compares what a fleet was granted with the bound, which a lease makes larger
// by its time and the doubt of when its units were granted; and with what was there:
// the limit was full before the first grant, and something may be left after the last.
// What would have come back while it was full again, as nobody asked, is not missing.
func judge(t *testing.T, c taking, all []taken) (over, missing, share float64) {
	require.NotEmpty(t, all)
	slices.SortStableFunc(all, func(a, b taken) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(b.Left, a.Left)) })
	var sum, doubt int64
	grants := make([]grant, 0, len(all))
	first, last := all[0], all[len(all)-1]
	there, at := big.NewRat(c.Limit.Burst, 1), first.At
	for _, g := range all {
		if there.Add(there, c.Limit.refill(g.At-at)); there.Cmp(big.NewRat(c.Limit.Burst, 1)) > 0 {
			there.SetInt64(c.Limit.Burst)
		}
		there.Sub(there, big.NewRat(g.Units, 1))
		at, sum, doubt = g.At, sum+g.Units, max(doubt, g.Doubt)
		grants = append(grants, grant{g.At, g.Units})
	}
	missing, _ = there.Sub(there, big.NewRat(last.Left, 1)).Float64()
	over, _ = excess(c.Limit, grants).Float64()
	late, _ := c.Limit.refill(c.Lease.Microseconds() + doubt).Float64()
	if c.Lease == 0 {
		late = 0
	}
	share = float64(sum) / (float64(sum) + missing)
	t.Logf("%d processes' %d units in %v: %.1f beyond the bound, %.1f missing, doubt %d µs",
		8, sum, time.Duration(last.At-first.At)*time.Microsecond, over-late, missing, doubt)
	return over - late, missing, share
}

func TestFleet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]taking{
		"exact": {Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest()},
		"lease": {Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest(), Lease: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over, missing, share := judge(t, c, fleet(t, c, false))
			require.LessOrEqual(t, over, 0.0, "units beyond the bound")
			if c.Lease == 0 {
				require.Less(t, missing, 1.0, "what there is of a unit that has not come back yet")
				return
			}
			least := 0.99
			if c.For < time.Minute {
				least = 0.75 // one lease that a busy machine leaves to end is 2 % of a short run
			}
			require.GreaterOrEqual(t, share, least)
		})
	}
}

// A process that is killed takes no more with it than what it was doing.
func TestFleetWithDeath(t *testing.T) {
	t.Parallel()
	c := taking{Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest() / 2}
	over, missing, _ := judge(t, c, fleet(t, c, true))
	require.LessOrEqual(t, over, 0.0)
	require.Less(t, missing, float64(c.Goroutines)+1, "each had one call under way")
}

// The oracle catches a limiter that reads and then writes.
func TestFleetControl(t *testing.T) {
	c := taking{Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest() / 4, Naive: true}
	over, _, _ := judge(t, c, fleet(t, c, false))
	require.Greater(t, over, 100.0, "the oracle does not catch GET then SET")
}

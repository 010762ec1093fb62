package ratelimit

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
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

// taken is what a process was granted in a moment, in µs of the machine's clock.
type taken struct{ Asked, At, Units int64 }

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
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	end := time.Now().Add(c.For)
	for range c.Goroutines {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				asked := time.Now().UnixMicro()
				var r Result
				var err error
				if c.Naive {
					r, err = getThenSet(ctx, rdb, c)
				} else {
					r, err = l.Allow(ctx, "hot")
				}
				if err == nil && r.OK() {
					err = w.Report(taken{asked, time.Now().UnixMicro(), r.Granted})
				}
				if err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
					return
				}
				if !r.OK() {
					_ = sleep(ctx, min(r.RetryAfter, 5*time.Millisecond))
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

// getThenSet is the negative control: the textbook limiter that reads, decides and
// writes, by the server's clock even.
func getThenSet(ctx context.Context, rdb *redis.Client, c taking) (Result, error) {
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		return Result{}, err
	}
	tat, err := rdb.Get(ctx, c.Prefix+":naive").Int64()
	if err != nil && err != redis.Nil { //nolint:errorlint // exactly what the textbook does
		return Result{}, err
	}
	unit := c.Limit.Period.Microseconds() / c.Limit.Rate
	tat = max(tat, now.UnixMicro()) + unit
	if wait := tat - now.UnixMicro() - c.Limit.Burst*unit; wait > 0 {
		return Result{RetryAfter: time.Duration(wait) * time.Microsecond}, nil
	}
	return Result{Granted: 1}, rdb.Set(ctx, c.Prefix+":naive", tat, time.Minute).Err()
}

// fleet runs 8 processes on one key for a while, kills one of them if asked, and
// returns what they were granted, and what was still there in the end.
func fleet(t *testing.T, c taking, kill bool) (all []taken, rest int64) {
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
		require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(all) > 100 }, 30*time.Second, time.Millisecond)
		workers[0].Kill()
		workers = workers[1:]
	}
	for _, w := range workers {
		require.NoError(t, w.Wait())
	}
	r, err := open(t, server.Client(), Options{Prefix: c.Prefix}, c.Limit).Peek(t.Context(), "hot")
	require.NoError(t, err)
	return all, r.Remaining
}

// longest is how long the fleet tests run.
func longest() time.Duration {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		return 5 * time.Minute
	}
	return 3 * time.Second
}

// judge compares what a fleet was granted with the bound and with what was due. A
// grant lies somewhere between asking and being told: windows are judged by the
// clock of the machine with that much of doubt. What nobody had the time to ask for
// was not due.
func judge(c taking, all []taken, rest int64) (over, share float64) {
	var first, last, sum, doubt int64
	grants := make([]grant, 0, len(all))
	for _, g := range all {
		if first == 0 || g.Asked < first {
			first = g.Asked
		}
		last, sum = max(last, g.At), sum+g.Units
		doubt = max(doubt, g.At-g.Asked)
		grants = append(grants, grant{g.At, g.Units})
	}
	due := float64(c.Limit.Burst) + float64(c.Limit.Rate)*float64(last-first)/float64(c.Limit.Period.Microseconds())
	f, _ := excess(c.Limit, grants).Float64()
	allowed := float64(c.Limit.Rate) * (c.Lease + time.Duration(doubt)*time.Microsecond).Seconds() / c.Limit.Period.Seconds()
	return f - allowed, float64(sum) / (due - float64(rest))
}

func TestFleet(t *testing.T) {
	for name, c := range map[string]taking{
		"exact": {Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest()},
		"lease": {Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest(), Lease: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			all, rest := fleet(t, c, false)
			over, share := judge(c, all, rest)
			t.Logf("%.1f %% of what is due", 100*share)
			require.LessOrEqual(t, over, 0.0, "units beyond the bound")
			require.GreaterOrEqual(t, share, 0.99)
		})
	}
}

// A process that is killed takes no more with it than what it was doing.
func TestFleetWithDeath(t *testing.T) {
	c := taking{Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest() / 2}
	all, rest := fleet(t, c, true)
	over, share := judge(c, all, rest)
	require.LessOrEqual(t, over, 0.0)
	require.GreaterOrEqual(t, share, 0.98)
}

// The oracle catches a limiter that reads and then writes.
func TestFleetControl(t *testing.T) {
	c := taking{Goroutines: 8, Limit: PerSecond(200).WithBurst(400), For: longest() / 4, Naive: true}
	all, rest := fleet(t, c, false)
	over, _ := judge(c, all, rest)
	require.Greater(t, over, 100.0, "the oracle does not catch GET then SET")
}

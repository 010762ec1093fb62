package delayqueue

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // one of the parallel ones waits for leases to end; the command line has the last word
	chaos.Main(m, map[string]chaos.Job{"work": workUntilKilled})
}

// A worker is the config of a process that works.
type worker struct{ Addr, Prefix, Name string }

// killLease is that of the workers that get killed. One that lives and gets no processor
// for so long would lose its jobs too.
const killLease = 10 * time.Second

// workUntilKilled is the job of a worker process. It reports each start.
func workUntilKilled(ctx context.Context, w *chaos.Worker) error {
	var c worker
	if err := w.Config(&c); err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.Addr})
	defer rdb.Close()
	q, err := New(rdb, "orders", Options{Prefix: c.Prefix, Shards: 2, MaxCrashes: 100})
	if err != nil {
		return err
	}
	return q.Run(ctx, func(ctx context.Context, d *Delivery) error {
		now, err := rdb.Time(ctx).Result()
		if err != nil {
			return err
		}
		if err := w.Report(start{ID: d.ID, Due: d.Due.UnixMicro(), At: now.UnixMicro(), By: c.Name}); err != nil {
			return err
		}
		select {
		case <-time.After(rand.N(200 * time.Millisecond)):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, RunOptions{Lease: killLease, Backoff: func(int) time.Duration { return 0 }})
}

// Worker processes are killed while they work: every job runs, and none twice but those
// that the killed had started.
func TestKilledWorkers(t *testing.T) {
	t.Parallel()
	n, kills := 1500, 4
	if full() {
		n, kills = 100_000, 40
	}
	p := redistest.Server(t)
	prefix := redistest.Prefix(t)
	q := open(t, p.Client(), Options{Prefix: prefix, Shards: 2, MaxCrashes: 100})
	var mu sync.Mutex
	var starts []start
	killed := map[string]bool{}
	note := func(s start) {
		mu.Lock()
		defer mu.Unlock()
		starts = append(starts, s)
	}
	names := 0
	newWorker := func() (string, *chaos.Process) {
		names++
		name := fmt.Sprint("worker-", names)
		return name, chaos.Start(t, "work", worker{p.Addr(), prefix, name}, note)
	}
	workers := map[string]*chaos.Process{}
	for range 3 {
		name, w := newWorker()
		workers[name] = w
	}
	added := map[string]bool{}
	for i := range kills {
		jobs := make([]Job, n/kills)
		for k := 0; k < len(jobs); k += 1000 {
			part := jobs[k:min(k+1000, len(jobs))]
			for j := range part {
				part[j].Delay = rand.N(500 * time.Millisecond)
			}
			res, err := q.AddMany(t.Context(), part)
			require.NoError(t, err)
			for _, r := range res {
				require.NoError(t, r.Err)
				added[r.ID] = true
			}
		}
		reached := len(added) * (2*i + 1) / (2*i + 2)
		eventually(t, "work under way", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(starts) >= reached
		})
		for name, w := range workers { // any
			w.Kill()
			mu.Lock()
			killed[name] = true
			mu.Unlock()
			delete(workers, name)
			break
		}
		name, w := newWorker()
		workers[name] = w
	}
	require.Eventually(t, func() bool {
		st, err := q.Inspect(t.Context())
		return err == nil && st.Waiting+st.Running == 0
	}, 5*time.Minute, 20*time.Millisecond)
	for _, w := range workers {
		require.NoError(t, w.Stop())
	}
	require.Empty(t, judge(added, starts, killed))
	require.Greater(t, len(starts), len(added), "nothing was killed in the middle of a job")
	t.Logf("%d jobs, %d runs, %d workers killed", len(added), len(starts), len(killed))
	require.NotEmpty(t, judge(added, starts, nil), "the oracle sees the second runs")
	requireNoJob(t, p.Client(), q)
}

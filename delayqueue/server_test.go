package delayqueue

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// full tells whether the sizes that the package promises are run in full.
func full() bool { return os.Getenv("SPILLWAY_SOAK") == "1" }

// A start is one run of a job, on the server's clock.
type start struct {
	ID      string
	Due, At int64 // µs
	By      string
}

// judge compares what was added with what ran. A job may run twice only if it had
// been started by a worker that was killed.
func judge(added map[string]bool, starts []start, killed map[string]bool) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	runs := map[string][]start{}
	for _, s := range starts {
		if s.At < s.Due {
			fault("%s ran %d µs early", s.ID, s.Due-s.At)
		}
		if !added[s.ID] {
			fault("%s ran and was not added", s.ID)
		}
		runs[s.ID] = append(runs[s.ID], s)
	}
	for id := range added {
		r := runs[id]
		if len(r) == 0 {
			fault("%s was lost", id)
		}
		slices.SortFunc(r, func(a, b start) int { return cmp.Compare(a.At, b.At) })
		for i := 1; i < len(r); i++ {
			if !killed[r[i-1].By] {
				fault("%s ran again although %s was alive", id, r[i-1].By)
			}
		}
	}
	return faults
}

// newestFirst compares the order of starts by one worker, that took a backlog one
// by one, with that of their times.
func newestFirst(starts []start) (faults []string) {
	for i := 1; i < len(starts); i++ {
		if starts[i].Due < starts[i-1].Due {
			faults = append(faults, fmt.Sprintf("%s overtook an older job", starts[i-1].ID))
		}
	}
	return faults
}

// log notes starts by the server's clock.
type log struct {
	t   testing.TB
	rdb redis.UniversalClient

	mu     sync.Mutex
	starts []start
	n      chan struct{}
}

func newLog(t testing.TB, rdb redis.UniversalClient) *log {
	return &log{t: t, rdb: rdb, n: make(chan struct{}, 1<<20)}
}

func (l *log) handle(ctx context.Context, d *Delivery) error {
	now, err := l.rdb.Time(ctx).Result()
	if err != nil {
		// Where the server is away, the clock of the same machine will do.
		now = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts = append(l.starts, start{ID: d.ID, Due: d.Due.UnixMicro(), At: now.UnixMicro(), By: "us"})
	l.n <- struct{}{}
	return nil
}

func (l *log) wait(n int) {
	l.t.Helper()
	limit := time.After(2 * time.Minute)
	for i := range n {
		select {
		case <-l.n:
		case <-limit:
			require.FailNow(l.t, "jobs are missing", "%d of %d ran", i, n)
		}
	}
}

// Jobs all over a minute, from two producers to two workers: none early, none lost, none
// twice, no wake-up missed.
func TestManyJobs(t *testing.T) {
	n, over := 2000, 2*time.Second
	if full() {
		n, over = 100_000, time.Minute
	}
	p := redistest.Shared(t)
	prefix := redistest.Prefix(t)
	l := newLog(t, p.Client())
	var queues []*Queue
	for range 2 {
		q := open(t, p.Client(), Options{Prefix: prefix, Shards: 3})
		work(t, q, l.handle, RunOptions{})
		queues = append(queues, q)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	added := map[string]bool{}
	var mu sync.Mutex
	var producers sync.WaitGroup
	for g, q := range queues {
		rng := rand.New(rand.NewPCG(seed, uint64(g)))
		producers.Go(func() {
			for left := n / 2; left > 0; {
				jobs := make([]Job, min(left, 1+rng.IntN(200)))
				left -= len(jobs)
				for i := range jobs {
					jobs[i].Delay = time.Duration(rng.Int64N(int64(over)))
				}
				res, err := q.AddMany(t.Context(), jobs)
				if !(err == nil) {
					t.Errorf("add: %v", err)
					return
				}
				mu.Lock()
				for _, r := range res {
					added[r.ID] = true
				}
				mu.Unlock()
			}
		})
	}
	producers.Wait()
	l.wait(n)
	for _, q := range queues {
		eventually(t, "all acked", func() bool {
			st, err := q.Inspect(t.Context())
			return err == nil && st.Waiting+st.Running == 0
		})
		st := q.Stats()
		require.Zero(t, st.LostHints+st.Lost+st.Orphans+st.Failures, "%+v", st)
	}
	require.Empty(t, judge(added, l.starts, nil))
	requireNoJob(t, p.Client(), queues[0])
}

// What happens to the server and its connections while jobs run.
func TestTroubles(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(t *testing.T, p *redistest.Proc, rdb *redis.Client){
		"wake connection cut": func(t *testing.T, p *redistest.Proc, rdb *redis.Client) {
			n, err := rdb.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Result()
			require.NoError(t, err)
			require.NotZero(t, n)
		},
		"all connections cut": func(t *testing.T, p *redistest.Proc, rdb *redis.Client) {
			_, err := rdb.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Result()
			require.NoError(t, err)
		},
		"script flush": func(t *testing.T, p *redistest.Proc, rdb *redis.Client) {
			require.NoError(t, rdb.ScriptFlush(t.Context()).Err())
		},
		"restart": func(t *testing.T, p *redistest.Proc, rdb *redis.Client) {
			require.NoError(t, p.Restart(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := redistest.Server(t, "--appendonly", "yes", "--appendfsync", "always")
			l := newLog(t, p.Client())
			q := open(t, p.Client(), Options{})
			work(t, q, l.handle, RunOptions{})
			added := map[string]bool{}
			for i := range 300 {
				if i%100 == 50 {
					trouble(t, p, p.Client())
				}
				id, err := q.Add(t.Context(), Job{Delay: time.Duration(i%10) * 20 * time.Millisecond})
				require.NoError(t, err)
				added[id] = true
			}
			l.wait(300)
			eventually(t, "all acked", func() bool {
				st, err := q.Inspect(t.Context())
				return err == nil && st.Waiting+st.Running == 0
			})
			require.Empty(t, judge(added, l.starts, nil))
			// Wake-ups work again.
			_, err := q.Add(t.Context(), Job{})
			require.NoError(t, err)
			l.wait(1)
		})
	}
}

// All shards have their turn, though one has a backlog that its handlers cannot
// keep up with; and no more jobs are taken than there are slots.
func TestFairShards(t *testing.T) {
	q := open(t, redistest.Shared(t).Client(), Options{Shards: 4})
	busy := &q.shards[0]
	var jobs []Job
	for len(jobs) < 500 {
		if id := newID(); q.shardOf(id) == busy {
			jobs = append(jobs, Job{ID: id, Body: []byte("busy")})
		}
	}
	_, err := q.AddMany(t.Context(), jobs)
	require.NoError(t, err)
	const slots = 4
	var mu sync.Mutex
	others, most := 0, int64(0)
	done := make(chan int)
	busyRan := 0
	work(t, q, func(ctx context.Context, d *Delivery) error {
		st, err := q.Inspect(ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		most = max(most, st.Running)
		if string(d.Body) == "busy" {
			busyRan++
		} else if others++; others == 60 {
			done <- busyRan
		}
		return nil
	}, RunOptions{Concurrency: slots})
	for range 60 {
		id := newID()
		for q.shardOf(id) == busy {
			id = newID()
		}
		_, err := q.Add(t.Context(), Job{ID: id})
		require.NoError(t, err)
	}
	ran := <-done
	require.Less(t, ran, 400, "the others waited for the busy shard")
	mu.Lock()
	defer mu.Unlock()
	require.LessOrEqual(t, most, int64(slots))
}

// The oracles catch what the textbooks do.
func TestOraclesCatchNaiveQueues(t *testing.T) {
	rdb := redistest.Shared(t).Client()
	ctx := t.Context()
	schedule := func(key string, n int) map[string]bool {
		added := map[string]bool{}
		now, err := rdb.Time(ctx).Result()
		require.NoError(t, err)
		for i := range n {
			id := fmt.Sprint(i)
			added[id] = true
			require.NoError(t, rdb.ZAdd(ctx, key, redis.Z{Score: float64(now.UnixMilli() - int64(n-i)), Member: id}).Err())
		}
		return added
	}

	t.Run("pop, then work", func(t *testing.T) {
		key := redistest.Prefix(t)
		added := schedule(key, 20)
		l := newLog(t, rdb)
		for i := 0; ; i++ {
			popped, err := rdb.ZPopMin(ctx, key).Result()
			require.NoError(t, err)
			if len(popped) == 0 {
				break
			}
			if i == 7 {
				continue // killed between the two
			}
			require.NoError(t, l.handle(ctx, &Delivery{ID: popped[0].Member.(string), Due: time.UnixMilli(int64(popped[0].Score))}))
		}
		require.Len(t, judge(added, l.starts, map[string]bool{"us": true}), 1)
	})
	t.Run("ZREVRANGEBYSCORE", func(t *testing.T) {
		key := redistest.Prefix(t)
		schedule(key, 20)
		l := newLog(t, rdb)
		for {
			due, err := rdb.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: 1}).Result()
			require.NoError(t, err)
			if len(due) == 0 {
				break
			}
			require.NoError(t, rdb.ZRem(ctx, key, due[0].Member).Err())
			require.NoError(t, l.handle(ctx, &Delivery{ID: due[0].Member.(string), Due: time.UnixMilli(int64(due[0].Score))}))
		}
		require.Len(t, newestFirst(l.starts), 19)

		// And lets the queue pass.
		q := open(t, rdb, Options{})
		for i := range 20 {
			_, err := q.Add(ctx, Job{At: time.UnixMilli(int64(1000 + i*7%20))})
			require.NoError(t, err)
		}
		l = newLog(t, rdb)
		work(t, q, l.handle, RunOptions{Concurrency: 1})
		l.wait(20)
		require.Empty(t, newestFirst(l.starts))
	})
	t.Run("a local timer that is early", func(t *testing.T) {
		now := time.Now().UnixMicro()
		require.Len(t, judge(map[string]bool{"a": true}, []start{{ID: "a", Due: now + 1, At: now}}, nil), 1)
		require.Len(t, judge(map[string]bool{"a": true}, []start{{ID: "a", By: "w"}, {ID: "a", By: "w"}}, nil), 1)
	})
}

package counter

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	chaos.Main(m, map[string]chaos.Job{"like": like})
}

// A liking is the config of a process that likes its own object and one of all.
type liking struct {
	Addr, Prefix string
	ID           int64
	Seed         uint64
	Interval     time.Duration
	Chunk, Adds  int64 // likes between two reports, and in all; for ever if Adds is 0
}

// A liked is what such a process had added at a time.
type liked struct {
	Total int64
	At    time.Time
}

// like is the job: its replies get lost, and now and then it waits a moment.
func like(ctx context.Context, w *chaos.Worker) error {
	var cfg liking
	if err := w.Config(&cfg); err != nil {
		return err
	}
	faults := redistest.Faults{Seed: cfg.Seed}
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.02, Times: -1})
	opts := &redis.Options{Addr: cfg.Addr}
	faults.Options(opts)
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	c, err := New(rdb, posts, Options{Prefix: cfg.Prefix, Interval: cfg.Interval})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for total := int64(0); (total < cfg.Adds || cfg.Adds == 0) && ctx.Err() == nil; {
		for range cfg.Chunk {
			if err := c.Add(cfg.ID, "likes", 1); err != nil {
				return err
			}
			if err := c.Add(-1, []string{"views", "hot"}[rng.IntN(2)], 1); err != nil {
				return err
			}
		}
		total += cfg.Chunk
		if err := w.Report(liked{total, time.Now()}); err != nil {
			return err
		}
		<-pace.C
	}
	return c.Close(context.WithoutCancel(ctx))
}

// slack is by how long what a process added may be stored later than it should: some 30 ms
// do where a processor is free.
const slack = 5 * time.Second

// likers runs processes, kills some of them, and returns for each what it had added
// in the end and when the slack before it was killed; for the others these are equal.
func likers(t *testing.T, cfg liking, processes, kill int) (atLeast, reported []int64) {
	atLeast, reported = make([]int64, processes), make([]int64, processes)
	var wg sync.WaitGroup
	for p := range processes {
		mine := cfg
		mine.ID, mine.Seed = int64(p), cfg.Seed+uint64(p)
		if p < kill {
			mine.Adds = 0
		}
		wg.Go(func() {
			var all []liked
			enough := make(chan struct{})
			var once sync.Once
			worker := chaos.Start(t, "like", mine, func(l liked) {
				if all = append(all, l); l.Total >= cfg.Adds/2 && l.At.Sub(all[0].At) > slack+time.Second {
					once.Do(func() { close(enough) })
				}
			})
			if p >= kill {
				if err := worker.Wait(); err != nil {
					t.Error(err)
				}
				atLeast[p], reported[p] = cfg.Adds, all[len(all)-1].Total
				return
			}
			<-enough
			before := time.Now().Add(-slack)
			worker.Kill()
			reported[p] = all[len(all)-1].Total
			for _, l := range all {
				if l.At.Before(before) {
					atLeast[p] = l.Total
				}
			}
		})
	}
	wg.Wait()
	return atLeast, reported
}

// Eight processes whose replies get lost, three of which are killed: those that live
// are counted exactly, a killed one loses no more than an interval and what a lost
// reply delays. Ten million increments with SPILLWAY_SOAK=1.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	cfg := liking{Addr: redistest.Shared(t).Addr(), Prefix: redistest.Prefix(t), Seed: rand.Uint64(), Interval: 20 * time.Millisecond, Chunk: 100, Adds: 60_000}
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		cfg.Chunk, cfg.Adds = 2000, 1_200_000
	}
	t.Logf("seed %d", cfg.Seed)
	// A process that keeps everything to itself is found out.
	idle := cfg
	idle.Interval, idle.Prefix = time.Minute, redistest.Prefix(t)
	var control []int64
	var aside sync.WaitGroup
	aside.Go(func() { control, _ = likers(t, idle, 1, 1) })
	atLeast, reported := likers(t, cfg, 8, 3)
	aside.Wait()
	reader := newTestCounter(t, redistest.Shared(t).Client(), Options{Prefix: idle.Prefix})
	require.Less(t, get(t, reader, 0)["likes"], control[0])

	reader = newTestCounter(t, redistest.Shared(t).Client(), Options{Prefix: cfg.Prefix})
	low, high := int64(0), int64(0)
	for p := range atLeast {
		got := get(t, reader, int64(p))["likes"]
		if p >= 3 {
			assert.Equal(t, cfg.Adds, got, "process %d", p)
		}
		assert.NotZero(t, atLeast[p])
		assert.GreaterOrEqual(t, got, atLeast[p], "process %d", p)
		assert.LessOrEqual(t, got, reported[p]+2*cfg.Chunk, "process %d", p)
		low, high = low+atLeast[p], high+reported[p]+2*cfg.Chunk
	}
	all := get(t, reader, -1)
	assert.GreaterOrEqual(t, all["views"]+all["hot"], low, "what all of them counted")
	assert.LessOrEqual(t, all["views"]+all["hot"], high)
}

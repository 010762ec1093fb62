// Package countertest tests the cold store of counters on SQL databases: with those
// of counter itself, a consumer of counter would get their drivers.
package countertest

import (
	"context"
	"database/sql"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/counter"
	"github.com/spillway-go/spillway/counter/countersql"
	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqldb"
	"github.com/spillway-go/spillway/internal/sqltest"
)

func TestMain(m *testing.M) {
	if os.Getenv("SPILLWAY_CHAOS_JOB") != "" {
		chaos.Main(m, map[string]chaos.Job{"like": like})
	}
	sqltest.Main(m)
}

func newStore(t testing.TB, db sqltest.Database) *countersql.Store {
	t.Helper()
	require.NoError(t, countersql.Migrate(t.Context(), db.DB, db.Dialect))
	s, err := countersql.New(db.DB, db.Dialect)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		s := newStore(t, db)
		newStore(t, db) // Migrate twice is no error
		ctx := t.Context()
		for _, schema := range []string{"spillway:post", "名前 ?"} {
			for _, block := range []int64{math.MinInt64 >> 8, -1, 0, math.MaxInt64 >> 8} {
				b, err := s.Load(ctx, schema, block)
				require.NoError(t, err)
				require.Equal(t, counter.ColdBlock{}, b)
				first := counter.ColdBlock{Revision: 1, State: counter.Hot, Epoch: 1, Totals: []byte("x")}
				second := counter.ColdBlock{Revision: 2, State: counter.Leaving, Epoch: 1 << 50, Version: block, Totals: make([]byte, 32<<10)}
				second.Totals[1] = 0xff
				for _, step := range []struct {
					b     counter.ColdBlock
					saved bool
					want  counter.ColdBlock
				}{
					{second, false, counter.ColdBlock{}},
					{first, true, first},
					{counter.ColdBlock{Revision: 1, State: counter.Cold}, false, first},
					{counter.ColdBlock{Revision: 3, State: counter.Cold}, false, first},
					{second, true, second},
					{second, false, second},
				} {
					saved, err := s.Save(ctx, schema, block, step.b)
					require.NoError(t, err)
					require.Equal(t, step.saved, saved)
					b, err = s.Load(ctx, schema, block)
					require.NoError(t, err)
					require.Equal(t, step.want, b)
				}
			}
		}
		_, err := s.Save(ctx, strings.Repeat("x", 256), 1, counter.ColdBlock{Revision: 1})
		require.ErrorIs(t, err, counter.ErrInvalid)
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		_, err = s.Load(cancelled, "x", 1)
		require.ErrorIs(t, err, context.Canceled)
		_, err = s.Save(cancelled, "x", 1, counter.ColdBlock{Revision: 1})
		require.ErrorIs(t, err, context.Canceled)
	})
}

// Of those that save one revision at the same time one is told that it did.
func TestStoreConcurrent(t *testing.T) {
	t.Parallel()
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		s := newStore(t, db)
		for revision := int64(1); revision <= 10; revision++ {
			var saved atomic.Int64
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					ok, err := s.Save(t.Context(), "post", 1, counter.ColdBlock{Revision: revision, State: counter.Hot})
					if err != nil {
						t.Error(err)
					}
					if ok {
						saved.Add(1)
					}
				})
			}
			wg.Wait()
			require.Equal(t, int64(1), saved.Load())
		}
	})
}

var post = counter.Schema{Name: "post", Packed: true, Fields: []counter.Field{{Name: "likes"}}}

// chunk is how many likes there are between two reports.
const chunk = 10

// A liking is the config of a process that likes its own object, and moves blocks.
type liking struct {
	Addr, Prefix, Driver, DSN string
	Dialect                   sqldb.Dialect
	ID, Adds                  int64
	Seed                      uint64
}

// like is the job: replies get lost, and blocks are idle after a second.
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
	db, err := sql.Open(cfg.Driver, cfg.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := countersql.New(db, cfg.Dialect)
	if err != nil {
		return err
	}
	c, err := counter.New(rdb, post, counter.Options{Prefix: cfg.Prefix, Interval: 20 * time.Millisecond, Cold: store, ColdAfter: time.Second})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	// A seventh of the pauses, and the first, are long enough for the block to be idle.
	chunks := int(cfg.Adds / chunk)
	long := append(rng.Perm(chunks)[:chunks/7], 0)
	for i := range chunks {
		for range chunk {
			if _, err := c.AddSync(ctx, cfg.ID, "likes", 1); err != nil {
				return err
			}
		}
		if err := w.Report(int64(i+1) * chunk); err != nil {
			return err
		}
		pause := time.Millisecond
		if slices.Contains(long, i) {
			pause = 2500 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return c.Close(context.WithoutCancel(ctx))
}

// Processes that move each other's blocks out and back, some of them killed: what
// AddSync answered is there, and no more than what was asked for.
func TestMovesOfKilledProcesses(t *testing.T) {
	t.Parallel()
	adds := int64(150)
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		adds = 5000
	}
	db := sqltest.SQLite(t)
	store := newStore(t, db)
	driver, dsn := db.Names()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	proc, prefix := redistest.Shared(t), redistest.Prefix(t)
	const processes, kill = 5, 2
	var reported [processes]atomic.Int64
	var wg sync.WaitGroup
	for p := range processes {
		cfg := liking{proc.Addr(), prefix, driver, dsn, db.Dialect, int64(p) * 1000, adds, seed + uint64(p)}
		wg.Go(func() {
			half := make(chan struct{})
			worker := chaos.Start(t, "like", cfg, func(total int64) {
				if reported[p].Store(total); total == adds/2/chunk*chunk {
					close(half)
				}
			})
			if p < kill {
				<-half
				worker.Kill()
			} else if err := worker.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := counter.New(proc.Client(), post, counter.Options{Prefix: prefix, Cold: store})
	require.NoError(t, err)
	defer c.Close(t.Context())
	returns := int64(0)
	for p := range processes {
		v, err := c.Get(t.Context(), int64(p)*1000)
		require.NoError(t, err)
		told := reported[p].Load()
		assert.GreaterOrEqual(t, v["likes"], told, "process %d", p)
		if p < kill {
			assert.LessOrEqual(t, v["likes"], told+chunk, "process %d", p)
		} else {
			assert.Equal(t, adds, v["likes"], "process %d", p)
		}
		b, err := store.Load(t.Context(), prefix+":post", int64(p)*1000>>8)
		require.NoError(t, err)
		returns += b.Epoch - 1
	}
	t.Logf("blocks returned %d times", returns)
	assert.NotZero(t, returns)
}

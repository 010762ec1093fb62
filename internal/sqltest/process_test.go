package sqltest

import (
	"context"
	"database/sql"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/sqldb"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "6") // the parallel ones wait most of the time; the command line has the last word
	chaos.Main(Tests{m}, map[string]chaos.Job{"take": take})
}

// A taking is the config of a process that takes ids.
type taking struct {
	Driver, DSN string
	Dialect     sqldb.Dialect
	Mode        idgen.ClaimMode
	Options     idgen.Options
	Goroutines  int
	Each, Chunk int           // ids of a goroutine: in all, and between two reports
	Pause       time.Duration // after each report
}

// take is the job: goroutines that share a Segment report the ids they took.
func take(ctx context.Context, w *chaos.Worker) error {
	var cfg taking
	if err := w.Config(&cfg); err != nil {
		return err
	}
	db, err := sql.Open(cfg.Driver, cfg.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := idgen.SQLStore(db, cfg.Dialect, cfg.Mode)
	if err != nil {
		return err
	}
	s, err := idgen.NewSegment(store, "order", cfg.Options)
	if err != nil {
		return err
	}
	failed := make([]error, cfg.Goroutines)
	var wg sync.WaitGroup
	for g := range cfg.Goroutines {
		wg.Go(func() { failed[g] = takeChunks(ctx, w, s, cfg) })
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return s.Close(context.WithoutCancel(ctx))
}

func takeChunks(ctx context.Context, w *chaos.Worker, s *idgen.Segment, cfg taking) error {
	for left := cfg.Each; left > 0; {
		chunk := make([]int64, 0, cfg.Chunk)
		for range min(left, cfg.Chunk) {
			id, err := s.Next(ctx)
			if err != nil {
				return err
			}
			chunk = append(chunk, id)
		}
		left -= len(chunk)
		if err := w.Report(chunk); err != nil {
			return err
		}
		if cfg.Pause > 0 {
			<-time.After(cfg.Pause)
		}
	}
	return nil
}

// A book is what processes reported. Ids begin at 1 and are dense but for the holes,
// which is what its bitmap needs.
type book struct {
	mu           sync.Mutex
	seen         []uint64
	total, twice int
}

func (b *book) write(ids []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		for id>>6 >= int64(len(b.seen)) {
			b.seen = append(b.seen, make([]uint64, 1024)...)
		}
		bit := uint64(1) << (id & 63)
		if b.seen[id>>6]&bit != 0 {
			b.twice++
		}
		b.seen[id>>6] |= bit
		b.total++
	}
}

func takingFrom(db Database) taking {
	driver, dsn := db.Names()
	return taking{Driver: driver, DSN: dsn, Dialect: db.Dialect}
}

// Processes that share a database, some of them killed at a random moment, hand out
// no id twice. Ten million ids with SPILLWAY_SOAK=1.
func TestSegmentProcesses(t *testing.T) {
	processes, goroutines, each := 4, 16, 1000
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		processes, goroutines, each = 8, 64, 20_000
	}
	Each(t, func(t *testing.T, db Database) {
		idStore(t, db, idgen.Atomic)
		cfg := takingFrom(db)
		cfg.Options = idgen.Options{MinStep: 500, MaxStep: 5000}
		cfg.Goroutines, cfg.Each, cfg.Chunk = goroutines, each, 100
		began := time.Now()
		var b book
		var wg sync.WaitGroup
		for p := range processes + 2 {
			wg.Go(func() {
				reported, once := make(chan struct{}), sync.Once{}
				worker := chaos.Start(t, "take", cfg, func(ids []int64) {
					b.write(ids)
					once.Do(func() { close(reported) })
				})
				if p < processes {
					if err := worker.Wait(); err != nil {
						t.Error(err)
					}
					return
				}
				<-reported
				<-time.After(rand.N(20 * time.Millisecond))
				worker.Kill()
			})
		}
		wg.Wait()
		assert.Zero(t, b.twice)
		assert.GreaterOrEqual(t, b.total, processes*goroutines*each)
		t.Logf("%d ids of %d processes, 2 of them killed, in %v", b.total, processes+2, time.Since(began))
	})
}

// A taken is what one process reported.
type taken struct{ least, count int64 }

// kills lets processes take ids from db, lanes of them side by side, and kills each at a
// random point of doing so. It fails for an id that came twice. It returns how many
// numbers a killed one took with it on average, and the most that one did, which is
// known if there is one lane: then a process's ranges end where the next one's begin.
func kills(t *testing.T, db Database, cfg taking, lanes, each int) (mean, most int64) {
	t.Helper()
	_, err := db.Exec("DELETE FROM spillway_idgen")
	require.NoError(t, err)
	seed := rand.Uint64()
	var b book
	var wg sync.WaitGroup
	all := make([]taken, each) // of the first lane
	for lane := range lanes {
		rng := rand.New(rand.NewPCG(seed, uint64(lane)))
		wg.Go(func() {
			for i := range each {
				mine, got := cfg, taken{least: math.MaxInt64}
				mine.Each = math.MaxInt
				if rng.IntN(2) == 0 {
					mine.Mode = 1000
				}
				second, reports := make(chan struct{}), 0
				worker := chaos.Start(t, "take", mine, func(ids []int64) {
					b.write(ids)
					got.count += int64(len(ids))
					got.least = min(got.least, slices.Min(ids))
					if reports++; reports == 2 {
						close(second)
					}
				})
				<-second
				<-time.After(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
				worker.Kill()
				if lane == 0 {
					all[i] = got
				}
			}
		})
	}
	wg.Wait()
	var last int64
	require.NoError(t, db.QueryRow("SELECT max_id FROM spillway_idgen WHERE biz = 'order'").Scan(&last))
	mean = (last - int64(b.total)) / int64(lanes*each)
	if lanes == 1 {
		end := last
		for _, p := range slices.Backward(all) {
			begin := (p.least - 1) / cfg.Options.MinStep * cfg.Options.MinStep // of its first range
			most = max(most, end-begin-p.count)
			end = begin
		}
	}
	assert.Zero(t, b.twice, "seed %d", seed)
	assert.Greater(t, b.total, lanes*each*cfg.Chunk)
	t.Logf("%d ids of %d processes in %d lanes, all killed: %d numbers lost with each, seed %d; at most %d if in 1 lane",
		b.total, lanes*each, lanes, mean, seed, most)
	return mean, most
}

// Processes that are killed at random points, between two ids and in the middle of a
// claim, lose the numbers they hold and nothing else: Options.Segments ranges at most.
// Nobody gets them again.
func TestSegmentKilledAtRandomPoints(t *testing.T) {
	t.Parallel()
	each := 4
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		each = 100
	}
	const step = 500
	setting := func(db Database, segments int, pause time.Duration) (cfg taking, bound int64) {
		idStore(t, db, idgen.Atomic)
		cfg = takingFrom(db)
		cfg.Options = idgen.Options{Segments: segments, MinStep: step, MaxStep: step}
		cfg.Goroutines, cfg.Chunk, cfg.Pause = 4, 10, pause
		return cfg, 2*step + int64(cfg.Goroutines*cfg.Chunk) // and what was not reported yet
	}
	Each(t, func(t *testing.T, db Database) {
		t.Parallel()
		for _, pause := range []time.Duration{0, time.Millisecond} { // waiting for claims, and mostly not
			cfg, bound := setting(db, 2, pause)
			mean, _ := kills(t, db, cfg, 3, each)
			assert.LessOrEqual(t, mean, bound)
			_, most := kills(t, db, cfg, 1, each)
			assert.LessOrEqual(t, most, bound)
		}
	})
	// Who holds more than two ranges is found out, unless it dies before it holds them.
	db := SQLite(t)
	cfg, bound := setting(db, 8, time.Millisecond)
	most := int64(0)
	for tries := 0; most <= bound && tries < 20; tries++ {
		_, most = kills(t, db, cfg, 1, 4)
	}
	assert.Greater(t, most, bound)
}

//go:build unix

package sqltest

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/idgen"
)

// A watched store counts claims, and how many are in flight at once.
type watched struct {
	idgen.Store
	claims, inFlight, most atomic.Int64
}

func (w *watched) Claim(ctx context.Context, biz string, step int64) (idgen.Range, error) {
	w.claims.Add(1)
	now := w.inFlight.Add(1)
	defer w.inFlight.Add(-1)
	for most := w.most.Load(); now > most && !w.most.CompareAndSwap(most, now); most = w.most.Load() {
	}
	return w.Store.Claim(ctx, biz, step)
}

// An outage is a database, and a way to take it away; what that returns brings it back.
type outage struct {
	name string
	open func(t *testing.T) (db Database, cut func() (back func()))
}

func onMariaDB(cut func(t *testing.T, s *server) (back func())) func(t *testing.T) (Database, func() func()) {
	return func(t *testing.T) (Database, func() func()) {
		requireMariaDB(t)
		s, err := startMariaDB("--innodb-flush-log-at-trx-commit=2") // a claim survives the server if the commit does
		require.NoError(t, err)
		return s.mariaDB(t), func() func() { return cut(t, s) }
	}
}

var outages = []outage{
	{"SQLite, locked", func(t *testing.T) (Database, func() func()) {
		db := SQLite(t)
		return db, func() func() {
			other, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = other.ExecContext(t.Context(), "BEGIN EXCLUSIVE")
			require.NoError(t, err)
			return func() {
				_, err := other.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
				require.NoError(t, err)
				require.NoError(t, other.Close())
			}
		}
	}},
	{"MariaDB, stopped", onMariaDB(func(t *testing.T, s *server) func() {
		require.NoError(t, s.cmd.Process.Signal(syscall.SIGSTOP))
		return func() { require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT)) }
	})},
	{"MariaDB, killed", onMariaDB(func(t *testing.T, s *server) func() {
		s.end()
		return func() { require.NoError(t, s.start()) }
	})},
}

// The database is locked, its server stopped, or killed and started again, under a Segment
// that hands out 2,000 ids a second: for as long as Runway says, no call waits, one claim is
// in flight, and claims come with backoff; afterwards ids go on by themselves, above
// those of before. 10 s with SPILLWAY_SOAK=1.
func TestSegmentServerOutage(t *testing.T) {
	t.Parallel()
	const rate = 2000
	long := 2 * time.Second
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		long = 10 * time.Second
	}
	// A range that lasts for 1.2 outages: with the rest of one and all of the next,
	// Runway is up to 1.5, and the next one is asked for within it.
	step := int64(rate * long.Seconds() * 1.2)
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			db, cut := o.open(t)
			store := &watched{Store: idStore(t, db, idgen.Atomic)}
			var log bytes.Buffer
			ids, err := idgen.NewSegment(store, "order", idgen.Options{MinStep: step, MaxStep: step, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			last := int64(0)
			take := func(ctx context.Context) {
				t.Helper()
				id, err := ids.Next(ctx)
				require.NoError(t, err)
				require.Greater(t, id, last)
				last = id
			}
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			// pace takes ids at the rate for d at most, and until done says so, which is asked
			// when as many were taken as the rate wants, however late that is.
			pace := func(ctx context.Context, d time.Duration, done func() bool) {
				t.Helper()
				for began, n := time.Now(), 0; ; <-tick.C {
					passed := time.Since(began)
					for ; float64(n) < min(passed, d).Seconds()*rate; n++ {
						take(ctx)
					}
					if passed >= d || done() {
						return
					}
				}
			}
			runway := time.Duration(0)
			warm := time.Now().Add(1500 * time.Millisecond) // the rate is known
			pace(t.Context(), time.Minute, func() bool {
				runway = ids.Runway() // taking the database away takes time, in which no id is taken
				return time.Now().After(warm) && runway > long*12/10
			})

			back := sync.OnceFunc(cut())
			t.Cleanup(back)
			claims, waits := store.claims.Load(), ids.Stats().Waits
			began := time.Now()
			ended, cancel := context.WithCancel(t.Context())
			cancel() // turns every wait into an error
			pace(ended, runway*9/10, func() bool { return false })
			lasted := time.Since(began)
			assert.Eventually(t, func() bool { return store.claims.Load() > claims }, time.Minute, time.Millisecond, "the next range was asked for")
			tried := store.claims.Load() - claims
			waits = ids.Stats().Waits - waits
			back()
			t.Logf("server away for %v of a runway of %v: 0 errors, %d claims tried, %d ids left", lasted, runway, tried, ids.Stats().Left)
			assert.GreaterOrEqual(t, lasted, long)
			assert.Zero(t, waits)
			assert.LessOrEqual(t, tried, 12+int64(lasted/time.Second), "with backoff")

			for range 2 * step {
				take(t.Context())
			}
			require.NoError(t, ids.Close(t.Context()))
			assert.EqualValues(t, 1, store.most.Load(), "claims in flight")
			assert.NotContains(t, log.String(), idgen.ErrWentBack.Error())
			r, err := store.Claim(t.Context(), "order", 1)
			require.NoError(t, err)
			assert.Greater(t, r.First, last)
		})
	}
}

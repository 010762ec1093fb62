package stocktest

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqldb"
	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // they wait most of the time; the command line has the last word
	chaos.Main(sqltest.Tests{M: m}, map[string]chaos.Job{"journal": runJournal})
}

const (
	sale   = "sale"
	linger = 5 * time.Millisecond
)

// A journaler is the config of a process that brings the journal into SQL.
type journaler struct {
	Addr, Prefix, Driver, DSN string
	Buckets                   int
	Dialect                   sqldb.Dialect
	Naive                     bool // takes the sink that the oracle has to catch
}

// runJournal is the job of such a process. It reports each batch.
func runJournal(ctx context.Context, w *chaos.Worker) error {
	var c journaler
	if err := w.Config(&c); err != nil {
		return err
	}
	db, err := sql.Open(c.Driver, c.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := stocksql.New(db, c.Dialect)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: c.Addr})
	defer rdb.Close()
	a, err := stock.New(rdb, sale, stock.Options{
		Prefix: c.Prefix, Buckets: c.Buckets, Linger: linger, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	var sink stock.Sink = reporting{store, w}
	if c.Naive {
		sink = reporting{naive{store, db}, w}
	}
	return a.RunJournal(ctx, sink)
}

// reporting tells the parent of every batch, before and after it is applied.
type reporting struct {
	stock.Sink
	w *chaos.Worker
}

func (r reporting) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if err := r.w.Report(len(batch)); err != nil {
		return err
	}
	err := r.Sink.Apply(ctx, journal, from, batch)
	return errors.Join(err, r.w.Report(-len(batch)))
}

// naive brings the journal into SQL as one would at first: rows, then checkpoint.
type naive struct {
	*stocksql.Store
	db *sql.DB
}

func (n naive) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if err := n.meet(ctx); err != nil {
		return err
	}
	for _, e := range batch {
		for _, l := range linesOf(e) {
			if _, err := n.db.ExecContext(ctx, `INSERT INTO naive (entry, kind, order_id, user_id, sku, qty, reason) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				e.ID, l.Kind, l.Order, l.User, l.SKU, l.Qty, l.Reason); err != nil {
				return err
			}
		}
	}
	pause(ctx, 50*time.Millisecond) // as a database on another machine takes
	_, err := n.db.ExecContext(ctx, `UPDATE spillway_stock_journal SET position = ?`, batch[len(batch)-1].ID)
	return err
}

// meet waits until two processes have something to write.
func (n naive) meet(ctx context.Context) error {
	if _, err := n.db.ExecContext(ctx, `INSERT OR IGNORE INTO present VALUES (?)`, os.Getpid()); err != nil {
		return err
	}
	for present := 0; ctx.Err() == nil; pause(ctx, 5*time.Millisecond) {
		err := n.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM present`).Scan(&present)
		if err != nil || present == 2 {
			return err
		}
	}
	return ctx.Err()
}

// A keeper is a sink that takes nothing, so that the journal stays whole. It stops when
// it was offered each.
type keeper struct {
	journals int
	mu       *sync.Mutex
	seen     map[string]bool
	stop     func()
}

func (keeper) Name() string { return "keeper" }

func (k keeper) Checkpoint(context.Context, string) (string, error) { return "", nil }

func (k keeper) Apply(_ context.Context, journal, _ string, _ []stock.Entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen[journal] = true
	if len(k.seen) == k.journals {
		k.stop()
	}
	return errors.New("no")
}

// open loads a sale whose journal is kept whole.
func open(t *testing.T, rdb redis.UniversalClient, prefix string, opts stock.Options, loaded map[string]int64) *stock.Activity {
	t.Helper()
	opts.Prefix = prefix
	if opts.Linger == 0 {
		opts.Linger = linger
	}
	a, err := stock.New(rdb, sale, opts)
	require.NoError(t, err)
	require.NoError(t, a.Load(t.Context(), loaded))
	ctx, stop := context.WithCancel(t.Context())
	require.NoError(t, a.RunJournal(ctx, keeper{max(1, opts.Buckets), new(sync.Mutex), map[string]bool{}, stop}))
	return a
}

// newStore returns a store on the database, with its tables.
func newStore(t testing.TB, db sqltest.Database) *stocksql.Store {
	t.Helper()
	require.NoError(t, stocksql.Migrate(t.Context(), db.DB, db.Dialect))
	require.NoError(t, stocksql.Migrate(t.Context(), db.DB, db.Dialect), "again")
	s, err := stocksql.New(db.DB, db.Dialect)
	require.NoError(t, err)
	return s
}

// sell places orders from several goroutines, and pays, cancels or forgets them, until
// ctx ends or each goroutine has made n.
func sell(ctx context.Context, a *stock.Activity, goroutines, n int, name string) error {
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			for i := 0; i < n && ctx.Err() == nil && errs[g] == nil; i++ {
				errs[g] = sellOne(ctx, a, fmt.Sprintf("%s-%d-%d", name, g, i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func sellOne(ctx context.Context, a *stock.Activity, id string) error {
	ref := stock.Ref{ID: id, User: "user of " + id}
	place := a.Deduct
	if rand.IntN(2) == 0 {
		place = a.Reserve
	}
	items := []stock.Item{{SKU: []string{"tea", "cup"}[rand.IntN(2)], Qty: 1 + rand.Int64N(3)}}
	if rand.IntN(4) == 0 {
		items = []stock.Item{{SKU: "cup", Qty: 1}, {SKU: "tea", Qty: 1}}
	}
	_, err := place(ctx, stock.Order{ID: id, User: ref.User, Items: items, Partial: rand.IntN(4) == 0})
	if err != nil {
		return unless(ctx, err, stock.ErrInsufficient, stock.ErrContended)
	}
	switch rand.IntN(4) {
	case 0:
		_, err = a.Confirm(ctx, ref)
	case 1:
		_, err = a.Cancel(ctx, ref, "no money")
	}
	return unless(ctx, err, stock.ErrExpired)
}

// unless returns err if it is not what may happen: allowed, or the end of ctx.
func unless(ctx context.Context, err error, allowed ...error) error {
	for _, a := range allowed {
		if errors.Is(err, a) {
			return nil
		}
	}
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// Two processes bring one journal into SQL, and are killed again and again.
func TestKilledJournals(t *testing.T) {
	t.Parallel() // it waits most of the time
	kills, orders := 8, 150
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		kills, orders = 100, 5000
	}
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		t.Parallel()
		store := newStore(t, db)
		p := redistest.Server(t)
		prefix := redistest.Prefix(t)
		a := open(t, p.Client(), prefix, stock.Options{Hold: 200 * time.Millisecond}, map[string]int64{"tea": 2000, "cup": 1 << 40})
		runCtx, stop := context.WithCancel(t.Context())
		var background sync.WaitGroup
		background.Go(func() { _ = a.Run(runCtx) })
		t.Cleanup(func() { stop(); background.Wait() })

		config := journaler{Addr: p.Addr(), Prefix: prefix, Dialect: db.Dialect}
		config.Driver, config.DSN = db.Names()
		sold := make(chan error, 1)
		go func() { sold <- sell(t.Context(), a, 8, orders, "o") }()
		batches := killPairs(t, config, kills, 4)
		require.NoError(t, <-sold)
		awaitHolds(t, a)
		last := chaos.Start(t, "journal", config, func(int) {})
		awaitSunk(t, a, store)
		require.NoError(t, last.Stop())
		e := collect(t, a, db)
		for _, f := range judge(e) {
			t.Error(f)
		}
		t.Logf("%d rows, %d batches of processes that were killed", len(e.rows), batches)
	})
}

// killPairs starts two processes that bring the journal into SQL, and kills them at a
// random point of their work, after one of them has told of up to most batches; again
// and again. It returns how many it was told of.
func killPairs(t *testing.T, config journaler, kills, most int) (batches int) {
	t.Helper()
	for range kills {
		var ps [2]*chaos.Process
		reports := make(chan int, 1<<16)
		for i := range ps {
			ps[i] = chaos.Start(t, "journal", config, func(n int) {
				if i == 0 {
					reports <- n
				}
			})
		}
		for range 1 + rand.IntN(most) {
			select {
			case <-reports:
				batches++
			case <-time.After(300 * time.Millisecond): // the other one is faster, or nothing is left
			}
		}
		ps[0].Kill()
		ps[1].Kill()
	}
	return batches
}

// awaitHolds waits until no hold is open any more.
func awaitHolds(t *testing.T, a *stock.Activity) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := a.Inspect(t.Context())
		return err == nil && info.OpenHolds == 0
	}, time.Minute, 10*time.Millisecond, "holds never come back")
}

// awaitSunk waits until SQL has the whole journal.
func awaitSunk(t *testing.T, a *stock.Activity, store *stocksql.Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := a.Inspect(t.Context())
		at, err2 := store.Checkpoint(t.Context(), sale)
		return err == nil && err2 == nil && info.LastEntry == at
	}, 60*time.Second, 10*time.Millisecond, "the journal does not get into SQL")
}

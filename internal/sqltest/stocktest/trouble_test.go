package stocktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// A troubled sink is a database that is down, slow, or whose answers get lost.
type troubled struct {
	stock.Sink
	down atomic.Bool
	slow atomic.Int64 // time.Duration
	lost atomic.Int64 // answers
}

func (s *troubled) Checkpoint(ctx context.Context, journal string) (string, error) {
	if s.down.Load() {
		return "", errors.New("down")
	}
	return s.Sink.Checkpoint(ctx, journal)
}

func (s *troubled) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if s.down.Load() {
		return errors.New("down")
	}
	pause(ctx, time.Duration(s.slow.Load()))
	err := s.Sink.Apply(ctx, journal, from, batch)
	if err == nil && (s.lost.Load() == 0 || rand.IntN(4) == 0) { // one at least
		s.lost.Add(1)
		return errors.New("committed, but nobody heard of it")
	}
	return err
}

// sellBesideTrouble sells while two processes write to a SQL that is away for a while and
// loses answers: orders do not notice. When it returns, SQL has all; sunk waits for that.
func sellBesideTrouble(t *testing.T, a *stock.Activity, store *stocksql.Store, sunk func(t *testing.T, a *stock.Activity, store *stocksql.Store)) {
	t.Helper()
	away := 500 * time.Millisecond
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		away = 10 * time.Second
	}
	sinks := [2]*troubled{{Sink: store}, {Sink: store}}
	var runs []*running
	for _, s := range sinks {
		runs = append(runs, run(t, a, s))
	}
	require.NoError(t, sell(t.Context(), a, 8, 50, "before"))
	for _, s := range sinks {
		s.down.Store(true)
	}
	began := time.Now()
	require.NoError(t, sell(t.Context(), a, 8, 50, "meanwhile"))
	pause(t.Context(), away-time.Since(began))
	for _, s := range sinks {
		s.down.Store(false)
	}
	require.NoError(t, sell(t.Context(), a, 8, 50, "after"))
	sunk(t, a, store)
	for _, r := range runs {
		require.NoError(t, r.end())
	}
	require.Positive(t, sinks[0].lost.Load()+sinks[1].lost.Load())
	d, err := a.Reconcile(t.Context(), store)
	require.NoError(t, err)
	require.True(t, d.None(), "%+v", d)
}

func TestTroubledSQL(t *testing.T) {
	t.Parallel() // it waits most of the time
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		t.Parallel()
		store := newStore(t, db)
		a := open(t, redistest.Server(t).Client(), redistest.Prefix(t), stock.Options{}, map[string]int64{"tea": 1000, "cup": 1 << 40})
		sellBesideTrouble(t, a, store, awaitSunk)
		e := collect(t, a, db)
		for _, f := range judge(e) {
			t.Error(f)
		}
		t.Run("the oracle sees", func(t *testing.T) { seesTampering(t, e) })
		t.Run("Reconcile sees", func(t *testing.T) {
			for _, tamper := range []string{
				`UPDATE spillway_stock_level SET left_units = left_units - 1 WHERE sku = ?`,
				`DELETE FROM spillway_stock_row WHERE kind = 'deduct' AND sku = ?`,
			} {
				_, err := db.Exec(db.Dialect.Rebind(tamper), []byte("cup"))
				require.NoError(t, err)
				d, err := a.Reconcile(t.Context(), store)
				require.NoError(t, err)
				require.Contains(t, d.Redis, "cup")
				require.NotContains(t, d.Redis, "tea")
			}
		})
	})
}

// seesTampering: what each kind of bug would leave behind is a fault.
func seesTampering(t *testing.T, e evidence) {
	for name, tamper := range map[string]func(e *evidence){
		"a row twice":               func(e *evidence) { e.rows = append(slices.Clone(e.rows), e.rows[10]) },
		"a row too few":             func(e *evidence) { e.rows = slices.Delete(slices.Clone(e.rows), 10, 11) },
		"two rows in another order": func(e *evidence) { e.rows = slices.Clone(e.rows); e.rows[10], e.rows[11] = e.rows[11], e.rows[10] },
		"a level":                   func(e *evidence) { e.sql = map[string]units{"tea": {}, "cup": e.sql["cup"]} },
	} {
		x := e
		tamper(&x)
		require.NotEmpty(t, judge(x), name)
	}
}

// Negative control: a sink that writes rows and then its checkpoint, the way one would
// at first, has rows twice as soon as two processes run.
func TestOracleCatchesTheNaiveSink(t *testing.T) {
	db := sqltest.SQLite(t)
	newStore(t, db)
	_, err := db.Exec(`CREATE TABLE naive (entry TEXT, kind TEXT, order_id TEXT, user_id TEXT, sku TEXT, qty INTEGER, reason TEXT)`)
	require.NoError(t, err)
	_, err = db.Exec(`CREATE TABLE present (pid INTEGER PRIMARY KEY)`)
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO spillway_stock_journal VALUES (?, '0-0')`, []byte(sale))
	require.NoError(t, err)
	p := redistest.Server(t)
	prefix := redistest.Prefix(t)
	a := open(t, p.Client(), prefix, stock.Options{}, map[string]int64{"tea": 1000, "cup": 1 << 40})
	require.NoError(t, sell(t.Context(), a, 4, 200, "o"))
	config := journaler{Addr: p.Addr(), Prefix: prefix, Dialect: db.Dialect, Naive: true}
	config.Driver, config.DSN = db.Names()
	for range 2 {
		chaos.Start(t, "journal", config, func(int) {})
	}
	require.Eventually(t, func() bool {
		info, err := a.Inspect(t.Context())
		var at string
		err2 := db.QueryRow(`SELECT position FROM spillway_stock_journal`).Scan(&at)
		return err == nil && err2 == nil && info.LastEntry == at
	}, time.Minute, 10*time.Millisecond)
	e := collect(t, a, db)
	rows, err := db.Query(`SELECT entry, kind, order_id, user_id, sku, qty, reason FROM naive ORDER BY rowid`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var l line
		require.NoError(t, rows.Scan(&l.Entry, &l.Kind, &l.Order, &l.User, &l.SKU, &l.Qty, &l.Reason))
		e.rows = append(e.rows, l)
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, e.rows)
	faults := strings.Join(judge(e), "\n")
	require.Contains(t, faults, "twice in SQL")
}

// The last guard: rows that would leave less than nothing are refused, whoever brings
// them, nothing of their batch is there, and a batch comes in once.
func TestStoreGuards(t *testing.T) {
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		ctx := t.Context()
		s := newStore(t, db)
		tea := func(n int64) []stock.Item { return []stock.Item{{SKU: "tea", Qty: n}} }
		entry := func(id string, ops ...stock.Op) []stock.Entry {
			return []stock.Entry{{ID: id, At: time.UnixMilli(5), Ops: ops}}
		}
		load := entry("1-0", stock.Op{Kind: stock.OpLoad, Items: append(tea(3), stock.Item{SKU: "\x00\xff Ä'", Qty: 0})})
		require.NoError(t, s.Apply(ctx, sale, "0-0", load))
		require.ErrorIs(t, s.Apply(ctx, sale, "0-0", load), stock.ErrMoved)
		require.ErrorIs(t, s.Apply(ctx, sale, "7-0", load), stock.ErrMoved)
		sold := entry("2-0", stock.Op{Kind: stock.OpDeduct, ID: "o1", User: "u", Items: tea(2)})
		require.NoError(t, s.Apply(ctx, sale, "1-0", sold))
		more := entry("3-0", stock.Op{Kind: stock.OpDeduct, ID: "o2", User: "u", Items: tea(2)})
		require.ErrorIs(t, s.Apply(ctx, sale, "2-0", more), stock.ErrForked)
		at, err := s.Checkpoint(ctx, sale)
		require.NoError(t, err)
		require.Equal(t, "2-0", at)
		// The same id again is not counted again, and what is new beside it is. Ids and
		// SKUs are bytes: case counts.
		again := entry("3-0", stock.Op{Kind: stock.OpDeduct, ID: "o1", User: "u", Items: tea(2)},
			stock.Op{Kind: stock.OpDeduct, ID: "O1", User: "u", Items: tea(1)})
		require.NoError(t, s.Apply(ctx, sale, "2-0", again))
		at, kept, counted, err := s.Levels(ctx, sale)
		require.NoError(t, err)
		require.Equal(t, "3-0", at)
		require.Equal(t, map[string]stock.Level{"tea": {Sold: 3}, "\x00\xff Ä'": {}}, kept)
		require.Equal(t, kept, counted)
		// Another activity in the same tables.
		require.NoError(t, s.Apply(ctx, "other", "0-0", load))
		_, kept, _, err = s.Levels(ctx, "other")
		require.NoError(t, err)
		require.EqualValues(t, 3, kept["tea"].Left)
		require.NoError(t, s.Apply(ctx, sale, "x", nil))
		require.ErrorIs(t, s.Apply(ctx, strings.Repeat("j", 256), "0-0", load), stock.ErrInvalid)
		_, err = s.Checkpoint(ctx, strings.Repeat("j", 256))
		require.ErrorIs(t, err, stock.ErrInvalid)
	})
}

// How long an order takes while SQL is quick, and while each batch takes 200 ms there.
func TestLatencyBesideSlowSQL(t *testing.T) {
	p := redistest.Server(t)
	for _, slow := range []time.Duration{0, 200 * time.Millisecond} {
		db := sqltest.SQLite(t)
		sink := &troubled{Sink: newStore(t, db)}
		sink.slow.Store(int64(slow))
		rdb := redis.NewClient(&redis.Options{Addr: p.Addr()})
		defer rdb.Close()
		a := open(t, rdb, redistest.Prefix(t), stock.Options{}, map[string]int64{"tea": 1 << 40})
		r := run(t, a, sink)
		var took []time.Duration
		for i := range 1000 {
			began := time.Now()
			_, err := a.Deduct(t.Context(), stock.Order{ID: fmt.Sprint(i), User: "u", Items: []stock.Item{{SKU: "tea", Qty: 1}}})
			require.NoError(t, err)
			took = append(took, time.Since(began))
		}
		require.NoError(t, r.end())
		slices.Sort(took)
		t.Logf("a batch takes %v more in SQL: an order takes %v, 99 of 100 less than %v", slow, took[len(took)/2], took[len(took)*99/100])
	}
}

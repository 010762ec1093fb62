//go:build unix

package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// errSold is what a row in SQL answers that has no unit left.
var errSold = errors.New("sold out")

// sqlStock is the stock of a shop that keeps it in a row of MariaDB, whose log is
// flushed once a second: on a real disk each commit takes longer.
func sqlStock(deduct func(ctx context.Context, db *sql.DB) error) func(*testing.B, int) {
	return func(b *testing.B, goroutines int) {
		db := sqltest.MariaDB(b)
		db.SetMaxOpenConns(goroutines)
		db.SetMaxIdleConns(goroutines)
		ctx := b.Context()
		for _, statement := range []string{
			`CREATE TABLE stock (sku VARCHAR(64) PRIMARY KEY, units BIGINT NOT NULL, version BIGINT NOT NULL) ENGINE=InnoDB`,
			fmt.Sprintf(`INSERT INTO stock VALUES ('%s', %d, 0)`, sku, units),
		} {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := drive(goroutines, 20*goroutines, func(int) error { return db.PingContext(ctx) }); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		cpu := cpuTime(b)
		b.ReportAllocs()
		b.ResetTimer()
		latencies, err := drive(goroutines, b.N, func(int) error { return deduct(ctx, db.DB) })
		b.StopTimer()
		cpu = cpuTime(b) - cpu
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "CPU-ns/op")
		b.ReportMetric(latencies.quantile(0.99).Seconds()*1e3, "p99-ms")
		var left int64
		if err := db.QueryRowContext(ctx, `SELECT units FROM stock`).Scan(&left); err != nil || left != units-int64(b.N) {
			b.Fatalf("%d units left (%v), want %d", left, err, units-int64(b.N))
		}
	}
}

// rowLock reads the row for update, looks, and writes it back.
func rowLock(ctx context.Context, db *sql.DB) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	var left int64
	if err := tx.QueryRowContext(ctx, `SELECT units FROM stock WHERE sku = ? FOR UPDATE`, sku).Scan(&left); err != nil {
		return err
	}
	if left < 1 {
		return errSold
	}
	if _, err := tx.ExecContext(ctx, `UPDATE stock SET units = ? WHERE sku = ?`, left-1, sku); err != nil {
		return err
	}
	return tx.Commit()
}

// conditionalUpdate takes a unit with one statement, if there is one.
func conditionalUpdate(ctx context.Context, db *sql.DB) error {
	n, err := affected(db.ExecContext(ctx, `UPDATE stock SET units = units - 1 WHERE sku = ? AND units >= 1`, sku))
	if err == nil && n == 0 {
		err = errSold
	}
	return err
}

// versionCAS reads the row, and writes it back unless somebody else has: then it
// begins again, since the order is to be sold.
func versionCAS(ctx context.Context, db *sql.DB) error {
	for {
		var left, version int64
		if err := db.QueryRowContext(ctx, `SELECT units, version FROM stock WHERE sku = ?`, sku).Scan(&left, &version); err != nil {
			return err
		}
		if left < 1 {
			return errSold
		}
		n, err := affected(db.ExecContext(ctx, `UPDATE stock SET units = ?, version = version + 1 WHERE sku = ? AND version = ?`, left-1, sku, version))
		if err != nil || n == 1 {
			return err
		}
	}
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// BenchmarkStockJournal brings a journal of orders of one item, sold by 64 goroutines,
// into SQL; an operation is a row. Selling is not in the time.
func BenchmarkStockJournal(b *testing.B) {
	for _, row := range []struct {
		name string
		open func(testing.TB) sqltest.Database
	}{
		{"sqlite", sqltest.SQLite}, {"mariadb", sqltest.MariaDB}, {"postgresql", sqltest.PostgreSQL},
	} {
		b.Run("spillway/db="+row.name, func(b *testing.B) {
			rdb, db, ctx := newClient(b), row.open(b), b.Context()
			if err := stocksql.Migrate(ctx, db.DB, db.Dialect); err != nil {
				b.Fatal(err)
			}
			store, err := stocksql.New(db.DB, db.Dialect)
			if err != nil {
				b.Fatal(err)
			}
			a := open(b, rdb, stock.Options{Linger: time.Millisecond, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}, units)
			if _, err := drive(64, b.N, func(i int) error {
				_, err := a.Deduct(ctx, order(i))
				return err
			}); err != nil {
				b.Fatal(err)
			}
			info, err := a.Inspect(ctx)
			if err != nil {
				b.Fatal(err)
			}
			run, stop := context.WithCancel(ctx)
			defer stop()
			cpu := cpuTime(b)
			b.ReportAllocs()
			b.ResetTimer()
			err = a.RunJournal(run, &until{Store: store, last: info.LastEntry, stop: stop})
			b.StopTimer()
			cpu = cpuTime(b) - cpu
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "CPU-ns/op")
			var rows int
			if err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM spillway_stock_row WHERE kind = 'deduct'`).Scan(&rows); err != nil || rows != b.N {
				b.Fatalf("%d rows (%v), want %d", rows, err, b.N)
			}
		})
	}
}

// until is a store that stops when it has the entry last.
type until struct {
	*stocksql.Store
	last string
	stop func()
}

func (u *until) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	err := u.Store.Apply(ctx, journal, from, batch)
	if err == nil && batch[len(batch)-1].ID == u.last {
		u.stop()
	}
	return err
}

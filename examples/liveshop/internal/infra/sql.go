package infra

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"

	"github.com/spillway-go/spillway/idgen"
)

// openSQL opens the database that dsn names, behind a guard.
func (e *Env) openSQL(ctx context.Context, dsn string) error {
	connector, err := e.connector(dsn)
	if err != nil {
		return fmt.Errorf("-db: %w", err)
	}
	e.guard = newGuard(connector, e.Log, e.Metrics)
	e.DB = sql.OpenDB(e.guard)
	conns := 32
	if e.Dialect == idgen.SQLite {
		e.guard.oneWriter()
		conns = 8 // all but one of those that write wait
	}
	e.DB.SetMaxOpenConns(conns)
	e.DB.SetMaxIdleConns(conns)
	if err := e.DB.PingContext(ctx); err != nil {
		return errors.Join(fmt.Errorf("database: %w", err), e.DB.Close())
	}
	return nil
}

func (e *Env) connector(dsn string) (driver.Connector, error) {
	if file, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		e.Dialect = idgen.SQLite
		// WAL lets the servers share the file. A transaction takes the write lock at once:
		// one that reads first and then wants it would be refused, not made to wait.
		return sqlite.NewConnector("file:" + file +
			"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate")
	}
	e.Dialect = idgen.MySQL
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.InterpolateParams = true // one round trip a statement instead of three
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = 2*time.Second, 5*time.Second, 5*time.Second
	return mysql.NewConnector(cfg)
}

// Tx runs f in a transaction, in which statements see what others have committed.
// When the database chose it as the victim of a deadlock it runs f again, three times
// in all. After an error of the commit itself the outcome is unknown.
func (e *Env) Tx(ctx context.Context, f func(tx *sql.Tx) error) (err error) {
	for range 3 {
		if err = e.tx(ctx, f); !deadlock(err) {
			return err
		}
	}
	return err
}

func (e *Env) tx(ctx context.Context, f func(tx *sql.Tx) error) error {
	var opts *sql.TxOptions
	if e.Dialect == idgen.MySQL {
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	tx, err := e.DB.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func deadlock(err error) bool {
	refused := new(mysql.MySQLError)
	return errors.As(err, &refused) && (refused.Number == 1213 || refused.Number == 1205)
}

// Migrate creates tables: CREATE TABLE IF NOT EXISTS statements that both databases
// understand, with keys inside the statement. Texts are compared byte by byte.
func (e *Env) Migrate(ctx context.Context, tables ...string) error {
	for _, statement := range tables {
		if e.Dialect == idgen.MySQL {
			// The default collation would take "A" for "a", and unique keys with it.
			statement += " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
		}
		if _, err := e.DB.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(strings.SplitN(statement, "(", 2)[0]), err)
		}
	}
	return nil
}

// Index creates an index that a query needs, unless it is there.
func (e *Env) Index(ctx context.Context, name, table, columns string) error {
	statement := "CREATE INDEX IF NOT EXISTS "
	if e.Dialect == idgen.MySQL {
		statement = "CREATE INDEX " // MySQL knows no IF NOT EXISTS here
	}
	_, err := e.DB.ExecContext(ctx, statement+name+" ON "+table+" ("+columns+")")
	if refused := new(mysql.MySQLError); errors.As(err, &refused) && refused.Number == 1061 {
		return nil
	}
	return err
}

// InsertNew returns a statement that inserts a row, or affects none if a unique key
// is taken.
func (e *Env) InsertNew(table string, columns ...string) string {
	return e.InsertAll(1, table, columns...)
}

// InsertAll is InsertNew of so many rows, of which it leaves out those that are taken.
func (e *Env) InsertAll(rows int, table string, columns ...string) string {
	verb, end := "INSERT INTO ", " ON CONFLICT DO NOTHING"
	if e.Dialect == idgen.MySQL {
		verb, end = "INSERT IGNORE INTO ", ""
	}
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	return verb + table + " (" + strings.Join(columns, ", ") + ") VALUES " + row + strings.Repeat(", "+row, rows-1) + end
}

package stocksql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/spillway-go/spillway/internal/sqldb"
	"github.com/spillway-go/spillway/stock"
)

// A Dialect is the SQL that a database speaks.
type Dialect = sqldb.Dialect

// The dialects: MySQL 5.7 and MariaDB 10.2, PostgreSQL 9.5, SQLite 3.24, or newer.
const (
	MySQL      Dialect = sqldb.MySQL
	PostgreSQL Dialect = sqldb.PostgreSQL
	SQLite     Dialect = sqldb.SQLite
)

// A Store is the journals of any number of activities in a SQL database: a stock.Sink
// and a stock.Ledger. Methods may be called from many goroutines and processes.
type Store struct {
	db      *sql.DB
	dialect Dialect
}

// maxJournal is the longest name of an activity that a Store takes, in bytes.
const maxJournal = 255

// schema is the statements of the package comment, for any dialect: BYTES(n) stands
// for its type of up to n bytes as they are.
const schema = `CREATE TABLE IF NOT EXISTS spillway_stock_journal (
	journal  BYTES(255)  NOT NULL PRIMARY KEY,
	position VARCHAR(41) NOT NULL
);
CREATE TABLE IF NOT EXISTS spillway_stock_level (
	journal    BYTES(255) NOT NULL,
	sku        BYTES(128) NOT NULL,
	left_units BIGINT NOT NULL,
	held_units BIGINT NOT NULL,
	sold_units BIGINT NOT NULL,
	PRIMARY KEY (journal, sku)
);
CREATE TABLE IF NOT EXISTS spillway_stock_row (
	journal    BYTES(255)  NOT NULL,
	entry_ms   BIGINT      NOT NULL,
	entry_seq  BIGINT      NOT NULL,
	op         INT         NOT NULL,
	item       INT         NOT NULL,
	kind       VARCHAR(16) NOT NULL,
	order_id   BYTES(256)  NOT NULL,
	user_id    BYTES(256)  NOT NULL,
	sku        BYTES(128)  NOT NULL,
	qty        BIGINT      NOT NULL,
	left_diff  BIGINT      NOT NULL,
	held_diff  BIGINT      NOT NULL,
	sold_diff  BIGINT      NOT NULL,
	partial    INT         NOT NULL,
	reason     BYTES(256)  NOT NULL,
	at_ms      BIGINT      NOT NULL,
	hold_ms    BIGINT      NOT NULL,
	PRIMARY KEY (journal, entry_ms, entry_seq, op, item),
	UNIQUE (journal, order_id, kind, sku)
)`

// Migrate creates the tables that are not there. The package comment has the
// statements.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect) error {
	if err := check(db, dialect); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(inDialect(schema, dialect), ";\n") {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("stocksql: create tables: %w", err)
		}
	}
	return nil
}

func inDialect(schema string, d Dialect) string {
	if d == MySQL {
		return strings.ReplaceAll(schema, "BYTES(", "VARBINARY(")
	}
	name := "BYTEA"
	if d == SQLite {
		name = "BLOB"
	}
	for _, n := range []string{"255", "256", "128"} {
		schema = strings.ReplaceAll(schema, "BYTES("+n+")", name)
	}
	return schema
}

// New returns a store on the tables that Migrate created.
func New(db *sql.DB, dialect Dialect) (*Store, error) {
	if err := check(db, dialect); err != nil {
		return nil, err
	}
	return &Store{db, dialect}, nil
}

func check(db *sql.DB, dialect Dialect) error {
	if db == nil {
		return fmt.Errorf("%w: db is nil", stock.ErrInvalid)
	}
	if !dialect.Known() {
		return fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", stock.ErrInvalid, dialect)
	}
	return nil
}

// Name returns "sql".
func (s *Store) Name() string { return "sql" }

// Checkpoint returns the id of the last entry of the journal that was applied, "" if
// none was. One statement.
func (s *Store) Checkpoint(ctx context.Context, journal string) (string, error) {
	if err := checkJournal(journal); err != nil {
		return "", err
	}
	position, err := s.position(ctx, s.db, journal)
	if err != nil {
		return "", fmt.Errorf("stocksql: checkpoint of %q: %w", journal, err)
	}
	return position, nil
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) position(ctx context.Context, q querier, journal string) (position string, err error) {
	err = q.QueryRowContext(ctx, s.dialect.Rebind(
		`SELECT position FROM spillway_stock_journal WHERE journal = ?`), []byte(journal)).Scan(&position)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return position, err
}

func checkJournal(journal string) error {
	if len(journal) > maxJournal {
		return fmt.Errorf("%w: the name of the activity has %d bytes, want at most %d", stock.ErrInvalid, len(journal), maxJournal)
	}
	return nil
}

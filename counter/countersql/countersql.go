package countersql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/spillway-go/spillway/counter"
	"github.com/spillway-go/spillway/internal/sqldb"
)

// A Dialect is the SQL that a database speaks.
type Dialect = sqldb.Dialect

// The dialects: MySQL 5.7 and MariaDB 10.2, PostgreSQL 9.5, SQLite 3.24, or newer.
const (
	MySQL      Dialect = sqldb.MySQL
	PostgreSQL Dialect = sqldb.PostgreSQL
	SQLite     Dialect = sqldb.SQLite
)

// maxSchema is the longest name of a schema with its prefix, in bytes.
const maxSchema = 255

// Migrate creates the table if it is not there.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect) error {
	name, blob, ok := "VARCHAR(255)", "", true
	switch dialect {
	case MySQL:
		name, blob = name+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "MEDIUMBLOB"
	case PostgreSQL:
		blob = "BYTEA"
	case SQLite:
		blob = "BLOB"
	default:
		ok = false
	}
	if !ok || db == nil {
		return invalid(db, dialect)
	}
	_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS spillway_counter (
		schema_name `+name+`, block BIGINT, revision BIGINT NOT NULL, state SMALLINT NOT NULL,
		epoch BIGINT NOT NULL, version BIGINT NOT NULL, totals `+blob+` NOT NULL,
		PRIMARY KEY (schema_name, block))`)
	if err != nil {
		return fmt.Errorf("counter: create table spillway_counter: %w", err)
	}
	return nil
}

// A Store is a counter.ColdStore on the table spillway_counter. Methods may be called
// from many goroutines and processes.
type Store struct {
	db      *sql.DB
	dialect Dialect
}

// New returns the store on a database that Migrate has prepared. The caller closes db.
func New(db *sql.DB, dialect Dialect) (*Store, error) {
	if db == nil || !dialect.Known() {
		return nil, invalid(db, dialect)
	}
	return &Store{db, dialect}, nil
}

func invalid(db *sql.DB, dialect Dialect) error {
	if db == nil {
		return fmt.Errorf("%w: db is nil", counter.ErrInvalid)
	}
	return fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", counter.ErrInvalid, dialect)
}

// Load is that of counter.ColdStore.
func (s *Store) Load(ctx context.Context, schema string, block int64) (b counter.ColdBlock, err error) {
	err = s.db.QueryRowContext(ctx, s.dialect.Rebind(
		`SELECT revision, state, epoch, version, totals FROM spillway_counter WHERE schema_name = ? AND block = ?`), schema, block).
		Scan(&b.Revision, &b.State, &b.Epoch, &b.Version, &b.Totals)
	if errors.Is(err, sql.ErrNoRows) {
		return counter.ColdBlock{}, nil
	}
	if err != nil {
		return counter.ColdBlock{}, fmt.Errorf("counter: load block %d of %q: %w", block, schema, err)
	}
	return b, nil
}

// Save is that of counter.ColdStore. A schema's name may have 255 bytes with the prefix.
func (s *Store) Save(ctx context.Context, schema string, block int64, b counter.ColdBlock) (saved bool, err error) {
	if len(schema) > maxSchema {
		return false, fmt.Errorf("%w: schema of %d bytes, want at most %d", counter.ErrInvalid, len(schema), maxSchema)
	}
	if b.Totals == nil {
		b.Totals = []byte{} // a NULL otherwise
	}
	var res sql.Result
	if b.Revision == 1 {
		res, err = s.db.ExecContext(ctx, s.dialect.InsertNew("spillway_counter",
			"schema_name", "block", "revision", "state", "epoch", "version", "totals"),
			schema, block, b.Revision, int(b.State), b.Epoch, b.Version, b.Totals)
	} else {
		res, err = s.db.ExecContext(ctx, s.dialect.Rebind(
			`UPDATE spillway_counter SET revision = ?, state = ?, epoch = ?, version = ?, totals = ?
			WHERE schema_name = ? AND block = ? AND revision = ?`),
			b.Revision, int(b.State), b.Epoch, b.Version, b.Totals, schema, block, b.Revision-1)
	}
	if err != nil {
		return false, fmt.Errorf("counter: save block %d of %q: %w", block, schema, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

package idgen

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/spillway-go/spillway/internal/sqldb"
)

// A Dialect is the SQL that a database speaks.
type Dialect = sqldb.Dialect

// The dialects: MySQL 5.7 and MariaDB 10.2, PostgreSQL 9.5, SQLite 3.35, or newer.
const (
	MySQL      Dialect = sqldb.MySQL
	PostgreSQL Dialect = sqldb.PostgreSQL
	SQLite     Dialect = sqldb.SQLite
)

// A ClaimMode is how SQLStore takes a range. Any positive number is the number of
// tries of an optimistic claim.
type ClaimMode int

// The modes. Stores of both modes may work on one table at the same time.
const (
	// Atomic takes a range with one statement that moves the counter and reads it.
	Atomic ClaimMode = 0
	// Optimistic reads the counter and its version, and moves it if the version is
	// still the same; else it tries again, up to 16 times. For databases behind
	// something that forbids what Atomic needs; see the package comment for how many
	// tries n processes need.
	Optimistic ClaimMode = 16
)

const maxTries = 1000

// Migrate creates the table of SQLStore if it is not there. The package comment has
// the statement.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect) error {
	create, ok := map[Dialect]string{
		MySQL: `CREATE TABLE IF NOT EXISTS spillway_idgen (
			biz VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY,
			max_id BIGINT NOT NULL, version BIGINT NOT NULL)`,
		PostgreSQL: `CREATE TABLE IF NOT EXISTS spillway_idgen (
			biz VARCHAR(128) PRIMARY KEY, max_id BIGINT NOT NULL, version BIGINT NOT NULL)`,
		SQLite: `CREATE TABLE IF NOT EXISTS spillway_idgen (
			biz TEXT PRIMARY KEY, max_id INTEGER NOT NULL, version INTEGER NOT NULL)`,
	}[dialect]
	if !ok {
		return fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", ErrInvalid, dialect)
	}
	if _, err := db.ExecContext(ctx, create); err != nil {
		return fmt.Errorf("idgen: create table spillway_idgen: %w", err)
	}
	return nil
}

// SQLStore returns a Store on the table spillway_idgen of db, which Migrate creates.
// A biz gets its row with its first claim. One statement a claim, two if optimistic,
// each in a transaction of its own.
func SQLStore(db *sql.DB, dialect Dialect, mode ClaimMode) (Store, error) {
	if db == nil {
		return nil, fmt.Errorf("%w: db is nil", ErrInvalid)
	}
	if !dialect.Known() {
		return nil, fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", ErrInvalid, dialect)
	}
	if mode < 0 || mode > maxTries {
		return nil, fmt.Errorf("%w: mode %d, want Atomic, Optimistic or 1 to %d tries", ErrInvalid, mode, maxTries)
	}
	return &sqlStore{db, dialect, int(mode)}, nil
}

type sqlStore struct {
	db      *sql.DB
	dialect Dialect
	tries   int
}

func (s *sqlStore) Claim(ctx context.Context, biz string, step int64) (Range, error) {
	if err := checkClaim(biz, step); err != nil {
		return Range{}, err
	}
	claim := s.returning
	switch {
	case s.tries > 0:
		claim = s.optimistic
	case s.dialect == MySQL:
		claim = s.lastInsertID
	}
	last, err := claim(ctx, biz, step)
	if err != nil {
		return Range{}, fmt.Errorf("idgen: claim %d of biz %q: %w", step, biz, err)
	}
	return Range{First: last - step + 1, Count: step}, nil
}

// returning claims with one statement. A counter that would leave its 63 bits is not
// moved: SQLite would go on in floating point.
func (s *sqlStore) returning(ctx context.Context, biz string, step int64) (last int64, err error) {
	err = s.db.QueryRowContext(ctx, s.dialect.Rebind(
		`INSERT INTO spillway_idgen (biz, max_id, version) VALUES (?, ?, 1)
		ON CONFLICT (biz) DO UPDATE SET max_id = spillway_idgen.max_id + excluded.max_id, version = spillway_idgen.version + 1
		WHERE spillway_idgen.max_id <= ? RETURNING max_id`), biz, step, math.MaxInt64-step).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrExhausted
	}
	return last, err
}

// lastInsertID is returning for MySQL, which answers an UPDATE with nothing but
// counts and the argument of LAST_INSERT_ID. Reading the row in a second statement
// would read what another process made of it.
func (s *sqlStore) lastInsertID(ctx context.Context, biz string, step int64) (int64, error) {
	for created := false; ; created = true {
		res, err := s.db.ExecContext(ctx,
			`UPDATE spillway_idgen SET max_id = LAST_INSERT_ID(max_id + ?), version = version + 1 WHERE biz = ? AND max_id <= ?`,
			step, biz, math.MaxInt64-step)
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		switch {
		case err != nil:
			return 0, err
		case n == 1:
			return res.LastInsertId()
		case created:
			return 0, ErrExhausted
		}
		if err := s.create(ctx, biz); err != nil {
			return 0, err
		}
	}
}

func (s *sqlStore) create(ctx context.Context, biz string) error {
	_, err := s.db.ExecContext(ctx, s.dialect.InsertNew("spillway_idgen", "biz", "max_id", "version"), biz, 0, 0)
	return err
}

// optimistic claims by compare and swap on the version. The numbers are this
// process's only if its UPDATE changed the row that it had read.
func (s *sqlStore) optimistic(ctx context.Context, biz string, step int64) (int64, error) {
	for range s.tries {
		var at, version int64
		err := s.db.QueryRowContext(ctx, s.dialect.Rebind(
			`SELECT max_id, version FROM spillway_idgen WHERE biz = ?`), biz).Scan(&at, &version)
		if errors.Is(err, sql.ErrNoRows) {
			err = s.create(ctx, biz) // and the version is 0
		}
		switch {
		case err != nil:
			return 0, err
		case at > math.MaxInt64-step:
			return 0, ErrExhausted
		}
		res, err := s.db.ExecContext(ctx, s.dialect.Rebind(
			`UPDATE spillway_idgen SET max_id = ?, version = version + 1 WHERE biz = ? AND version = ?`), at+step, biz, version)
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		if n == 1 {
			return at + step, nil
		}
		pause := time.NewTimer(rand.N(5 * time.Millisecond))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return 0, context.Cause(ctx)
		}
	}
	return 0, fmt.Errorf("%w: %d", ErrContended, s.tries)
}

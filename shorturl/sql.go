package shorturl

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// Migrate creates the table of SQLStore, spillway_links, and its index, if they are
// not there.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect) error {
	text := func(n int) string { return fmt.Sprintf("VARCHAR(%d)", n) }
	byOwner, index := "", "CREATE INDEX IF NOT EXISTS spillway_links_owner ON spillway_links (owner, code)"
	switch dialect {
	case MySQL:
		// Codes that differ in case are different, and MySQL knows no CREATE INDEX IF NOT EXISTS.
		text = func(n int) string { return fmt.Sprintf("VARCHAR(%d) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", n) }
		byOwner, index = ", INDEX spillway_links_owner (owner, code)", ""
	case PostgreSQL:
		// List compares codes byte by byte, whatever the database's collation is.
		text = func(n int) string { return fmt.Sprintf(`VARCHAR(%d) COLLATE "C"`, n) }
	case SQLite:
	default:
		return fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", ErrInvalid, dialect)
	}
	create := "CREATE TABLE IF NOT EXISTS spillway_links (code " + text(64) + " PRIMARY KEY, url " + text(maxURL) + " NOT NULL, owner " + text(128) +
		" NOT NULL, digest " + text(64) + " NULL UNIQUE, created BIGINT NOT NULL, expires BIGINT NOT NULL, max_clicks BIGINT NOT NULL, " +
		"clicks BIGINT NOT NULL, flags INT NOT NULL" + byOwner + ")"
	for _, statement := range []string{create, index} {
		if statement == "" {
			continue
		}
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("shorturl: create table spillway_links: %w", err)
		}
	}
	return nil
}

// SQLStore returns a Store on the table spillway_links of db, which Migrate creates.
// One statement a call, two for Count, and for an Insert that finds its digest taken;
// each in a transaction of its own.
func SQLStore(db *sql.DB, dialect Dialect) (Store, error) {
	if db == nil {
		return nil, fmt.Errorf("%w: db is nil", ErrInvalid)
	}
	if !dialect.Known() {
		return nil, fmt.Errorf("%w: dialect %d, want MySQL, PostgreSQL or SQLite", ErrInvalid, dialect)
	}
	return &sqlStore{db, dialect}, nil
}

type sqlStore struct {
	db      *sql.DB
	dialect Dialect
}

// The bits of flags.
const (
	flagPermanent = 1 << iota
	flagPassQuery
	flagDisabled // the highest, so that >= finds it
)

const selectLink = "SELECT code, url, owner, created, expires, max_clicks, clicks, flags FROM spillway_links WHERE "

func (s *sqlStore) Insert(ctx context.Context, l Link, digest string) (Link, error) {
	n, err := s.exec(ctx, s.dialect.InsertNew("spillway_links",
		"code", "url", "owner", "digest", "created", "expires", "max_clicks", "clicks", "flags"),
		l.Code, l.URL, l.Owner, sql.NullString{String: digest, Valid: digest != ""},
		millis(l.Created), millis(l.Expires), l.MaxClicks, l.Clicks, flags(l))
	if err != nil || n == 1 {
		return l, err
	}
	// One of the two unique keys was taken: the database decided the race.
	if digest != "" {
		if winner, err := s.Find(ctx, digest); !errors.Is(err, ErrNotFound) {
			return winner, err
		}
	}
	return Link{}, ErrTaken
}

func (s *sqlStore) Get(ctx context.Context, code string) (Link, error) {
	return scan(s.db.QueryRowContext(ctx, s.dialect.Rebind(selectLink+"code = ?"), code))
}

func (s *sqlStore) Find(ctx context.Context, digest string) (Link, error) {
	return scan(s.db.QueryRowContext(ctx, s.dialect.Rebind(selectLink+"digest = ?"), digest))
}

func (s *sqlStore) Update(ctx context.Context, l Link) error {
	keep := 0
	if keepsDigest(l) {
		keep = 1
	}
	// digest first: MySQL evaluates assignments in order and would compare the new url.
	n, err := s.exec(ctx, s.dialect.Rebind(`UPDATE spillway_links SET
		digest = CASE WHEN url = ? AND 1 = CAST(? AS DECIMAL) THEN digest ELSE NULL END,
		url = ?, expires = ?, max_clicks = ?, flags = CASE WHEN flags >= ? THEN CAST(? AS DECIMAL) ELSE CAST(? AS DECIMAL) END WHERE code = ?`),
		l.URL, keep, l.URL, millis(l.Expires), l.MaxClicks, flagDisabled, flags(l)|flagDisabled, flags(l), l.Code)
	if err != nil || n == 1 {
		return err
	}
	// MySQL counts no row that was the same already.
	_, err = s.Get(ctx, l.Code)
	return err
}

func (s *sqlStore) Delete(ctx context.Context, code string) error {
	_, err := s.exec(ctx, s.dialect.Rebind("DELETE FROM spillway_links WHERE code = ?"), code)
	return err
}

func (s *sqlStore) List(ctx context.Context, owner, after string, limit int) ([]Link, error) {
	where, args := "owner = ?", []any{owner}
	if s.dialect == MySQL { // where "ann " = "ann" holds
		where, args = where+" AND LENGTH(owner) = ?", append(args, len(owner))
	}
	args = append(args, after, limit)
	rows, err := s.db.QueryContext(ctx, s.dialect.Rebind(selectLink+where+" AND code > ? ORDER BY code LIMIT ?"), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Link
	for rows.Next() {
		l, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, rows.Err()
}

// Count lets the database decide who has the last click.
func (s *sqlStore) Count(ctx context.Context, code string, now time.Time) (Link, error) {
	n, err := s.exec(ctx, s.dialect.Rebind(`UPDATE spillway_links SET clicks = clicks + 1 WHERE code = ?
		AND (max_clicks = 0 OR clicks < max_clicks) AND (expires = 0 OR expires > ?) AND flags < ?`),
		code, now.UnixMilli(), flagDisabled)
	if err != nil {
		return Link{}, err
	}
	l, err := s.Get(ctx, code)
	if err == nil && n == 0 {
		return Link{}, ErrGone
	}
	return l, err
}

func (s *sqlStore) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func scan(row interface{ Scan(dest ...any) error }) (Link, error) {
	var l Link
	var created, expires int64
	var bits int
	err := row.Scan(&l.Code, &l.URL, &l.Owner, &created, &expires, &l.MaxClicks, &l.Clicks, &bits)
	if errors.Is(err, sql.ErrNoRows) {
		return Link{}, ErrNotFound
	}
	l.Created = time.UnixMilli(created).UTC()
	if expires != 0 {
		l.Expires = time.UnixMilli(expires).UTC()
	}
	l.Permanent, l.PassQuery, l.Disabled = bits&flagPermanent != 0, bits&flagPassQuery != 0, bits&flagDisabled != 0
	return l, err
}

func flags(l Link) (bits int) {
	if l.Permanent {
		bits |= flagPermanent
	}
	if l.PassQuery {
		bits |= flagPassQuery
	}
	if l.Disabled {
		bits |= flagDisabled
	}
	return bits
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

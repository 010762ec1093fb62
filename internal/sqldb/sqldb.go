// Package sqldb is what differs between the SQL databases that Spillway's stores
// run on. Statements are written with ? for arguments, in the SQL that all three
// share, and no driver is imported: callers open their own *sql.DB.
package sqldb

import (
	"strconv"
	"strings"
)

// A Dialect is the SQL that a database speaks.
type Dialect int

// The dialects. MySQL is also MariaDB's.
const (
	MySQL Dialect = iota + 1
	PostgreSQL
	SQLite
)

// Known reports whether d is one of the three.
func (d Dialect) Known() bool { return d >= MySQL && d <= SQLite }

func (d Dialect) String() string {
	if !d.Known() {
		return "Dialect(" + strconv.Itoa(int(d)) + ")"
	}
	return [...]string{"MySQL", "PostgreSQL", "SQLite"}[d-MySQL]
}

// Rebind returns query with its arguments written as the database wants them. No
// query may have a ? that is not an argument.
func (d Dialect) Rebind(query string) string {
	if d != PostgreSQL {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, ok := strings.Cut(query, "?")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// InsertNew returns a statement that inserts one row, or does nothing, affecting 0
// rows, if a unique key is taken.
//
// MySQL's INSERT IGNORE also cuts values that are too long or out of range instead of
// refusing them, so that callers check lengths first. ON DUPLICATE KEY UPDATE
// would not do: with the driver's clientFoundRows it affects 1 row either way.
func (d Dialect) InsertNew(table string, columns ...string) string {
	verb, end := "INSERT INTO ", " ON CONFLICT DO NOTHING"
	if d == MySQL {
		verb, end = "INSERT IGNORE INTO ", ""
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ")
	return d.Rebind(verb + table + " (" + strings.Join(columns, ", ") + ") VALUES (" + marks + ")" + end)
}

package sqldb

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What the statements do is tested on the databases, in internal/sqltest.
func TestStatements(t *testing.T) {
	require.Equal(t, "a = $1 AND b = $2 OR c", PostgreSQL.Rebind("a = ? AND b = ? OR c"))
	require.Equal(t, "a = ?", MySQL.Rebind("a = ?"))
	require.Equal(t, "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING", PostgreSQL.InsertNew("t", "a", "b"))
	require.Equal(t, "INSERT INTO t (a) VALUES (?) ON CONFLICT DO NOTHING", SQLite.InsertNew("t", "a"))
	require.Equal(t, "INSERT IGNORE INTO t (a) VALUES (?)", MySQL.InsertNew("t", "a"))
	require.Equal(t, []string{"MySQL", "PostgreSQL", "SQLite", "Dialect(4)"},
		[]string{MySQL.String(), PostgreSQL.String(), SQLite.String(), Dialect(4).String()})
	require.False(t, Dialect(0).Known())
}

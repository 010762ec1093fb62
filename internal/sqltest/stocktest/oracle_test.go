package stocktest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
)

// A line is what happened to one SKU of one order: a row in SQL.
type line struct {
	Entry, Kind, Order, User, SKU string
	Qty                           int64
	Reason                        string
}

func linesOf(e stock.Entry) (lines []line) {
	for _, o := range e.Ops {
		id := o.ID
		if o.Kind == stock.OpLoad {
			id = e.ID
		}
		for _, it := range o.Items {
			lines = append(lines, line{e.ID, o.Kind.String(), id, o.User, it.SKU, it.Qty, o.Reason})
		}
	}
	return lines
}

type units struct{ left, held, sold int64 }

// An evidence is what the oracle judges by.
type evidence struct {
	journal []line // of Redis, whole
	rows    []line // of SQL, in their order
	redis   map[string]units
	sql     map[string]units
}

func collect(t *testing.T, a *stock.Activity, db sqltest.Database) evidence {
	t.Helper()
	e := evidence{redis: map[string]units{}}
	last := "0-0"
	for entry, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, last, entry.Prev, "the journal was trimmed")
		last = entry.ID
		e.journal = append(e.journal, linesOf(entry)...)
	}
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for sku, l := range levels {
		e.redis[sku] = units{l.Left, l.Reserved, l.Sold}
	}
	e.rows = readRows(t, db)
	e.sql = readLevels(t, db)
	return e
}

func readRows(t *testing.T, db sqltest.Database) []line { return readJournal(t, db, "") }

// readJournal returns the rows of one journal, or of all.
func readJournal(t *testing.T, db sqltest.Database, name string) (lines []line) {
	t.Helper()
	rows, err := db.Query(db.Dialect.Rebind(`SELECT entry_ms, entry_seq, kind, order_id, user_id, sku, qty, reason
		FROM spillway_stock_row WHERE ? = 0 OR journal = ? ORDER BY entry_ms, entry_seq, op, item`), len(name), []byte(name))
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var l line
		var ms, seq int64
		require.NoError(t, rows.Scan(&ms, &seq, &l.Kind, &l.Order, &l.User, &l.SKU, &l.Qty, &l.Reason))
		l.Entry = fmt.Sprintf("%d-%d", ms, seq)
		lines = append(lines, l)
	}
	require.NoError(t, rows.Err())
	return lines
}

func readLevels(t *testing.T, db sqltest.Database) map[string]units {
	return readLevelsOf(t, db, sale)
}

func readLevelsOf(t *testing.T, db sqltest.Database, journal string) map[string]units {
	t.Helper()
	rows, err := db.Query(db.Dialect.Rebind(`SELECT sku, left_units, held_units, sold_units
		FROM spillway_stock_level WHERE journal = ?`), []byte(journal))
	require.NoError(t, err)
	defer rows.Close()
	levels := map[string]units{}
	for rows.Next() {
		var sku string
		var u units
		require.NoError(t, rows.Scan(&sku, &u.left, &u.held, &u.sold))
		levels[sku] = u
	}
	require.NoError(t, rows.Err())
	return levels
}

// judge wants every line of the journal in SQL exactly once, in order, and the
// figures that both have to be what the lines add up to.
func judge(e evidence) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	seen := map[line]bool{}
	for _, l := range e.rows {
		if seen[l] {
			fault("twice in SQL: %v", l)
		}
		seen[l] = true
	}
	for _, l := range e.journal {
		if !seen[l] {
			fault("not in SQL: %v", l)
		}
	}
	if len(faults) == 0 && !slices.Equal(e.journal, e.rows) {
		fault("SQL has another order of things, or more of them: %d rows, %d lines in the journal", len(e.rows), len(e.journal))
	}
	return append(faults, judgeLevels(e.rows, e.redis, e.sql)...)
}

// judgeLevels adds the rows up by itself.
func judgeLevels(rows []line, redis, sql map[string]units) (faults []string) {
	sums := map[string]units{}
	reserved := map[string]bool{}
	for _, l := range rows {
		u, q := sums[l.SKU], l.Qty
		key := l.Order + "\x00" + l.SKU
		switch l.Kind {
		case "load", "restock", "take":
			u.left += q
		case "give":
			u.left -= q
		case "deduct":
			u.left, u.sold = u.left-q, u.sold+q
		case "reserve":
			u.left, u.held = u.left-q, u.held+q
			reserved[key] = true
		case "expire":
			u.left, u.held = u.left+q, u.held-q
		case "confirm":
			if reserved[key] {
				u.held, u.sold = u.held-q, u.sold+q
			}
		case "cancel":
			if reserved[key] {
				u.held, u.left = u.held-q, u.left+q
			} else {
				u.sold, u.left = u.sold-q, u.left+q
			}
		}
		sums[l.SKU] = u
		if u.left < 0 {
			faults = append(faults, fmt.Sprintf("oversold: %v leaves %d", l, u.left))
		}
	}
	for sku, want := range sums {
		if redis != nil && redis[sku] != want {
			faults = append(faults, fmt.Sprintf("%s: Redis says %+v, the rows add up to %+v", sku, redis[sku], want))
		}
		if sql != nil && sql[sku] != want {
			faults = append(faults, fmt.Sprintf("%s: the level in SQL is %+v, the rows add up to %+v", sku, sql[sku], want))
		}
	}
	return faults
}

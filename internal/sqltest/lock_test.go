package sqltest

import (
	"database/sql"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/sqldb"
	"github.com/spillway-go/spillway/lock"
)

// An account is a row that a lock protects.
type account struct {
	db      Database
	guarded string // its UPDATE with both pieces of FenceSQL
	naive   string // and with the first one alone
}

func newAccount(t *testing.T, db Database) account {
	t.Helper()
	_, err := db.Exec("CREATE TABLE account (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL, fence BIGINT NOT NULL DEFAULT 0)")
	require.NoError(t, err)
	_, err = db.Exec("INSERT INTO account (id, balance) VALUES (1, 0), (2, 0)")
	require.NoError(t, err)
	param := "?"
	if db.Dialect == sqldb.PostgreSQL {
		param = "$3"
	}
	set, where := lock.FenceSQL("fence", param)
	naive := db.Dialect.Rebind("UPDATE account SET balance = ?, ") + set + " WHERE id = "
	if param == "?" {
		naive += "?"
	} else {
		naive += "$2"
	}
	return account{db, naive + " AND " + where, naive}
}

// write sets the balance, and returns the rows that were affected.
func (a account) write(t testing.TB, db *sql.DB, query string, balance, fence int64) int64 {
	t.Helper()
	args := []any{balance, fence, 1}
	switch {
	case a.db.Dialect == sqldb.PostgreSQL:
		args = []any{balance, 1, fence}
	case query == a.guarded:
		args = append(args, fence)
	}
	result, err := db.Exec(query, args...)
	if err != nil {
		t.Error(err)
		return -1
	}
	n, err := result.RowsAffected()
	if err != nil {
		t.Error(err)
	}
	return n
}

func (a account) read(t *testing.T) (balance, fence int64) {
	t.Helper()
	require.NoError(t, a.db.QueryRow("SELECT balance, fence FROM account WHERE id = 1").Scan(&balance, &fence))
	return balance, fence
}

// A row refuses older fences, and only those.
func TestFenceSQL(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		a := newAccount(t, db)
		const big = int64(1)<<53 - 1
		for i, step := range []struct {
			fence, affected int64
		}{{5, 1}, {5, 1}, {7, 1}, {6, 0}, {7, 1}, {big, 1}, {big - 1, 0}, {7, 0}, {big, 1}} {
			before, _ := a.read(t)
			require.Equal(t, step.affected, a.write(t, db.DB, a.guarded, int64(i+1), step.fence), i)
			balance, fence := a.read(t)
			if step.affected == 1 {
				require.Equal(t, []int64{int64(i + 1), step.fence}, []int64{balance, fence}, i)
			} else {
				require.Equal(t, before, balance, i)
				require.Greater(t, fence, step.fence, i)
			}
		}
		var balance, fence int64
		require.NoError(t, db.QueryRow("SELECT balance, fence FROM account WHERE id = 2").Scan(&balance, &fence))
		require.Equal(t, []int64{0, 0}, []int64{balance, fence}, "no other row is touched")

		// The control: without the condition an older fence overwrites.
		require.EqualValues(t, 1, a.write(t, db.DB, a.naive, 1000, 6))
		balance, fence = a.read(t)
		require.Equal(t, []int64{1000, 6}, []int64{balance, fence})
	})
}

// Whatever the order in which holders' writes arrive, the newest one's stays.
func TestFenceSQLConcurrent(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		a := newAccount(t, db)
		const writers, each = 8, 25
		race := func(query string, from int64) (last int64) {
			fences := rand.Perm(writers * each)
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for _, f := range fences[w*each : (w+1)*each] {
						a.write(t, db.DB, query, from+int64(f), from+int64(f))
					}
				})
			}
			wg.Wait()
			balance, fence := a.read(t)
			require.Equal(t, fence, balance)
			return fence - from
		}
		from := int64(1)
		for range 3 {
			require.EqualValues(t, writers*each-1, race(a.guarded, from))
			from += writers * each
		}
		for range 20 {
			if race(a.naive, from) != writers*each-1 {
				return
			}
		}
		t.Fatal("the control: without the condition the newest always won")
	})
}

// MySQL counts rows that change, unless it is told otherwise: what FenceSQL says of
// clientFoundRows.
func TestFenceSQLSameValueTwice(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		a := newAccount(t, db)
		driver, dsn := db.Names()
		found := db.DB
		if db.Dialect == sqldb.MySQL {
			var err error
			found, err = sql.Open(driver, dsn+"?clientFoundRows=true")
			require.NoError(t, err)
			defer found.Close()
			require.EqualValues(t, 1, a.write(t, db.DB, a.guarded, 10, 3))
			require.EqualValues(t, 0, a.write(t, db.DB, a.guarded, 10, 3), "as if it were stale")
		}
		require.EqualValues(t, 1, a.write(t, found, a.guarded, 10, 4))
		require.EqualValues(t, 1, a.write(t, found, a.guarded, 10, 4))
		require.EqualValues(t, 0, a.write(t, found, a.guarded, 10, 3))
	})
}

package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/idgen"
)

func idStore(t testing.TB, db Database, mode idgen.ClaimMode) idgen.Store {
	t.Helper()
	require.NoError(t, idgen.Migrate(t.Context(), db.DB, db.Dialect))
	s, err := idgen.SQLStore(db.DB, db.Dialect, mode)
	require.NoError(t, err)
	return s
}

func TestIDStore(t *testing.T) {
	for _, mode := range []idgen.ClaimMode{idgen.Atomic, idgen.Optimistic} {
		t.Run(fmt.Sprint(int(mode)), func(t *testing.T) {
			Each(t, func(t *testing.T, db Database) {
				s := idStore(t, db, mode)
				idStore(t, db, mode) // Migrate twice is no error
				for i, want := range []idgen.Range{{First: 1, Count: 10}, {First: 11, Count: 1}, {First: 12, Count: 1000}} {
					r, err := s.Claim(t.Context(), "order", want.Count)
					require.NoError(t, err)
					require.Equal(t, want, r, i)
				}
				r, err := s.Claim(t.Context(), "名前 ?", 5)
				require.NoError(t, err)
				require.Equal(t, idgen.Range{First: 1, Count: 5}, r)

				_, err = db.Exec("UPDATE spillway_idgen SET max_id = 9223372036854775800 WHERE biz = 'order'")
				require.NoError(t, err)
				_, err = s.Claim(t.Context(), "order", 8)
				require.ErrorIs(t, err, idgen.ErrExhausted)
				r, err = s.Claim(t.Context(), "order", 7)
				require.NoError(t, err)
				require.Equal(t, idgen.Range{First: math.MaxInt64 - 6, Count: 7}, r)
				_, err = s.Claim(t.Context(), "order", 1)
				require.ErrorIs(t, err, idgen.ErrExhausted)
				_, err = s.Claim(t.Context(), "", 1)
				require.ErrorIs(t, err, idgen.ErrInvalid)

				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_, err = s.Claim(ctx, "other", 1)
				require.ErrorIs(t, err, context.Canceled)
			})
		})
	}
}

// A naive store moves the counter and then reads it, as the textbook does. Between
// the two another process moves it too.
type naive struct{ db Database }

func (n naive) Claim(ctx context.Context, biz string, step int64) (idgen.Range, error) {
	q := n.db.Dialect.Rebind
	if _, err := n.db.ExecContext(ctx, n.db.Dialect.InsertNew("spillway_idgen", "biz", "max_id", "version"), biz, 0, 0); err != nil {
		return idgen.Range{}, err
	}
	if _, err := n.db.ExecContext(ctx, q("UPDATE spillway_idgen SET max_id = max_id + ? WHERE biz = ?"), step, biz); err != nil {
		return idgen.Range{}, err
	}
	var last int64
	err := n.db.QueryRowContext(ctx, q("SELECT max_id FROM spillway_idgen WHERE biz = ?"), biz).Scan(&last)
	return idgen.Range{First: last - step + 1, Count: step}, err
}

// overlaps claims ranges from many connections at once and returns how many overlap,
// and how many claims failed.
func overlaps(t *testing.T, s idgen.Store, goroutines, claims int) (overlap, failed int) {
	var mu sync.Mutex
	var all []idgen.Range
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range claims {
				r, err := s.Claim(t.Context(), "order", 1+rand.Int64N(100))
				mu.Lock()
				if err != nil {
					failed++
				} else {
					all = append(all, r)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b idgen.Range) int { return int(a.First - b.First) })
	for i := 1; i < len(all); i++ {
		if all[i].First < all[i-1].First+all[i-1].Count {
			overlap++
		}
	}
	return overlap, failed
}

func TestIDStoreConcurrent(t *testing.T) {
	for _, mode := range []idgen.ClaimMode{idgen.Atomic, 300} {
		t.Run(fmt.Sprint(int(mode)), func(t *testing.T) {
			Each(t, func(t *testing.T, db Database) {
				n := 8
				if mode > 0 {
					n = 4
				}
				overlap, failed := overlaps(t, idStore(t, db, mode), n, 40)
				require.Zero(t, failed)
				require.Zero(t, overlap)
				var version int64
				require.NoError(t, db.QueryRow("SELECT version FROM spillway_idgen").Scan(&version))
				require.Equal(t, int64(n*40), version)
			})
		})
	}
}

func TestNaiveIDStoreIsCaught(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		idStore(t, db, idgen.Atomic)
		for range 20 {
			if overlap, _ := overlaps(t, naive{db}, 8, 40); overlap > 0 {
				return
			}
		}
		t.Fatal("update, then select: no overlap was found")
	})
}

// Both modes may work on one table, as during a change from one to the other.
func TestIDStoreModesTogether(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		a, o := idStore(t, db, idgen.Atomic), idStore(t, db, 1000)
		var turn atomic.Int64
		mixed := storeFunc(func(ctx context.Context, biz string, step int64) (idgen.Range, error) {
			if turn.Add(1)%2 == 0 {
				return a.Claim(ctx, biz, step)
			}
			return o.Claim(ctx, biz, step)
		})
		overlap, failed := overlaps(t, mixed, 4, 40)
		require.Zero(t, failed)
		require.Zero(t, overlap)
	})
}

type storeFunc func(ctx context.Context, biz string, step int64) (idgen.Range, error)

func (f storeFunc) Claim(ctx context.Context, biz string, step int64) (idgen.Range, error) {
	return f(ctx, biz, step)
}

// Three tries are too few for many processes, which is why Atomic is the default.
func TestOptimisticGivesUp(t *testing.T) {
	for _, tries := range []idgen.ClaimMode{3, idgen.Optimistic} {
		db := MariaDB(t)
		db.SetMaxIdleConns(64)
		s := idStore(t, db, tries)
		for _, processes := range []int{8, 32} {
			var wg sync.WaitGroup
			var gaveUp, other atomic.Int64
			const rounds = 20
			for range rounds {
				ready := make(chan struct{})
				for range processes {
					wg.Go(func() {
						<-ready
						_, err := s.Claim(t.Context(), "order", 1)
						if err != nil && !contended(err) {
							other.Add(1)
						} else if err != nil {
							gaveUp.Add(1)
						}
					})
				}
				close(ready)
				wg.Wait()
			}
			require.Zero(t, other.Load())
			t.Logf("%d tries, %d at once: %.1f %% give up", tries, processes, 100*float64(gaveUp.Load())/float64(rounds*processes))
			if tries == 3 && processes == 32 {
				require.NotZero(t, gaveUp.Load())
			}
		}
	}
}

// The database goes away under a Segment and comes back.
func TestSegmentOnSQL(t *testing.T) {
	Each(t, func(t *testing.T, db Database) {
		s, err := idgen.NewSegment(idStore(t, db, idgen.Atomic), "order", idgen.Options{MinStep: 10})
		require.NoError(t, err)
		last := int64(0)
		for i := range 1000 {
			if i == 300 {
				rename(t, db, "spillway_idgen", "gone")
			}
			if i == 310 {
				rename(t, db, "gone", "spillway_idgen")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if i >= 300 && i < 310 {
				cancel() // only ids at hand
			}
			id, err := s.Next(ctx)
			cancel()
			if err != nil {
				require.ErrorIs(t, err, idgen.ErrUnavailable)
				continue
			}
			require.Greater(t, id, last)
			last = id
		}
		require.NoError(t, s.Close(t.Context()))
	})
}

func rename(t *testing.T, db Database, from, to string) {
	t.Helper()
	_, err := db.Exec("ALTER TABLE " + from + " RENAME TO " + to)
	require.NoError(t, err)
}

// The statement that idgen's doc.go gives makes the table that the store works on, and is
// Migrate's.
func TestDocumentedTable(t *testing.T) {
	doc, err := os.ReadFile("../../idgen/doc.go")
	require.NoError(t, err)
	_, statement, found := strings.Cut(string(doc), "//\tCREATE TABLE spillway_idgen (")
	require.True(t, found)
	statement, _, found = strings.Cut(statement, "\n//\t)\n")
	require.True(t, found)
	statement = "CREATE TABLE spillway_idgen (" + strings.ReplaceAll(statement, "//\t", "") + "\n)"
	columns := func(db Database) (all string) {
		var name string
		require.NoError(t, db.QueryRow("SHOW CREATE TABLE spillway_idgen").Scan(&name, &all))
		return all
	}
	byHand, migrated := MariaDB(t), MariaDB(t)
	_, err = byHand.Exec(statement)
	require.NoError(t, err, statement)
	idStore(t, migrated, idgen.Atomic)
	require.Equal(t, columns(migrated), columns(byHand))
	r, err := idStore(t, byHand, idgen.Atomic).Claim(t.Context(), "order", 10)
	require.NoError(t, err)
	require.Equal(t, idgen.Range{First: 1, Count: 10}, r)
}

func TestMigrateInvalid(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	defer db.Close()
	require.ErrorIs(t, idgen.Migrate(t.Context(), db, 0), idgen.ErrInvalid)
	for _, f := range []func() (idgen.Store, error){
		func() (idgen.Store, error) { return idgen.SQLStore(nil, idgen.SQLite, idgen.Atomic) },
		func() (idgen.Store, error) { return idgen.SQLStore(db, 9, idgen.Atomic) },
		func() (idgen.Store, error) { return idgen.SQLStore(db, idgen.SQLite, -1) },
	} {
		_, err := f()
		require.ErrorIs(t, err, idgen.ErrInvalid)
	}
}

func contended(err error) bool { return errors.Is(err, idgen.ErrContended) }

package sqltest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/internal/sqldb"
	"github.com/spillway-go/spillway/shorturl"
)

// With the driver's clientFoundRows, MySQL counts rows that matched instead of rows
// that changed. No store may tell its winner by that difference.
func TestClientFoundRows(t *testing.T) {
	driver, dsn := MariaDB(t).Names()
	db := open(t, sqldb.MySQL, driver, dsn+"?clientFoundRows=true")
	ctx := t.Context()
	for _, mode := range []idgen.ClaimMode{idgen.Atomic, idgen.Optimistic} {
		s := idStore(t, db, mode)
		a, err := s.Claim(ctx, "order", 10)
		require.NoError(t, err)
		b, err := s.Claim(ctx, "order", 10)
		require.NoError(t, err)
		require.Equal(t, a.First+10, b.First)
	}
	overlap, failed := overlaps(t, idStore(t, db, 300), 4, 20)
	require.Zero(t, overlap+failed)

	require.NoError(t, shorturl.Migrate(ctx, db.DB, db.Dialect))
	links, err := shorturl.SQLStore(db.DB, db.Dialect)
	require.NoError(t, err)
	l := shorturl.Link{Code: "one", URL: "https://example.com/", Created: time.Now()}
	_, err = links.Insert(ctx, l, "digest")
	require.NoError(t, err)
	_, err = links.Insert(ctx, l, "")
	require.ErrorIs(t, err, shorturl.ErrTaken)
	got, err := links.Insert(ctx, shorturl.Link{Code: "two", URL: l.URL, Created: time.Now()}, "digest")
	require.NoError(t, err)
	require.Equal(t, "one", got.Code)
	require.ErrorIs(t, links.Update(ctx, shorturl.Link{Code: "none", URL: l.URL}), shorturl.ErrNotFound)
}

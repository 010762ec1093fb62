package stocktest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

const buckets = 3

func bucketJournal(bucket int) string { return fmt.Sprintf("%s%%b%d.%d", sale, buckets, bucket) }

// linesOfBuckets returns the journals of Redis, and those of SQL.
func linesOfBuckets(t *testing.T, a *stock.Activity, db sqltest.Database) (journals, rows [buckets][]line) {
	t.Helper()
	for e, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		_, e.ID, _ = strings.Cut(e.ID, "/")
		journals[e.Bucket] = append(journals[e.Bucket], linesOf(e)...)
	}
	for i := range rows {
		rows[i] = readJournal(t, db, bucketJournal(i))
	}
	return journals, rows
}

// judgeBuckets adds up what SQL has of all buckets: each journal's rows are its levels,
// what was taken was given once, and nothing is there that was not loaded.
func judgeBuckets(t *testing.T, a *stock.Activity, db sqltest.Database, rows [buckets][]line, loaded map[string]int64) (faults []string) {
	t.Helper()
	sums, transit := map[string]units{}, map[string]int64{}
	gives, takes := map[string]int64{}, map[string]int64{}
	for i, lines := range rows {
		levels := readLevelsOf(t, db, bucketJournal(i))
		faults = append(faults, judgeLevels(lines, nil, levels)...)
		for sku, u := range levels {
			s := sums[sku]
			sums[sku] = units{s.left + u.left, s.held + u.held, s.sold + u.sold}
		}
		for _, l := range lines {
			switch l.Kind {
			case "give":
				gives[l.Order+" "+l.SKU] += l.Qty
				transit[l.SKU] += l.Qty
			case "take":
				takes[l.Order+" "+l.SKU] += l.Qty
				transit[l.SKU] -= l.Qty
			}
		}
	}
	for id, n := range takes {
		if gives[id] != n {
			faults = append(faults, fmt.Sprintf("transfer %s: %d units given, %d taken", id, gives[id], n))
		}
	}
	if len(gives) == 0 {
		faults = append(faults, "nothing moved")
	}
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for sku, n := range loaded {
		s := sums[sku]
		s.left += transit[sku]
		if s.left+s.held+s.sold != n {
			faults = append(faults, fmt.Sprintf("%s: %+v of %d in SQL", sku, s, n))
		}
		if l := levels[sku]; (units{l.Left, l.Reserved, l.Sold}) != s {
			faults = append(faults, fmt.Sprintf("%s: %+v in SQL, %+v in Redis", sku, s, l))
		}
	}
	return faults
}

// awaitBuckets waits until SQL has the journals of all buckets.
func awaitBuckets(t *testing.T, a *stock.Activity, store *stocksql.Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		last := map[int]string{}
		for e, err := range a.Entries(t.Context(), "") {
			if err != nil {
				return false
			}
			_, last[e.Bucket], _ = strings.Cut(e.ID, "/")
		}
		for i, id := range last {
			if at, err := store.Checkpoint(t.Context(), bucketJournal(i)); err != nil || at != id {
				return false
			}
		}
		return len(last) == buckets
	}, 60*time.Second, 20*time.Millisecond, "the journals do not get into SQL")
}

// Two processes bring the journals of all buckets into SQL, and are killed again and
// again while stock moves: every entry of each bucket is there once, in order.
func TestKilledJournalsOfBuckets(t *testing.T) {
	t.Parallel() // it waits most of the time
	kills, orders := 6, 100
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		kills, orders = 60, 3000
	}
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		t.Parallel()
		store := newStore(t, db)
		p := redistest.Server(t)
		prefix := redistest.Prefix(t)
		loaded := map[string]int64{"tea": int64(orders), "cup": 1 << 40}
		a := open(t, p.Client(), prefix, stock.Options{Hold: 200 * time.Millisecond, Buckets: buckets}, loaded)
		config := journaler{Addr: p.Addr(), Prefix: prefix, Dialect: db.Dialect, Buckets: buckets}
		config.Driver, config.DSN = db.Names()
		_, err := a.Deduct(t.Context(), stock.Order{ID: "more than a bucket has", User: "u", Items: []stock.Item{{SKU: "tea", Qty: int64(orders) / 2}}})
		require.NoError(t, err)
		sold := make(chan error, 1)
		go func() { sold <- sell(t.Context(), a, 8, orders, "o") }()
		batches := killPairs(t, config, kills, 8)
		require.NoError(t, <-sold)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }() // ends holds and transfers
		awaitHolds(t, a)
		stop()
		require.NoError(t, <-ran)
		last := chaos.Start(t, "journal", config, func(int) {})
		awaitBuckets(t, a, store)
		require.NoError(t, last.Stop())
		journals, rows := linesOfBuckets(t, a, db)
		n := 0
		for i := range journals {
			n += len(rows[i])
			require.Equal(t, journals[i], rows[i], "bucket %d", i)
		}
		require.Empty(t, judgeBuckets(t, a, db, rows, loaded))
		d, err := a.Reconcile(t.Context(), store)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
		t.Logf("%d rows, %d batches of processes that were killed", n, batches)
		t.Run("the oracle sees", func(t *testing.T) {
			for _, kind := range []string{"give", "take"} { // units from nowhere, and to nowhere
				bad := rows
				for i := range bad {
					bad[i] = slices.DeleteFunc(slices.Clone(bad[i]), func(l line) bool { return l.Kind == kind })
				}
				require.NotEmpty(t, judgeBuckets(t, a, db, bad, loaded), "no %s", kind)
			}
		})
	})
}

// And with stock that moves between buckets, the journals of which both processes write.
func TestTroubledSQLOfBuckets(t *testing.T) {
	t.Parallel() // it waits most of the time
	sqltest.Each(t, func(t *testing.T, db sqltest.Database) {
		t.Parallel()
		store := newStore(t, db)
		loaded := map[string]int64{"tea": 1000, "cup": 1 << 40}
		a := open(t, redistest.Server(t).Client(), redistest.Prefix(t), stock.Options{Buckets: buckets}, loaded)
		_, err := a.Deduct(t.Context(), stock.Order{ID: "more than a bucket has", User: "u", Items: []stock.Item{{SKU: "tea", Qty: 500}}})
		require.NoError(t, err)
		sellBesideTrouble(t, a, store, awaitBuckets)
		journals, rows := linesOfBuckets(t, a, db)
		require.Equal(t, journals, rows)
		require.Empty(t, judgeBuckets(t, a, db, rows, loaded))
	})
}

// The master of one bucket dies while its replica keeps up: what is lost is what was on
// its way, and the sale goes on without an operator.
func TestKilledMasterOfABucket(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := redistest.Cluster(t, buckets, 1)
	db := sqltest.SQLite(t)
	store := newStore(t, db)
	loaded := map[string]int64{"tea": 100_000, "cup": 100_000, "pot": 900}
	a, err := stock.New(c.Client(), sale, stock.Options{Linger: linger, Buckets: buckets})
	require.NoError(t, err)
	require.NoError(t, a.Load(ctx, loaded))
	key := keyOfBucket(t, c, 1)
	master := c.MasterOf(key)
	awaitReplica(t, master)
	b := startBuyers(t, a)
	var lost []stock.Op
	journal := supervise(t, a, store, &lost)
	b.more(t, 400) // pots move by now, from bucket to bucket
	inSQL := orders(t, db)
	began := time.Now()
	c.KillMaster(key)
	require.Eventually(t, func() bool { return c.MasterOf(key) != master }, time.Minute, 50*time.Millisecond)
	b.more(t, 400)
	took := time.Since(began)
	b.stop()
	b.wg.Wait()
	awaitBuckets(t, a, store)
	d, err := a.Reconcile(ctx, store)
	require.NoError(t, err)
	require.True(t, d.None(), "%+v", d)
	require.NoError(t, journal.end())
	_, rows := linesOfBuckets(t, a, db)
	require.Empty(t, judgeBuckets(t, a, db, rows, loaded))
	gone := b.lost(t, db, inSQL)
	require.LessOrEqual(t, gone, 64)
	t.Logf("%d orders acknowledged, %d of them lost, %d ops undone by Rebuild; %v from the kill until the sale went on",
		len(b.acked), gone, len(lost), took.Round(time.Millisecond))
}

// The master of one bucket dies while its replica lags, and SQL has what the replica
// lacks: the fork of that bucket halts all, and Rebuild resumes the sale with every
// unit once, what was on its way included.
func TestFailoverOfABucket(t *testing.T) {
	t.Parallel()
	wanted(t, failoverOfABucket)
}

func failoverOfABucket(t *testing.T) bool {
	ctx := t.Context()
	c := redistest.Cluster(t, buckets, 1)
	db := sqltest.SQLite(t)
	store := newStore(t, db)
	loaded := map[string]int64{"tea": 100_000, "cup": 100_000, "pot": 900}
	a, err := stock.New(c.Client(), sale, stock.Options{Linger: linger, Buckets: buckets})
	require.NoError(t, err)
	require.NoError(t, a.Load(ctx, loaded))
	key := keyOfBucket(t, c, 1)
	master := c.MasterOf(key)
	awaitReplica(t, master)
	b := startBuyers(t, a)
	var lost []stock.Op
	journal := supervise(t, a, store, &lost)
	b.more(t, 400) // pots move by now, from bucket to bucket
	cutReplica(t, master)
	at := "" // the newest entry that the replica may have
	for e, err := range a.Entries(ctx, "1/0-0") {
		require.NoError(t, err)
		at = strings.TrimPrefix(e.ID, "1/")
	}
	require.NotEmpty(t, at)
	b.more(t, 400)
	awaitCheckpoint(t, store, bucketJournal(1), at)
	require.NoError(t, journal.end())
	before, err := store.Checkpoint(ctx, bucketJournal(1))
	require.NoError(t, err)
	inSQL := orders(t, db)
	b.more(t, 100)
	if c.MasterOf(key) != master {
		t.Log("a failover before its time: again")
		return false
	}
	began := time.Now()
	c.KillMaster(key)
	b.more(t, 200)
	require.Eventually(t, func() bool { return c.MasterOf(key) != master }, time.Minute, 50*time.Millisecond)
	for e, err := range a.Entries(ctx, "") {
		require.NoError(t, err)
		if e.ID == "1/"+before {
			t.Log("the new master was not behind: again")
			return false
		}
	}
	select {
	case err := <-run(t, a, store).ended:
		require.ErrorIs(t, err, stock.ErrForked)
	case <-time.After(time.Minute):
		t.Fatal("the fork was not noticed")
	}
	for i := range 20 { // at home in any bucket
		_, err = a.Deduct(ctx, stock.Order{ID: "x", User: fmt.Sprint("x", i), Items: []stock.Item{{SKU: "tea", Qty: 1}}})
		require.ErrorIs(t, err, stock.ErrHalted)
	}
	_, err = a.Reconcile(ctx, store)
	require.ErrorIs(t, err, stock.ErrForked)
	lost, err = a.Rebuild(ctx, store)
	require.NoError(t, err)
	journal = run(t, a, store)
	b.more(t, 200)
	took := time.Since(began)
	d, err := a.Reconcile(ctx, store)
	require.NoError(t, err)
	require.True(t, d.None(), "%+v", d)
	b.stop()
	b.wg.Wait()
	awaitBuckets(t, a, store)
	require.NoError(t, journal.end())
	_, rows := linesOfBuckets(t, a, db)
	require.Empty(t, judgeBuckets(t, a, db, rows, loaded))
	t.Logf("%d orders acknowledged, %d of them lost, %d ops undone by Rebuild; %v from the kill until the sale went on",
		len(b.acked), b.lost(t, db, inSQL), len(lost), took.Round(time.Millisecond))
	return true
}

// lost returns how many orders were acknowledged and are not in SQL, which has to have
// those that it once had.
func (b *buyers) lost(t *testing.T, db sqltest.Database, once map[string]bool) (n int) {
	t.Helper()
	now := orders(t, db)
	for id := range once {
		require.Contains(t, now, id, "what SQL had stays")
	}
	for id := range b.acked {
		if !now[id] {
			n++
		}
	}
	return n
}

// keyOfBucket returns a key of a bucket.
func keyOfBucket(t *testing.T, c *redistest.ClusterProcs, bucket int) string {
	t.Helper()
	var mu sync.Mutex // of several masters at once
	found := ""
	require.NoError(t, c.Client().ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
		it := node.Scan(ctx, 0, fmt.Sprintf("*{%s.*}:levels", bucketJournal(bucket)), 1000).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			found = it.Val()
			mu.Unlock()
		}
		return it.Err()
	}))
	require.NotEmpty(t, found)
	return found
}

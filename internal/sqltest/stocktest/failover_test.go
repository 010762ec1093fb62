package stocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// A site is a Redis that has a failover.
type site struct {
	rdb    redis.UniversalClient
	master func() *redistest.Proc
	kill   func()
	// fresh is for how long a replica may have been cut off and take over; 0 for ever.
	fresh time.Duration
}

// sites runs f on either kind, as wanted does.
func sites(t *testing.T, f func(t *testing.T, s site) bool) {
	for name, start := range map[string]func(t *testing.T) site{
		"Sentinel": func(t *testing.T) site {
			s := redistest.Sentinel(t)
			// Ten times what a master has to be silent to be dead, and that it is silent.
			return site{s.Client(), s.Master, func() { s.KillMaster() }, 8 * time.Second}
		},
		"Cluster": func(t *testing.T) site {
			c := redistest.Cluster(t, 3, 1)
			key := "{" + sale + "}"
			return site{c.Client(), func() *redistest.Proc { return c.MasterOf(key) }, func() { c.KillMaster(key) }, 0}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wanted(t, func(t *testing.T) bool { return f(t, start(t)) })
		})
	}
}

// wanted runs f, which reports false if the failover was not the one that it wanted, as
// happens on a machine so busy that a master seems dead before it is killed: then f gets
// another try.
func wanted(t *testing.T, f func(t *testing.T) bool) {
	redistest.Shared(t) // skips here, not in the subtests, where there are no servers
	for tries, as := 0, false; !as && !t.Failed(); tries++ {
		if tries == 3 {
			t.Fatal("no failover in three was the one that was wanted")
		}
		t.Run(fmt.Sprint(tries), func(t *testing.T) { as = f(t) })
	}
}

// awaitReplica waits until a replica has what the master has: one that was never in
// sync does not take over.
func awaitReplica(t *testing.T, master *redistest.Proc) {
	t.Helper()
	rdb := master.Client()
	require.Eventually(t, func() bool {
		if err := rdb.Publish(t.Context(), "any", "write").Err(); err != nil {
			return false
		}
		info, err := rdb.Info(t.Context(), "replication").Result()
		if err != nil || !strings.Contains(info, "state=online") {
			return false
		}
		n, err := rdb.Wait(t.Context(), 1, time.Second).Result()
		return err == nil && n == 1
	}, 30*time.Second, 10*time.Millisecond, "no replica in sync")
}

// cutReplica stops the replication of a master, for good.
func cutReplica(t *testing.T, master *redistest.Proc) {
	t.Helper()
	rdb := master.Client()
	require.NoError(t, rdb.Do(t.Context(), "acl", "setuser", "default", "-psync", "-sync").Err())
	require.NoError(t, rdb.Do(t.Context(), "client", "kill", "type", "replica").Err())
}

// buyers place orders until they are stopped, and remember what they were told.
type buyers struct {
	a     *stock.Activity
	n     atomic.Int64
	mu    sync.Mutex
	acked map[string]time.Time
	wg    sync.WaitGroup
	stop  context.CancelFunc
}

func startBuyers(t *testing.T, a *stock.Activity) *buyers {
	ctx, stop := context.WithCancel(t.Context())
	b := &buyers{a: a, acked: map[string]time.Time{}, stop: stop}
	t.Cleanup(func() { stop(); b.wg.Wait() })
	for range 8 {
		b.wg.Go(func() {
			for ctx.Err() == nil {
				id := fmt.Sprint("o", b.n.Add(1))
				ref := stock.Ref{ID: id, User: "user of " + id}
				// Pots sell out on the way; what there is else goes on.
				order := stock.Order{ID: id, User: ref.User, Items: []stock.Item{{SKU: "tea", Qty: 1}, {SKU: "cup", Qty: 2}, {SKU: "pot", Qty: 1}}, Partial: true}
				place := a.Reserve
				if b.n.Load()%2 == 0 {
					place = a.Deduct
				}
				if _, err := place(ctx, order); err != nil {
					pause(ctx, 5*time.Millisecond)
					continue
				}
				b.mu.Lock()
				b.acked[id] = time.Now()
				b.mu.Unlock()
				if b.n.Load()%3 == 0 {
					_, _ = a.Confirm(ctx, ref) // one that fails leaves a hold
				}
				pause(ctx, time.Millisecond)
			}
		})
	}
	return b
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (b *buyers) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.acked)
}

// more waits until n further orders were acknowledged.
func (b *buyers) more(t *testing.T, n int) {
	t.Helper()
	from := b.count()
	require.Eventually(t, func() bool { return b.count() >= from+n }, 60*time.Second, 5*time.Millisecond, "the sale does not go on")
}

// A running is a RunJournal.
type running struct {
	stop  context.CancelFunc
	ended chan error
}

func run(t *testing.T, a *stock.Activity, sink stock.Sink) *running {
	return goOn(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
}

// goOn runs f until it is stopped, at the end of the test at the latest.
func goOn(t *testing.T, f func(ctx context.Context) error) *running {
	ctx, stop := context.WithCancel(t.Context())
	r := &running{stop, make(chan error, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { r.ended <- f(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return r
}

// supervise is what a program does that does not wait for an operator.
func supervise(t *testing.T, a *stock.Activity, store *stocksql.Store, lost *[]stock.Op) *running {
	return goOn(t, func(ctx context.Context) error {
		for {
			err := a.RunJournal(ctx, store)
			if !errors.Is(err, stock.ErrForked) {
				return err
			}
			undone, err := a.Rebuild(ctx, store)
			if err != nil {
				t.Logf("Rebuild: %v", err)
			}
			*lost = append(*lost, undone...)
		}
	})
}

func (r *running) end() error {
	r.stop()
	return <-r.ended
}

// The master dies during a sale. SQL never has more sold than there was; where it has
// what the new master lacks, that is noticed, although newer entries lie beyond the
// checkpoint, and Rebuild resumes the sale.
func TestFailover(t *testing.T) {
	for _, lagging := range []bool{false, true} {
		t.Run(fmt.Sprintf("lagging=%v", lagging), func(t *testing.T) {
			t.Parallel()
			sites(t, func(t *testing.T, s site) bool { return failover(t, s, lagging) })
		})
	}
}

func failover(t *testing.T, s site, lagging bool) bool {
	ctx := t.Context()
	db := sqltest.SQLite(t)
	store := newStore(t, db)
	loaded := map[string]int64{"tea": 100_000, "cup": 100_000, "pot": 500, "jar": 1}
	jar := func(id string) stock.Order {
		return stock.Order{ID: id, User: id, Items: []stock.Item{{SKU: "jar", Qty: 1}}}
	}
	a, err := stock.New(s.rdb, sale, stock.Options{Linger: linger})
	require.NoError(t, err)
	require.NoError(t, a.Load(ctx, loaded))
	master := s.master()
	awaitReplica(t, master)
	b := startBuyers(t, a)
	var lost []stock.Op
	journal := supervise(t, a, store, &lost)
	b.more(t, 300)
	before := ""
	if lagging {
		// SQL takes in what the replica does not hear of, and above all who has the jar.
		// How much more that is depends on how fast SQL is.
		cutReplica(t, master)
		cut := time.Now()
		place(t, a, jar("sold"))
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		b.more(t, 50)
		awaitCheckpoint(t, store, sale, info.LastEntry)
		require.NoError(t, journal.end())
		before, err = store.Checkpoint(ctx, sale)
		require.NoError(t, err)
		b.more(t, 50)
		if s.fresh > 0 && time.Since(cut) > s.fresh {
			t.Log("the replica was cut off for too long: again")
			return false
		}
	}
	inSQL := orders(t, db)
	if s.master() != master {
		t.Log("a failover before its time: again")
		return false
	}
	began := time.Now()
	s.kill()
	if lagging {
		// The sale goes on, on an older state, with newer ids.
		b.more(t, 100)
		if has(t, a, before) {
			t.Log("the new master was not behind: again")
			return false
		}
		place(t, a, jar("sold again"))
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.Empty(t, info.Forked)
		require.True(t, later(info.LastEntry, before), "newer entries lie beyond the checkpoint")
		journal = run(t, a, store)
		select {
		case err := <-journal.ended:
			require.ErrorIs(t, err, stock.ErrForked)
		case <-time.After(time.Minute):
			t.Fatal("the fork was not noticed")
		}
		_, err = a.Deduct(ctx, stock.Order{ID: "x", User: "x", Items: []stock.Item{{SKU: "tea", Qty: 1}}})
		require.ErrorIs(t, err, stock.ErrHalted)
		require.NoError(t, a.Resume(ctx))
		_, err = a.Deduct(ctx, stock.Order{ID: "x", User: "x", Items: []stock.Item{{SKU: "tea", Qty: 1}}})
		require.ErrorIs(t, err, stock.ErrHalted, "Resume is not enough")
		_, err = a.Reconcile(ctx, store)
		require.ErrorIs(t, err, stock.ErrForked)
		require.Equal(t, inSQL, orders(t, db), "what came after the fork is not in SQL")
		lost, err = a.Rebuild(ctx, store)
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(lost, func(o stock.Op) bool { return o.ID == "sold again" }), "SQL had sold the jar: %v", lost)
		journal = run(t, a, store)
	}
	b.more(t, 300)
	took := time.Since(began)
	info, err := a.Inspect(ctx)
	require.NoError(t, err)
	awaitCheckpoint(t, store, sale, info.LastEntry) // who is there has noticed a fork, if there is one
	d, err := a.Reconcile(ctx, store)
	require.NoError(t, err)
	require.True(t, d.None(), "%+v", d)
	b.stop()
	b.wg.Wait()
	awaitSunk(t, a, store)
	require.NoError(t, journal.end())

	levels, err := a.Stock(ctx)
	require.NoError(t, err)
	inRedis := map[string]units{}
	for sku, l := range levels {
		inRedis[sku] = units{l.Left, l.Reserved, l.Sold}
		require.Equal(t, loaded[sku], l.Left+l.Reserved+l.Sold)
	}
	for _, f := range judgeLevels(readRows(t, db), inRedis, readLevels(t, db)) {
		t.Error(f)
	}
	now := orders(t, db)
	for id := range inSQL {
		require.True(t, now[id], "what SQL had stays: %s", id)
	}
	require.False(t, now["sold again"], "there was one jar")
	gone := 0
	for id := range b.acked {
		if !now[id] {
			gone++
		}
		// Redis has the order if SQL has it, and so a retry is told the same.
		_, err := a.Lookup(ctx, stock.Ref{ID: id, User: "user of " + id})
		if now[id] {
			require.NoError(t, err, id)
		} else {
			require.ErrorIs(t, err, stock.ErrNotFound, id)
		}
	}
	if !lagging {
		require.LessOrEqual(t, gone, 64, "a replica that keeps up loses what is on its way")
	}
	t.Logf("%d orders acknowledged, %d of them lost, %d ops undone by Rebuild; %v from the kill until the sale went on",
		len(b.acked), gone, len(lost), took.Round(time.Millisecond))
	return true
}

// place places an order until it is granted: the failover may be on still.
func place(t *testing.T, a *stock.Activity, o stock.Order) {
	t.Helper()
	o.Retry = true
	for end := time.Now().Add(time.Minute); ; pause(t.Context(), 10*time.Millisecond) {
		_, err := a.Deduct(t.Context(), o)
		if err == nil {
			return
		}
		require.True(t, time.Now().Before(end) && (errors.Is(err, stock.ErrUnavailable) || errors.Is(err, stock.ErrUnknown)), "%v", err)
	}
}

// awaitCheckpoint waits until SQL has what came after the entry of the journal.
func awaitCheckpoint(t *testing.T, store *stocksql.Store, journal, entry string) {
	t.Helper()
	require.Eventually(t, func() bool {
		at, err := store.Checkpoint(t.Context(), journal)
		return err == nil && later(at, entry)
	}, time.Minute, 10*time.Millisecond, "SQL does not keep up")
}

// later tells whether the entry with the id a comes after that with the id b. As texts,
// 1-10 comes before 1-9.
func later(a, b string) bool {
	var ams, aseq, bms, bseq int64
	_, _ = fmt.Sscanf(a, "%d-%d", &ams, &aseq) // none is the first
	_, _ = fmt.Sscanf(b, "%d-%d", &bms, &bseq)
	return ams > bms || ams == bms && aseq > bseq
}

// has tells whether the journal has the entry.
func has(t *testing.T, a *stock.Activity, id string) bool {
	t.Helper()
	for e, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		if e.ID == id {
			return true
		}
	}
	return false
}

// orders returns the orders that SQL has.
func orders(t *testing.T, db sqltest.Database) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, l := range readRows(t, db) {
		if l.Kind == "deduct" || l.Kind == "reserve" {
			ids[l.Order] = true
		}
	}
	return ids
}

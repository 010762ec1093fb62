package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/stock"
)

// A hotPurchase is the config of a process that buys from an activity with buckets.
type hotPurchase struct {
	purchase
	Addrs   []string
	Buckets int
}

func openHot(addrs []string, prefix string, hold time.Duration, buckets int) (*stock.Activity, redis.UniversalClient, error) {
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ClusterStateReloadInterval: time.Second})
	a, err := stock.New(rdb, "sale", stock.Options{Prefix: prefix, Hold: hold, UserLimit: 50, SoldOutFor: -1, Buckets: buckets})
	return a, rdb, err
}

// buyHot is the job of such a process. It goes on until it is killed or has sold out.
func buyHot(ctx context.Context, w *Worker) error {
	var c hotPurchase
	if err := w.Config(&c); err != nil {
		return err
	}
	a, rdb, err := openHot(c.Addrs, c.Prefix, c.Hold, c.Buckets)
	if err != nil {
		return err
	}
	defer rdb.Close()
	return errors.Join(c.buyAll(ctx, w, a), a.Close(ctx))
}

// hotEvidence is what the journals of all buckets say.
type hotEvidence struct {
	loaded, left, sold map[string]int64
	gives, takes       map[string]int
	history            map[string][]stock.OpKind
	journal            []stock.Op // of each bucket in turn
	buckets            []int      // by op
}

// judgeHot adds the journals up: stock that left a bucket and did not arrive is lost,
// stock that arrived and did not leave is minted.
func judgeHot(e *hotEvidence) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	e.left, e.sold, e.gives, e.takes = map[string]int64{}, map[string]int64{}, map[string]int{}, map[string]int{}
	e.history = map[string][]stock.OpKind{}
	total, here := map[string]int64{}, map[string]int64{}
	for i, o := range e.journal {
		had := e.history[o.ID]
		open := len(had) > 0 && (had[len(had)-1] == stock.OpReserve || had[len(had)-1] == stock.OpDeduct)
		sign := int64(0)
		switch o.Kind {
		case stock.OpLoad:
			sign = 1
		case stock.OpGive:
			sign = -1
			e.gives[o.ID]++
		case stock.OpTake:
			sign = 1
			e.takes[o.ID]++
		case stock.OpReserve, stock.OpDeduct:
			sign = -1
			if len(had) > 0 {
				fault("%s is granted after %v", o.ID, had)
			}
		case stock.OpConfirm, stock.OpCancel, stock.OpExpire:
			if o.Kind != stock.OpConfirm {
				sign = 1
			}
			if !open {
				fault("%s: %s after %v", o.ID, o.Kind, had)
			}
		default:
			continue
		}
		if o.ID != "" && o.Kind != stock.OpGive && o.Kind != stock.OpTake {
			e.history[o.ID] = append(slices.Clone(had), o.Kind)
		}
		for _, it := range o.Items {
			at := fmt.Sprint(it.SKU, e.buckets[i])
			if here[at] += sign * it.Qty; here[at] < 0 {
				fault("bucket %d is oversold by %v", e.buckets[i], o)
			}
			e.left[it.SKU] += sign * it.Qty
			switch o.Kind {
			case stock.OpLoad:
				total[it.SKU] += it.Qty
			case stock.OpReserve, stock.OpDeduct:
				e.sold[it.SKU] += it.Qty
			case stock.OpCancel, stock.OpExpire:
				e.sold[it.SKU] -= it.Qty
			}
		}
	}
	for id, n := range e.gives {
		if n != 1 || e.takes[id] != 1 {
			fault("transfer %s was given %d times and taken %d times", id, n, e.takes[id])
		}
	}
	for id := range e.takes {
		if e.gives[id] == 0 {
			fault("transfer %s was never given", id)
		}
	}
	for sku, n := range e.loaded {
		if total[sku] != n || e.left[sku]+e.sold[sku] != n {
			fault("%s: loaded %d of %d, %d left, %d sold and held", sku, total[sku], n, e.left[sku], e.sold[sku])
		}
	}
	return faults
}

// Half of the processes that buy are killed while stock moves between the buckets of
// a cluster with three masters.
func TestStockInBuckets(t *testing.T) {
	t.Parallel()
	processes, goroutines, orders := 6, 8, 60
	loaded := map[string]int64{"tea": 120, "cup": 60, "pot": 200}
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		processes, goroutines, orders = 12, 32, 250
		loaded = map[string]int64{"tea": 4000, "cup": 2000, "pot": 6000}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	cluster := redistest.Cluster(t, 3, 0)
	var addrs []string
	for _, p := range cluster.Nodes() {
		addrs = append(addrs, p.Addr())
	}
	const hold, buckets = 100 * time.Millisecond, 4
	prefix := redistest.Prefix(t)
	a, rdb, err := openHot(addrs, prefix, hold, buckets)
	require.NoError(t, err)
	defer rdb.Close()
	require.NoError(t, a.Load(t.Context(), loaded))

	var mu sync.Mutex
	var deeds []deed
	workers := make([]*Process, processes)
	doomed := make([]chan struct{}, processes/2)
	for i := range workers {
		config := hotPurchase{
			purchase: purchase{Prefix: prefix, Process: i, Goroutines: goroutines, Orders: orders, Seed: seed, Hold: hold},
			Addrs:    addrs, Buckets: buckets,
		}
		var told atomic.Int64
		limit := int64(0) // answers after which it is killed
		if i < len(doomed) {
			doomed[i] = make(chan struct{})
			limit = int64(goroutines * orders / 4 * (i + 2) / 2)
		}
		workers[i] = Start(t, "buy hot", config, func(d deed) {
			mu.Lock()
			defer mu.Unlock()
			deeds = append(deeds, d)
			if told.Add(1) == limit {
				close(doomed[i])
			}
		})
	}
	killed := 0
	for i, dies := range doomed {
		select {
		case <-dies:
		case <-workers[i].ended:
		}
		workers[i].Kill()
		if workers[i].Wait() != nil {
			killed++
		}
	}
	require.Positive(t, killed, "all had ended by themselves")
	for _, w := range workers[len(doomed):] {
		require.NoError(t, w.Wait())
	}

	// What nobody paid for, and what was on its way when somebody died, comes back.
	stop := endHolds(t, a)
	var e hotEvidence
	require.Eventually(t, func() bool {
		e = hotEvidence{loaded: loaded}
		e.collect(t, a)
		return len(judgeHot(&e)) == 0
	}, time.Minute, 200*time.Millisecond, "faults remain: %v", &lateFaults{&e})
	stop()
	require.NotEmpty(t, e.gives, "nothing moved")
	for _, d := range deeds {
		if kind := (map[string]stock.OpKind{"reserve": stock.OpReserve, "deduct": stock.OpDeduct, "confirm": stock.OpConfirm, "cancel": stock.OpCancel})[d.Verb]; d.Err == "" && !slices.Contains(e.history[d.ID], kind) {
			t.Errorf("acknowledged, but not in a journal: %+v, %v", d, e.history[d.ID])
		}
	}

	// The rest sells to the last unit.
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for sku := range loaded {
		l := levels[sku]
		require.Equal(t, stock.Level{Left: e.left[sku], Sold: e.sold[sku], Version: l.Version}, l)
		sellOut(t, a, sku, l.Left)
	}
	t.Logf("%d answers, %d processes killed, %d journal ops, %d transfers", len(deeds), killed, len(e.journal), len(e.gives))

	for name, tamper := range map[string]func(o stock.Op) []stock.Op{
		"a transfer that is lost":    func(o stock.Op) []stock.Op { return without(o, stock.OpTake) },
		"a transfer from nowhere":    func(o stock.Op) []stock.Op { return without(o, stock.OpGive) },
		"an order granted elsewhere": func(o stock.Op) []stock.Op { return twice(o, stock.OpDeduct) },
	} {
		t.Run("the oracle sees "+name, func(t *testing.T) {
			bad := hotEvidence{loaded: loaded}
			done := false
			for i, o := range e.journal {
				now := []stock.Op{o}
				if !done {
					now = tamper(o)
					done = len(now) != 1
				}
				for _, o := range now {
					bad.journal, bad.buckets = append(bad.journal, o), append(bad.buckets, e.buckets[i])
				}
			}
			require.True(t, done)
			require.NotEmpty(t, judgeHot(&bad))
		})
	}
}

// lateFaults prints the faults that there are when it is printed.
type lateFaults struct{ e *hotEvidence }

func (l *lateFaults) String() string { return fmt.Sprint(judgeHot(l.e)) }

func without(o stock.Op, kind stock.OpKind) []stock.Op {
	if o.Kind == kind {
		return nil
	}
	return []stock.Op{o}
}

func twice(o stock.Op, kind stock.OpKind) []stock.Op {
	if o.Kind == kind {
		return []stock.Op{o, o}
	}
	return []stock.Op{o}
}

func (e *hotEvidence) collect(t *testing.T, a *stock.Activity) {
	last := map[int]string{}
	for entry, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		if before, ok := last[entry.Bucket]; ok {
			require.Equal(t, before, entry.Prev)
		}
		last[entry.Bucket] = entry.ID
		for _, o := range entry.Ops {
			e.journal, e.buckets = append(e.journal, o), append(e.buckets, entry.Bucket)
		}
	}
}

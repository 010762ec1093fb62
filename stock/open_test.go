package stock

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // the parallel ones wait most of the time; the command line has the last word
	m.Run()
}

// open returns an activity under a prefix of its own, if opts names none.
func open(t testing.TB, rdb redis.UniversalClient, opts Options) *Activity {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	a, err := New(rdb, "sale", opts)
	require.NoError(t, err)
	return a
}

// each runs f everywhere with a loaded activity that never answers from memory.
func each(t *testing.T, opts Options, stock map[string]int64, f func(t *testing.T, a *Activity)) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := opts
		opts.SoldOutFor = -1
		a := open(t, rdb, opts)
		if stock != nil {
			require.NoError(t, a.Load(t.Context(), stock))
		}
		f(t, a)
	})
}

// tea is an order of qty units of one SKU.
func tea(id, user string, qty int64) Order {
	return Order{ID: id, User: user, Items: []Item{{"tea", qty}}}
}

// requireLevels compares all levels, but for their versions.
func requireLevels(t testing.TB, a *Activity, want map[string]Level) {
	t.Helper()
	got, err := a.Stock(t.Context())
	require.NoError(t, err)
	for sku, l := range got {
		require.Positive(t, l.Version, "version of %q", sku)
		l.Version = 0
		got[sku] = l
	}
	require.Equal(t, want, got)
}

// requireTea compares the level of tea alone.
func requireTea(t testing.TB, a *Activity, left, reserved, sold int64) {
	t.Helper()
	got, err := a.Stock(t.Context(), "tea")
	require.NoError(t, err)
	l := got["tea"]
	l.Version = 0
	require.Equal(t, Level{Left: left, Reserved: reserved, Sold: sold}, l)
}

// journal returns the activity's entries, after a look at what every journal
// promises: an unbroken chain and ids that grow.
func journal(t testing.TB, a *Activity) []Entry {
	t.Helper()
	var all []Entry
	last := "0-0"
	for e, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, last, e.Prev, "predecessor of %s", e.ID)
		require.NotEmpty(t, e.Ops, "entry %s", e.ID)
		last = e.ID
		all = append(all, e)
	}
	return all
}

// ops returns the journal's ops, all in one row.
func ops(t testing.TB, a *Activity) []Op {
	t.Helper()
	var all []Op
	for _, e := range journal(t, a) {
		all = append(all, e.Ops...)
	}
	return all
}

// kinds returns what happened to one order or restock id, in order.
func kinds(t testing.TB, a *Activity, id string) []OpKind {
	t.Helper()
	var all []OpKind
	for _, o := range ops(t, a) {
		if o.ID == id && o.Kind != OpCrossing {
			all = append(all, o.Kind)
		}
	}
	return all
}

// crossings returns the journal's events, after a look at their versions.
func crossings(t testing.TB, a *Activity) []Event {
	t.Helper()
	var all []Event
	versions := map[string]int64{}
	for _, o := range ops(t, a) {
		if o.Kind != OpCrossing {
			continue
		}
		require.Greater(t, o.Event.Version, versions[o.Event.SKU], "version of %q", o.Event.SKU)
		versions[o.Event.SKU] = o.Event.Version
		o.Event.Version = 0
		all = append(all, o.Event)
	}
	return all
}

// keysOf returns the keys of the activity, by SCAN.
func keysOf(t testing.TB, rdb redis.UniversalClient, a *Activity) []string {
	t.Helper()
	var mu sync.Mutex // of several masters at once
	found := map[string]bool{}
	scan := func(ctx context.Context, c redis.Cmdable) error {
		it := c.Scan(ctx, 0, a.opts.Prefix+":*", 1000).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			found[it.Val()] = true
			mu.Unlock()
		}
		return it.Err()
	}
	if c, ok := rdb.(*redis.ClusterClient); ok {
		require.NoError(t, c.ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error { return scan(ctx, node) }))
	} else {
		require.NoError(t, scan(t.Context(), rdb))
	}
	return slices.Sorted(maps.Keys(found))
}

// start runs f in a goroutine until the end of the test or the call of stop,
// which waits for it.
func start(t testing.TB, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits, for far longer than it should take.
func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 2*time.Millisecond, what)
}

// soak tells whether the sizes named in what is promised are run in full.
func soak() bool { return os.Getenv("SPILLWAY_SOAK") == "1" }

// seed returns a fresh seed, or that of SPILLWAY_SEED, and prints it.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v := os.Getenv("SPILLWAY_SEED"); v != "" {
		_, err := fmt.Sscan(v, &s)
		require.NoError(t, err)
	}
	t.Logf("SPILLWAY_SEED=%d", s)
	return s
}

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/stock"
)

// A purchase is the config of a buying process.
type purchase struct {
	Addr, Prefix       string
	Process            int
	Goroutines, Orders int
	Seed               uint64
	Hold               time.Duration
}

// A deed is what a buying process was told of one call.
type deed struct {
	ID, User string
	Verb     string      // reserve, deduct, confirm, cancel
	State    stock.State // None with an error
	Items    []stock.Item
	Err      string
	Unknown  bool // the call may have had its effect all the same
}

func open(addr, prefix string, hold time.Duration) (*stock.Activity, *redis.Client, error) {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	a, err := stock.New(rdb, "sale", stock.Options{Prefix: prefix, Hold: hold, UserLimit: 50})
	return a, rdb, err
}

// buy is the job of a buying process.
func buy(ctx context.Context, w *Worker) error {
	var c purchase
	if err := w.Config(&c); err != nil {
		return err
	}
	a, rdb, err := open(c.Addr, c.Prefix, c.Hold)
	if err != nil {
		return err
	}
	defer rdb.Close()
	runCtx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- a.Run(runCtx) }()
	err = c.buyAll(ctx, w, a)
	stop()
	return errors.Join(err, <-ran, a.Close(ctx))
}

// buyAll makes the process's orders, each goroutine its own, until ctx ends.
func (c purchase) buyAll(ctx context.Context, w *Worker, a *stock.Activity) error {
	var wg sync.WaitGroup
	errs := make([]error, c.Goroutines)
	for g := range c.Goroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(c.Seed, uint64(c.Process*1000+g)))
			for n := range c.Orders {
				if ctx.Err() == nil && errs[g] == nil {
					errs[g] = buyOne(ctx, w, a, rng, fmt.Sprintf("%d-%d-%d", c.Process, g, n), fmt.Sprintf("all-%d-%d", g, n))
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// buyOne places an order, which one time in eight every process places, and then
// pays, cancels or forgets it.
func buyOne(ctx context.Context, w *Worker, a *stock.Activity, rng *rand.Rand, own, shared string) error {
	id, place, verb := own, a.Reserve, "reserve"
	if rng.IntN(4) == 0 {
		place, verb = a.Deduct, "deduct"
	}
	sku := []string{"tea", "cup", "pot"}[rng.IntN(3)]
	if rng.IntN(8) == 0 {
		id, place, verb, sku = shared, a.Reserve, "reserve", "cup"
	}
	ref := stock.Ref{ID: id, User: "user of " + id}
	res, err := place(ctx, stock.Order{ID: id, User: ref.User, Items: []stock.Item{{SKU: sku, Qty: 1}}})
	if err := report(w, ref, verb, res, err); err != nil || res.State != stock.Reserved && res.State != stock.Sold {
		return err
	}
	switch p := rng.IntN(10); {
	case p < 5:
		res, err = a.Confirm(ctx, ref)
		return report(w, ref, "confirm", res, err)
	case p < 8:
		res, err = a.Cancel(ctx, ref, "no money")
		return report(w, ref, "cancel", res, err)
	}
	return nil
}

func report(w *Worker, ref stock.Ref, verb string, res stock.Result, err error) error {
	d := deed{ID: ref.ID, User: ref.User, Verb: verb}
	if err == nil {
		d.State, d.Items = res.State, res.Items
	} else {
		d.Err, d.Unknown = err.Error(), errors.Is(err, stock.ErrUnknown)
	}
	return w.Report(d)
}

// An evidence is what the oracle judges a sale by.
type evidence struct {
	loaded  map[string]int64
	journal []stock.Op
	levels  map[string]stock.Level
	deeds   []deed // of all processes
	killed  int    // the process whose orders may be missing from deeds; -1 for none
}

// judge adds the journal up by itself: it knows nothing of how stock works.
func judge(e evidence) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	left, reserved, sold := map[string]int64{}, map[string]int64{}, map[string]int64{}
	history := map[string][]stock.OpKind{}
	for _, o := range e.journal {
		had := history[o.ID]
		last := stock.OpKind(0)
		if len(had) > 0 {
			last = had[len(had)-1]
		}
		open := last == stock.OpReserve || last == stock.OpDeduct
		switch o.Kind {
		case stock.OpReserve, stock.OpDeduct:
			if last != 0 {
				fault("%s is granted after %v", o.ID, had)
			}
		case stock.OpConfirm, stock.OpCancel:
			if !open {
				fault("%s: %s after %v", o.ID, o.Kind, had)
			}
		case stock.OpExpire:
			if last != stock.OpReserve {
				fault("%s: %s after %v", o.ID, o.Kind, had)
			}
		}
		if o.Kind != stock.OpCrossing && o.Kind != stock.OpLoad {
			history[o.ID] = append(had, o.Kind)
		}
		for _, it := range o.Items {
			from, to := sold, sold
			if last == stock.OpReserve {
				from = reserved
			}
			switch o.Kind {
			case stock.OpLoad:
				left[it.SKU] += it.Qty
				continue
			case stock.OpReserve:
				from, to = left, reserved
			case stock.OpDeduct:
				from, to = left, sold
			case stock.OpCancel, stock.OpExpire:
				to = left
			case stock.OpConfirm:
				to = sold
			}
			from[it.SKU] -= it.Qty
			to[it.SKU] += it.Qty
			if left[it.SKU] < 0 {
				fault("%s is oversold by %v", it.SKU, o)
			}
		}
	}
	for sku, n := range e.loaded {
		l := e.levels[sku]
		if l.Left != left[sku] || l.Reserved != reserved[sku] || l.Sold != sold[sku] || l.Left+l.Reserved+l.Sold != n {
			fault("%s: the server says %+v, the journal %d left, %d reserved, %d sold; loaded were %d",
				sku, l, left[sku], reserved[sku], sold[sku], n)
		}
	}
	wanted := map[string][]stock.OpKind{
		"reserve": {stock.OpReserve}, "deduct": {stock.OpDeduct}, "confirm": {stock.OpConfirm}, "cancel": {stock.OpCancel},
	}
	told := map[string]bool{}
	for _, d := range e.deeds {
		if d.Err == "" || d.Unknown {
			told[d.ID+d.Verb] = true
		}
		if d.Err == "" && !slices.Contains(history[d.ID], wanted[d.Verb][0]) {
			fault("acknowledged, but not in the journal: %+v, %v", d, history[d.ID])
		}
	}
	for id, kinds := range history {
		if strings.HasPrefix(id, fmt.Sprintf("%d-", e.killed)) || strings.HasPrefix(id, "all-") {
			continue
		}
		for verb, kind := range wanted {
			if slices.Contains(kinds, kind[0]) && !told[id+verb] {
				fault("in the journal, but nobody was told: %s %s", verb, id)
			}
		}
	}
	return faults
}

func TestStock(t *testing.T) {
	t.Parallel()
	processes, goroutines, orders := 4, 16, 40
	loaded := map[string]int64{"tea": 300, "cup": 150, "pot": 1 << 30}
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		processes, goroutines, orders = 8, 64, 200
		loaded = map[string]int64{"tea": 15000, "cup": 5000, "pot": 1 << 30}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	p := redistest.Server(t)
	const hold = 500 * time.Millisecond
	prefix := redistest.Prefix(t)
	a, rdb, err := open(p.Addr(), prefix, hold)
	require.NoError(t, err)
	defer rdb.Close()
	require.NoError(t, a.Load(t.Context(), loaded))

	// The last process is killed in the middle of its work.
	killed := processes - 1
	var mu sync.Mutex
	var deeds []deed
	var ofKilled atomic.Int64
	middle := make(chan struct{})
	var once sync.Once
	workers := make([]*Process, processes)
	began := time.Now()
	for i := range workers {
		config := purchase{Addr: p.Addr(), Prefix: prefix, Process: i, Goroutines: goroutines, Orders: orders, Seed: seed, Hold: hold}
		workers[i] = Start(t, "buy", config, func(d deed) {
			mu.Lock()
			defer mu.Unlock()
			deeds = append(deeds, d)
			if i == killed && ofKilled.Add(1) > int64(goroutines*orders/4) {
				once.Do(func() { close(middle) })
			}
		})
	}
	select {
	case <-middle:
	case <-workers[killed].ended:
	}
	workers[killed].Kill()
	require.ErrorContains(t, workers[killed].Wait(), "killed", "it had ended by itself")
	for _, w := range workers[:killed] {
		require.NoError(t, w.Wait())
	}
	took := time.Since(began)

	// What nobody paid for comes back.
	endHolds(t, a)()

	e := evidence{loaded: loaded, deeds: deeds, killed: killed}
	e.collect(t, a)
	for _, f := range judge(e) {
		t.Error(f)
	}
	for sku := range loaded {
		require.Zero(t, e.levels[sku].Reserved)
	}
	expired := 0
	for _, o := range e.journal {
		if o.Kind == stock.OpExpire {
			expired++
		}
	}
	require.Positive(t, expired, "no hold came back")
	t.Logf("%d answers in %v, %d of them to the process that was killed; %d journal ops, %d holds came back",
		len(deeds), took.Round(time.Millisecond), ofKilled.Load(), len(e.journal), expired)

	// The rest sells to the last unit.
	for _, sku := range []string{"tea", "cup"} {
		sellOut(t, a, sku, e.levels[sku].Left)
	}
	levels, err := a.Stock(t.Context())
	require.NoError(t, err)
	for _, sku := range []string{"tea", "cup"} {
		require.Equal(t, stock.Level{Sold: loaded[sku], Version: levels[sku].Version}, levels[sku])
	}

	t.Run("the oracle sees", func(t *testing.T) { seesTampering(t, e) })
}

// endHolds starts a Run and waits until no hold is open any more.
func endHolds(t *testing.T, a *stock.Activity) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	require.Eventually(t, func() bool {
		info, err := a.Inspect(t.Context())
		return err == nil && info.OpenHolds == 0
	}, time.Minute, 10*time.Millisecond, "holds never come back")
	return func() {
		cancel()
		require.NoError(t, <-ran)
	}
}

// sellOut sells what is left of a SKU, to the last unit.
func sellOut(t *testing.T, a *stock.Activity, sku string, left int64) {
	t.Helper()
	for n := int64(0); n < left; n += 50 {
		id := fmt.Sprintf("rest-%s-%d", sku, n)
		_, err := a.Deduct(t.Context(), stock.Order{ID: id, User: id, Items: []stock.Item{{SKU: sku, Qty: min(50, left-n)}}, Retry: true})
		require.NoError(t, err)
	}
	_, err := a.Deduct(t.Context(), stock.Order{ID: "one more " + sku, User: "u", Items: []stock.Item{{SKU: sku, Qty: 1}}, Retry: true})
	require.ErrorIs(t, err, stock.ErrInsufficient)
}

func (e *evidence) collect(t *testing.T, a *stock.Activity) {
	last := "0-0"
	for entry, err := range a.Entries(t.Context(), "") {
		require.NoError(t, err)
		require.Equal(t, last, entry.Prev)
		last = entry.ID
		e.journal = append(e.journal, entry.Ops...)
	}
	var err error
	e.levels, err = a.Stock(t.Context())
	require.NoError(t, err)
}

// seesTampering: what each kind of bug would leave behind is a fault.
func seesTampering(t *testing.T, e evidence) {
	find := func(ok func(stock.Op) bool) int {
		i := slices.IndexFunc(e.journal, ok)
		require.GreaterOrEqual(t, i, 0)
		return i
	}
	mine := func(o stock.Op, kind stock.OpKind) bool { return o.Kind == kind && strings.HasPrefix(o.ID, "0-") }
	for name, tamper := range map[string]func(e *evidence){
		"an acknowledged order that is not in the journal": func(e *evidence) {
			i := find(func(o stock.Op) bool { return mine(o, stock.OpReserve) })
			id := e.journal[i].ID
			e.journal = slices.DeleteFunc(slices.Clone(e.journal), func(o stock.Op) bool { return o.ID == id })
		},
		"an order granted twice": func(e *evidence) {
			i := find(func(o stock.Op) bool { return mine(o, stock.OpDeduct) })
			e.journal = slices.Insert(slices.Clone(e.journal), i, e.journal[i])
		},
		"a hold that ends twice": func(e *evidence) {
			i := find(func(o stock.Op) bool { return mine(o, stock.OpCancel) })
			e.journal = slices.Insert(slices.Clone(e.journal), i, e.journal[i])
		},
		"a unit too many": func(e *evidence) {
			l := e.levels["tea"]
			l.Sold++
			e.levels = map[string]stock.Level{"tea": l, "cup": e.levels["cup"], "pot": e.levels["pot"]}
		},
		"a confirm that nobody was told of": func(e *evidence) {
			i := find(func(o stock.Op) bool { return mine(o, stock.OpConfirm) })
			id := e.journal[i].ID
			e.deeds = slices.DeleteFunc(slices.Clone(e.deeds), func(d deed) bool { return d.ID == id && d.Verb == "confirm" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := e
			tamper(&bad)
			require.NotEmpty(t, judge(bad))
		})
	}
}

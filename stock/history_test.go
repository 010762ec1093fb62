package stock

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A history is many goroutines that call several sellers of one activity, in
// rounds: after each the oracle looks at what they were told.
type history struct {
	seed       uint64
	ops        int // in all
	goroutines int
	perRound   int // calls of each goroutine
	stock      map[string]int64
	opts       Options
	simple     bool            // no partial orders, and no callers who leave
	during     func(round int) // what happens beside the calls of a round
	meet       []error         // a short history goes on until somebody was told each of them

	newest atomic.Int64 // number of the newest order id
}

var historyStock = map[string]int64{"tea": 60, "cup": 25, "pot": 0, "jar": 300}

func newHistory(seed uint64, ops int) *history {
	return &history{
		seed: seed, ops: ops, goroutines: 64, perRound: 16, stock: historyStock,
		opts: Options{Hold: 100 * time.Millisecond, UserLimit: 14, UserSKULimit: 8},
	}
}

// content returns what an id stands for: the same for everybody who asks, but for
// one caller in thirty, who is mistaken about it.
func (h *history) content(rng *rand.Rand, n int64) (o Order, verb byte) {
	id := fmt.Sprintf("order-%d", n)
	sum := fnv.New64a()
	_, _ = fmt.Fprint(sum, h.seed, id) // a hash takes everything
	of := rand.New(rand.NewPCG(sum.Sum64(), 0))
	wrong := int64(0)
	if rng.IntN(30) == 0 {
		of, wrong = rng, 4
	}
	skus := []string{"tea", "cup", "pot", "jar"}
	o = Order{ID: id, User: fmt.Sprintf("user-%d", (n+of.Int64N(3))/6)}
	o.Partial = of.IntN(5) == 0 && !h.simple
	first := of.IntN(len(skus))
	for k := range 1 + of.IntN(2) {
		o.Items = append(o.Items, Item{skus[(first+k)%len(skus)], 1 + wrong + of.Int64N(4)})
	}
	if of.IntN(200) == 0 {
		o.Items[0].SKU = "nothing"
	}
	if of.IntN(3) == 0 {
		return o, 'D'
	}
	return o, 'R'
}

// next makes one random call.
func (h *history) next(ctx context.Context, s seller, rng *rand.Rand) call {
	n := h.newest.Load()
	p := rng.IntN(100)
	if p < 40 {
		n = h.newest.Add(1)
	} else {
		n = max(1, n-int64(rng.ExpFloat64()*[]float64{20, 100, 1000}[rng.IntN(3)]))
	}
	o, verb := h.content(rng, n)
	o.Retry = p >= 40 && rng.IntN(2) == 0
	if !h.simple && rng.IntN(50) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(time.Millisecond))))
		defer cancel()
	}
	ref := Ref{o.ID, o.User}
	c := call{verb: verb, order: o, sent: time.Now()}
	switch {
	case p < 58:
		if verb == 'D' {
			c.res, c.err = s.Deduct(ctx, o)
		} else {
			c.res, c.err = s.Reserve(ctx, o)
		}
	case p < 68:
		c.verb = 'C'
		c.res, c.err = s.Confirm(ctx, ref)
	case p < 88:
		c.verb = 'X'
		c.res, c.err = s.Cancel(ctx, ref, "")
	case p < 94:
		c.verb = 'S'
		c.res, c.err = s.Lookup(ctx, ref)
	default:
		c.verb = 'A'
		c.order.Items = []Item{{[]string{"tea", "cup", "pot", "jar"}[n%4], 1 + n%7}}
		c.res, c.err = s.Restock(ctx, o.ID, c.order.Items...)
	}
	c.got = time.Now()
	return c
}

// run drives the sellers until all calls are made or the oracle finds a fault. The
// oracle reads through the witness.
func (h *history) run(t testing.TB, witness seller, sellers ...seller) *oracle {
	ctx := t.Context()
	require.NoError(t, witness.Load(ctx, h.stock))
	o := newOracle(h.opts, h.stock)
	unmet := func() bool { return slices.ContainsFunc(h.meet, func(e error) bool { return o.told[e] == 0 }) }
	for done := 0; (done < h.ops || done < 20*h.ops && unmet()) && len(o.faults) == 0; done += h.goroutines * h.perRound {
		calls := make([][]call, h.goroutines)
		var wg sync.WaitGroup
		for g := range h.goroutines {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(h.seed, uint64(done+g)))
				for range h.perRound {
					calls[g] = append(calls[g], h.next(ctx, sellers[g%len(sellers)], rng))
				}
			})
		}
		wg.Wait()
		var all []call
		for _, c := range calls {
			all = append(all, c...)
		}
		require.NoError(t, o.check(ctx, witness, all))
	}
	return o
}

// sellTheRest: the last unit sells, and not one more.
func sellTheRest(t testing.TB, a *Activity, o *oracle) {
	ctx := t.Context()
	require.NoError(t, o.settle(ctx, a))
	for sku := range o.m.levels {
		for try := 0; ; try++ { // holds end meanwhile
			require.Less(t, try, 1000, "%s never sells out", sku)
			id := fmt.Sprintf("last-%s-%d", sku, try)
			left := o.m.levels[sku].Left
			c := call{verb: 'D', order: Order{ID: id, User: id, Items: []Item{{sku, min(max(left, 1), 8)}}, Retry: true}, sent: time.Now()}
			c.res, c.err = a.Deduct(ctx, c.order)
			c.got = time.Now()
			require.NoError(t, o.check(ctx, a, []call{c}))
			if left == 0 && errors.Is(c.err, ErrInsufficient) {
				break
			}
		}
	}
}

func (o *oracle) require(t testing.TB) {
	t.Helper()
	if len(o.faults) > 0 {
		t.Fatalf("the oracle found:\n%s", strings.Join(o.faults, "\n"))
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	s := seed(t)
	t.Run("server", func(t *testing.T) {
		ops := 10_000
		if soak() {
			ops = 1_000_000
		}
		p := redistest.Shared(t)
		historyWithFaults(t, newHistory(s, ops), p.Client(), func(f *redistest.Faults) redis.UniversalClient {
			return p.Client(f.Options, historyTimeout)
		})
	})
	t.Run("miniredis", func(t *testing.T) {
		m, plain := redistest.Mini(t)
		historyWithFaults(t, newHistory(s, 2000), plain, func(f *redistest.Faults) redis.UniversalClient {
			rdb := redis.NewClient(&redis.Options{Addr: m.Addr(), DialerRetries: 1, Dialer: f.Dialer(nil), ReadTimeout: 300 * time.Millisecond})
			t.Cleanup(func() { rdb.Close() })
			return rdb
		})
	})
}

func shortTimeout(o *redis.Options) { o.ReadTimeout = 50 * time.Millisecond }

// historyTimeout is what a lost reply costs a history in real time. With less, a busy
// machine would be late with many more, and each of them is asked for again.
func historyTimeout(o *redis.Options) { o.ReadTimeout = 200 * time.Millisecond }

// historyWithFaults plays h on three activities, as three processes would have
// them, over connections that lose replies. The first releases holds.
func historyWithFaults(t *testing.T, h *history, plain redis.UniversalClient, client func(*redistest.Faults) redis.UniversalClient) {
	h.opts.Prefix = redistest.Prefix(t)
	var faults redistest.Faults
	var told eventsTold
	var activities []*Activity
	var sellers []seller
	for i := range 3 {
		opts := h.opts
		opts.Unmerged = i == 2
		opts.OnEvent = told.add(i)
		a := open(t, client(&faults), opts)
		activities, sellers = append(activities, a), append(sellers, a)
	}
	witness := open(t, plain, h.opts)
	stop := start(t, activities[0].Run)
	faults.Seed = h.seed
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Times: -1, P: 0.01})
	faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Times: -1, P: 0.005})
	faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha", Times: -1, P: 0.001})

	h.meet = []error{nil, ErrConflict, ErrNoSKU, ErrInsufficient, ErrLimit, ErrNotFound, ErrCancelled, ErrExpired, ErrConfirmed}
	began := time.Now()
	o := h.run(t, witness, sellers...)
	took := time.Since(began)
	faults.Clear()
	o.require(t)
	sellTheRest(t, witness, o)
	o.require(t)
	stop()
	require.NoError(t, o.settle(t.Context(), witness)) // what Run did until then
	o.require(t)
	t.Logf("%d calls in %v, %.0f/s: %d journal ops, %d events, %d answers from memory, %d without an answer; replies lost: %d; told: %v",
		h.ops, took.Round(time.Millisecond), float64(h.ops)/took.Seconds(), o.steps, len(o.events), o.memory, o.unsure,
		faults.Fired(redistest.CutAfter)+faults.Fired(redistest.LoseReply), o.told)
	for _, e := range h.meet {
		require.Positive(t, o.told[e], "nobody was told %v", e)
	}
	require.Positive(t, o.unsure)
	require.Positive(t, o.memory)
	require.Positive(t, faults.Fired(redistest.CutAfter))
	told.require(t, o.events)
}

// eventsTold is what OnEvent was told in each process.
type eventsTold struct {
	mu     sync.Mutex
	events map[int][]Event
}

func (e *eventsTold) add(process int) func(Event) {
	return func(ev Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.events == nil {
			e.events = map[int][]Event{}
		}
		e.events[process] = append(e.events[process], ev)
	}
}

// require demands of every process that it was told of nothing twice, of nothing
// that is not in the journal, and of growing versions.
func (e *eventsTold) require(t testing.TB, journal []Event) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	real := map[Event]bool{}
	for _, ev := range journal {
		real[ev] = true
	}
	for _, events := range e.events {
		last := map[string]int64{}
		for _, ev := range events {
			require.True(t, real[ev], "%+v is not in the journal", ev)
			require.Greater(t, ev.Version, last[ev.SKU], "version of %+v", ev)
			last[ev.SKU] = ev.Version
		}
	}
}

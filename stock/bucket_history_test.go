package stock

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// runDivided is history.run for sellers with several journals.
func (h *history) runDivided(t testing.TB, home func(string) int, witness divided, sellers ...seller) *ledger {
	ctx := t.Context()
	require.NoError(t, witness.Load(ctx, h.stock))
	soldOutFor := h.opts.SoldOutFor
	if soldOutFor == 0 {
		soldOutFor = 100 * time.Millisecond
	}
	l := newLedger(soldOutFor, witness, home)
	l.doubles = home == nil
	for done := 0; done < h.ops && len(l.faults) == 0; done += h.goroutines * h.perRound {
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
		if h.during != nil {
			h.during(done / (h.goroutines * h.perRound))
		}
		wg.Wait()
		var all []call
		for _, c := range calls {
			all = append(all, c...)
		}
		require.NoError(t, l.check(ctx, witness, all))
	}
	return l
}

func (l *ledger) require(t testing.TB) {
	t.Helper()
	for _, f := range l.faults {
		t.Error(f)
	}
	if len(l.faults) > 0 {
		t.FailNow()
	}
}

// historyOfBuckets plays h in three processes over connections that lose replies.
func historyOfBuckets(t *testing.T, h *history, plain redis.UniversalClient, client func(*redistest.Faults) redis.UniversalClient) *ledger {
	h.opts.Prefix = redistest.Prefix(t)
	var faults redistest.Faults
	var sellers []seller
	for i := range 3 {
		opts := h.opts
		opts.Unmerged = i == 2
		sellers = append(sellers, open(t, client(&faults), opts))
	}
	witness := open(t, plain, h.opts)
	stop := start(t, sellers[0].(*Activity).Run)
	faults.Seed = h.seed
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Times: -1, P: 0.01})
	faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Times: -1, P: 0.005})
	faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha", Times: -1, P: 0.001})
	home := func(user string) int { return witness.home(user).bucket }
	l := h.runDivided(t, home, witness, sellers...)
	faults.Clear()
	l.require(t)
	stop()

	// No unit is stranded: all that is left sells, from one home, one by one.
	ctx := t.Context()
	require.NoError(t, l.settle(ctx, witness))
	for sku := range h.stock {
		for n := 0; ; n++ {
			require.Less(t, n, 100_000)
			c := call{verb: 'D', order: Order{ID: "rest-" + sku + string(rune('a'+n%26)) + time.Now().String(), User: "last", Items: []Item{{sku, 1}}, Retry: true}, sent: time.Now()}
			c.res, c.err = witness.Deduct(ctx, c.order)
			c.got = time.Now()
			if n%16 == 0 || c.err != nil {
				require.NoError(t, l.check(ctx, witness, []call{c}))
			}
			if errors.Is(c.err, ErrInsufficient) {
				break
			}
			require.NoError(t, c.err)
		}
	}
	l.require(t)
	t.Logf("%d calls: %s; replies lost: %d", h.ops, l.summary(), faults.Fired(redistest.CutAfter)+faults.Fired(redistest.LoseReply))
	require.NotEmpty(t, l.gives, "nothing moved")
	require.Positive(t, faults.Fired(redistest.CutAfter))
	for _, e := range []error{nil, ErrInsufficient, ErrCancelled} {
		require.Positive(t, l.told[e], "nobody was told %v", e)
	}
	return l
}

// Slots that move in the middle of a sale: unavailable at worst, never wrong, and the
// journals get to the sink whole.
func TestSlotsMoveDuringASale(t *testing.T) {
	t.Parallel()
	c := redistest.Cluster(t, 3, 0)
	h := bucketHistory(seed(t), 4000, 3)
	h.opts.Prefix, h.opts.SoldOutFor = redistest.Prefix(t), -1
	a := open(t, c.Client(), h.opts)
	moved := 0
	h.during = func(round int) {
		k := a.buckets[round%3].keys
		m := c.Migrate(k.levels)
		m.Move(k.levels)
		m.Move(k.holds)
		m.Move(k.stream)
		m.Finish()
		moved++
	}
	require.NoError(t, a.Load(t.Context(), h.stock))
	for _, b := range a.buckets { // the ledger needs the journals untrimmed
		_, _, err := (&feed{a: b, name: "keeper", at: "0-0"}).read(t.Context(), "")
		require.NoError(t, err)
	}
	sink := newRack(a)
	stop := start(t, a.Run)
	stopJournal := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
	l := h.runDivided(t, func(u string) int { return a.home(u).bucket }, a, a, open(t, c.Client(), h.opts))
	stop()
	l.require(t)
	require.Greater(t, moved, 3)
	eventually(t, func() bool {
		return !slices.ContainsFunc(a.buckets, func(b *Activity) bool {
			info, err := b.Inspect(t.Context())
			at, _ := sink.Checkpoint(t.Context(), b.journal)
			return err != nil || info.LastEntry != at
		})
	}, "the sink never has it all")
	stopJournal()
	require.Empty(t, sink.judge(t, a))
	t.Logf("%d slots moved: %s", moved, l.summary())
}

// While the slot of a bucket is between two masters, its orders wait or are refused;
// the others sell, and do not call sold out what may be there.
func TestABucketIsOnItsWay(t *testing.T) {
	t.Parallel()
	c := redistest.Cluster(t, 3, 0)
	a := open(t, c.Client(), Options{Buckets: 3, SoldOutFor: -1})
	ctx := t.Context()
	require.NoError(t, a.Load(ctx, map[string]int64{"tea": 6}))
	m := c.Migrate(a.buckets[1].keys.levels)
	m.Move(a.buckets[1].keys.levels) // the journal stays: scripts get TRYAGAIN
	_, err := a.Deduct(ctx, tea("o", userOf(a, 1), 1))
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = a.Deduct(ctx, tea("o", userOf(a, 0), 4)) // its own two, and two of bucket 2
	require.NoError(t, err)
	_, err = a.Deduct(ctx, tea("p", userOf(a, 2), 1))
	require.ErrorIs(t, err, ErrUnavailable)
	m.Finish()
	_, err = a.Deduct(ctx, tea("p", userOf(a, 2), 1))
	require.NoError(t, err)
	_, err = a.Deduct(ctx, tea("o", userOf(a, 1), 1))
	require.NoError(t, err)
	requireWhole(t, a, 0, 0, 6)
}

func bucketHistory(seed uint64, ops, buckets int) *history {
	h := newHistory(seed, ops)
	h.opts = Options{Hold: 100 * time.Millisecond, Buckets: buckets}
	h.goroutines = 32
	return h
}

func TestHistoryOfBuckets(t *testing.T) {
	t.Parallel()
	s := seed(t)
	ops := 1000
	if soak() {
		ops = 20_000 // eight times
	}
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		c := redistest.Cluster(t, 3, 0)
		client := func(f *redistest.Faults) redis.UniversalClient {
			return c.Client(f.ClusterOptions, func(o *redis.ClusterOptions) { o.ReadTimeout = 200 * time.Millisecond })
		}
		t.Run("1", func(t *testing.T) { historyWithFaults(t, newHistory(s, max(ops, 10_000)), c.Client(), client) })
		for buckets := 2; buckets <= 6; buckets++ {
			t.Run(strconv.Itoa(buckets), func(t *testing.T) {
				historyOfBuckets(t, bucketHistory(s, ops, buckets), c.Client(), client)
			})
		}
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		p := redistest.Shared(t)
		for _, buckets := range []int{4, 5} {
			t.Run("", func(t *testing.T) {
				historyOfBuckets(t, bucketHistory(s, ops, buckets), p.Client(), func(f *redistest.Faults) redis.UniversalClient {
					return p.Client(f.Options, historyTimeout)
				})
			})
		}
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		m, plain := redistest.Mini(t)
		historyOfBuckets(t, bucketHistory(s, 1000, 3), plain, func(f *redistest.Faults) redis.UniversalClient {
			rdb := redis.NewClient(&redis.Options{Addr: m.Addr(), DialerRetries: 1, Dialer: f.Dialer(nil), ReadTimeout: 300 * time.Millisecond})
			t.Cleanup(func() { rdb.Close() })
			return rdb
		})
	})
}

// A prober is what many would write: it asks one bucket after the other, from the
// first, and takes the first that has enough.
type prober struct{ *Activity }

func (p prober) probe(f func(b *Activity) (Result, error), next error) (res Result, err error) {
	for _, b := range p.buckets {
		if res, err = f(b); !errors.Is(err, next) {
			return res, err
		}
	}
	return res, err
}

func (p prober) Deduct(ctx context.Context, o Order) (Result, error) {
	return p.probe(func(b *Activity) (Result, error) { return b.Deduct(ctx, o) }, ErrInsufficient)
}

func (p prober) Reserve(ctx context.Context, o Order) (Result, error) {
	return p.probe(func(b *Activity) (Result, error) { return b.Reserve(ctx, o) }, ErrInsufficient)
}

func (p prober) Confirm(ctx context.Context, r Ref) (Result, error) {
	return p.probe(func(b *Activity) (Result, error) { return b.Confirm(ctx, r) }, ErrNotFound)
}

func (p prober) Cancel(ctx context.Context, r Ref, reason string) (Result, error) {
	for _, b := range p.buckets {
		if _, err := b.Lookup(ctx, r); !errors.Is(err, ErrNotFound) {
			return b.Cancel(ctx, r, reason)
		}
	}
	return Result{}, ErrNotFound
}

// A stayer never moves stock: home alone tells what is sold out.
type stayer struct{ *Activity }

func (s stayer) Deduct(ctx context.Context, o Order) (Result, error) {
	return s.home(o.User).Deduct(ctx, o)
}

func (s stayer) Reserve(ctx context.Context, o Order) (Result, error) {
	return s.home(o.User).Reserve(ctx, o)
}

// What the ledger must see, within a hundredth of what a soak runs.
func TestLedgerCatchesNaiveBuckets(t *testing.T) {
	s := seed(t)
	rdb := redistest.Shared(t).Client()
	for name, sells := range map[string]func(a *Activity) seller{
		"probed one after another": func(a *Activity) seller { return prober{a} },
		"home alone":               func(a *Activity) seller { return stayer{a} },
	} {
		t.Run(name, func(t *testing.T) {
			h := bucketHistory(s, 1000, 6)
			h.goroutines, h.perRound, h.simple = 16, 8, true
			h.stock = map[string]int64{"tea": 60, "cup": 25, "pot": 0, "jar": 60} // buckets run out all the time
			a := open(t, rdb, h.opts)
			home := func(u string) int { return a.home(u).bucket }
			if name == "probed one after another" {
				home = nil
			}
			l := h.runDivided(t, home, a, sells(a))
			require.NotEmpty(t, l.faults, "the ledger saw nothing")
			t.Logf("caught after %d journal ops: %s", l.steps, l.faults[0])
		})
	}
}

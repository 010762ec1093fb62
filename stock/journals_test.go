package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A rack is a ledger in memory for the journals of buckets.
type rack struct {
	mu      sync.Mutex
	shelves map[string]*shelf
	faults  []string
	slow    func() bool // whether Apply fails this time
}

func newRack(a *Activity) *rack {
	r := &rack{shelves: map[string]*shelf{}}
	for _, b := range a.buckets {
		r.shelves[b.journal] = newShelf()
	}
	return r
}

func (r *rack) Name() string { return "rack" }

func (r *rack) Checkpoint(ctx context.Context, journal string) (string, error) {
	return r.shelves[journal].Checkpoint(ctx, journal)
}

// Apply sees to it that what arrives was given.
func (r *rack) Apply(ctx context.Context, journal, from string, batch []Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slow != nil && r.slow() {
		return errors.New("down")
	}
	if err := r.shelves[journal].Apply(ctx, journal, from, batch); err != nil {
		return err
	}
	r.faults = append(r.faults, r.unmatched()...)
	return nil
}

func (r *rack) Levels(ctx context.Context, journal string) (string, map[string]Level, map[string]Level, error) {
	return r.shelves[journal].Levels(ctx, journal)
}

func (r *rack) Entries(ctx context.Context, journal string) iter.Seq2[Entry, error] {
	return r.shelves[journal].Entries(ctx, journal)
}

// transfers returns what was given and what was taken.
func (r *rack) transfers() (gives, takes map[string][]Item) {
	gives, takes = map[string][]Item{}, map[string][]Item{}
	for _, s := range r.shelves {
		for _, e := range s.entries {
			for _, o := range e.Ops {
				switch o.Kind {
				case OpGive:
					gives[o.ID] = o.Items
				case OpTake:
					takes[o.ID] = o.Items
				}
			}
		}
	}
	return gives, takes
}

// unmatched tells of takes without a give.
func (r *rack) unmatched() (faults []string) {
	gives, takes := r.transfers()
	for id, items := range takes {
		if !slices.Equal(gives[id], items) {
			faults = append(faults, fmt.Sprintf("%s took %v of %v", id, items, gives[id]))
		}
	}
	return faults
}

// judge tells of units that are there twice or not at all, in the ledger and in Redis,
// which has been brought there whole.
func (r *rack) judge(t testing.TB, a *Activity) (faults []string) {
	t.Helper()
	faults = append(r.faults, r.unmatched()...)
	gives, takes := r.transfers()
	maps.DeleteFunc(gives, func(id string, _ []Item) bool { return takes[id] != nil })
	for _, on := range onTheirWay(a.look(t.Context(), nil)) {
		if slices.Equal(gives[on.id()], on.items) || len(on.items) == 0 {
			delete(gives, on.id())
		} else {
			faults = append(faults, fmt.Sprintf("Redis has %v on its way, the ledger %v", on, gives))
		}
	}
	if len(gives) > 0 {
		faults = append(faults, fmt.Sprintf("lost on their way: %v", gives))
	}
	granted := map[Ref]string{}
	for _, b := range a.buckets {
		for sku, l := range r.shelves[b.journal].levels {
			if l.Left < 0 || l.Reserved < 0 || l.Sold < 0 {
				faults = append(faults, fmt.Sprintf("%s: %s is %+v", b.journal, sku, l))
			}
		}
		for _, e := range r.shelves[b.journal].entries {
			for _, o := range e.Ops {
				if o.Kind == OpDeduct || o.Kind == OpReserve {
					if was := granted[Ref{o.ID, o.User}]; was != "" {
						faults = append(faults, fmt.Sprintf("%s of %s is granted in %s and in %s", o.ID, o.User, was, b.journal))
					}
					granted[Ref{o.ID, o.User}] = b.journal
				}
			}
		}
	}
	d, err := a.Reconcile(t.Context(), r)
	require.NoError(t, err)
	if !d.None() {
		faults = append(faults, fmt.Sprintf("%+v", d))
	}
	return faults
}

// sunk tells whether the rack has all journals whole.
func (r *rack) sunk(t testing.TB, a *Activity) bool {
	for _, b := range a.buckets {
		info, err := b.Inspect(t.Context())
		at, _ := r.Checkpoint(t.Context(), b.journal)
		if err != nil || info.LastEntry != at || info.Sunk != at {
			return false
		}
	}
	return true
}

// Two processes bring the journals of all buckets to a sink while stock moves: every
// entry once, no take before its give, and the sums agree.
func TestRunJournalOfBuckets(t *testing.T) {
	t.Parallel()
	eachBucketed(t, Options{SoldOutFor: -1, Linger: time.Millisecond}, map[string]int64{"tea": 60, "cup": 60}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		sink := newRack(a)
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(seed(t), 1))
		sink.slow = func() bool { mu.Lock(); defer mu.Unlock(); return rng.IntN(8) == 0 }
		stop1 := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		other := open(t, a.rdb, a.opts)
		stop2 := start(t, func(ctx context.Context) error { return other.RunJournal(ctx, sink) })
		var wg sync.WaitGroup
		for g := range 6 {
			wg.Go(func() {
				for i := range 20 {
					ref := Ref{fmt.Sprint("o", g, "-", i), userOf(a, g%3)}
					sku := []string{"tea", "cup"}[i%2]
					_, err := a.Reserve(ctx, Order{ID: ref.ID, User: ref.User, Items: []Item{{sku, int64(1 + i%7)}}})
					if err == nil && i%3 > 0 {
						_, err = a.Cancel(ctx, ref, "no")
					}
					if err != nil && !errors.Is(err, ErrInsufficient) && !errors.Is(err, ErrContended) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, func() bool { return sink.sunk(t, a) }, "the sink never has it all")
		stop1()
		stop2()
		require.Empty(t, sink.judge(t, a))
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.Len(t, info.LastEntries, 3)
		for i, name := range a.opts.Journals("sale") {
			require.Equal(t, "sale%b3."+strconv.Itoa(i), name)
			require.Equal(t, sink.shelves[name].at(), info.LastEntries[name])
		}
		gives, _ := sink.transfers()
		require.NotEmpty(t, gives, "nothing moved")
		for _, b := range a.buckets {
			require.Equal(t, journal(t, b), sink.shelves[b.journal].entries)
			require.Equal(t, b.bucket, sink.shelves[b.journal].entries[0].Bucket)
		}
		require.Positive(t, a.Stats().Journaled)
		sink.shelves[a.buckets[1].journal].levels["tea"] = Level{Left: 1}
		d, err := a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.NotContains(t, d.Redis, "cup")
		require.EqualValues(t, 60, d.Redis["tea"].Left+d.Redis["tea"].Reserved+d.Redis["tea"].Sold)
		require.NotEqual(t, d.Redis["tea"], d.Kept["tea"])
		require.NoError(t, a.RemoveSink(ctx, "rack"))
	})
}

// What went to and fro within a moment is no longer on its way to the sink than anything
// else: each take waits for its give, not for a while.
func TestBubbleTransfersToAndFro(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{Buckets: 2, SoldOutFor: -1, Linger: 10 * time.Second})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 8}))
		for i := range 20 {
			ref := Ref{fmt.Sprint("o", i), userOf(a, i%2)}
			_, err := a.Deduct(ctx, tea(ref.ID, ref.User, 8))
			require.NoError(t, err)
			_, err = a.Cancel(ctx, ref, "no")
			require.NoError(t, err)
		}
		gives, _ := transfers(t, a)
		require.Equal(t, 20, gives)
		sink := newRack(a)
		stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		time.Sleep(2*a.opts.Linger + maxSleep)
		synctest.Wait()
		for _, b := range a.buckets {
			info, err := b.Inspect(ctx)
			require.NoError(t, err)
			require.Equal(t, info.LastEntry, sink.shelves[b.journal].at())
		}
		stop()
		require.Empty(t, sink.judge(t, a))
	})
}

// A bucket that forked halts the others, until Rebuild.
func TestAForkHaltsAllBuckets(t *testing.T) {
	eachBucketed(t, Options{SoldOutFor: -1, Linger: time.Millisecond}, map[string]int64{"tea": 30}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		sink := newRack(a)
		before := saveBucket(t, a.buckets[1])
		_, err := a.Deduct(ctx, tea("lost", userOf(a, 1), 2))
		require.NoError(t, err)
		stop := start(t, func(ctx context.Context) error { return a.RunJournal(ctx, sink) })
		eventually(t, func() bool { return sink.sunk(t, a) }, "the sink never has it all")
		stop()
		before.restore(t)
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		require.NoError(t, a.Resume(ctx))
		for bucket := range 3 {
			_, err := a.Deduct(ctx, tea("o", userOf(a, bucket), 1))
			require.ErrorIs(t, err, ErrHalted, bucket)
		}
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.NotEmpty(t, info.Forked)
		_, err = a.Reconcile(ctx, sink)
		require.ErrorIs(t, err, ErrForked)
		lost, err := a.Rebuild(ctx, sink)
		require.NoError(t, err)
		require.Empty(t, lost)
		requireWhole(t, a, 28, 0, 2)
		res, err := a.Deduct(ctx, tea("lost", userOf(a, 1), 2))
		require.NoError(t, err)
		require.True(t, res.Replayed)
		_, err = a.Deduct(ctx, tea("rest", userOf(a, 0), 28))
		require.NoError(t, err)
		lost, err = a.Rebuild(ctx, sink)
		require.NoError(t, err, "there is nothing to rebuild")
		require.Empty(t, lost)
	})
}

// savedBucket is a copy of a bucket, for a failover that goes back to it.
type savedBucket struct {
	b    *Activity
	base string
	ks   []string
}

func saveBucket(t testing.TB, b *Activity) savedBucket {
	t.Helper()
	s := savedBucket{b: b, base: strings.TrimSuffix(b.keys.levels, "levels")}
	for _, k := range s.now(t) {
		copyKey(t, b.rdb, k, k+".saved")
		s.ks = append(s.ks, k)
	}
	return s
}

func (s savedBucket) now(t testing.TB) []string {
	return slices.DeleteFunc(keysOf(t, s.b.rdb, s.b), func(k string) bool {
		return !strings.HasPrefix(k, s.base) || strings.HasSuffix(k, ".saved")
	})
}

func (s savedBucket) restore(t testing.TB) {
	t.Helper()
	for _, k := range s.now(t) {
		require.NoError(t, s.b.rdb.Del(t.Context(), k).Err())
	}
	for _, k := range s.ks {
		require.NoError(t, s.b.rdb.Rename(t.Context(), k+".saved", k).Err())
	}
}

// A failover is a random history over buckets of which some lose their newest writes,
// while a sink is more or less behind.
type failover struct {
	a    *Activity
	sink *rack
	rng  *rand.Rand
	n    int
}

func (f *failover) work(ctx context.Context, calls int) {
	for range calls {
		ref := Ref{fmt.Sprint("o", f.rng.IntN(150)), fmt.Sprint("u", f.rng.IntN(9))}
		o := Order{ID: ref.ID, User: ref.User, Retry: true}
		for _, sku := range []string{"tea", "cup"}[f.rng.IntN(2):] {
			o.Items = append(o.Items, Item{sku, 1 + f.rng.Int64N(9)})
		}
		switch f.rng.IntN(9) { // an answer of any kind will do: the ledger judges
		case 0:
			_, _ = f.a.Confirm(ctx, ref)
		case 1, 2, 3:
			if _, err := f.a.Lookup(ctx, ref); err == nil {
				_, _ = f.a.Cancel(ctx, ref, "why not")
			}
		case 4:
			f.n++
			_, _ = f.a.Restock(ctx, fmt.Sprint("r", f.n), Item{"cup", 1})
		case 5:
			v := f.a.look(ctx, []Item{{"tea", 1}}) // one that nobody takes
			_, _ = f.a.give(ctx, 0, 1, v[1].links[0], []Item{{"tea", 1}})
		case 6, 7:
			_, _ = f.a.Deduct(ctx, o)
		default:
			_, _ = f.a.Reserve(ctx, o)
		}
	}
}

// feed brings some of the journals, or all, to the sink.
func (f *failover) feed(ctx context.Context, all bool) error {
	if all {
		f.sink.slow = nil
	} else {
		f.sink.slow = func() bool { return f.rng.IntN(2) == 0 }
	}
	ctx, cancel := context.WithTimeout(ctx, 4*maxSleep)
	defer cancel()
	if !all {
		time.AfterFunc(time.Duration(f.rng.IntN(30))*time.Millisecond, cancel)
	}
	return f.a.RunJournal(ctx, f.sink)
}

// lose plays it. It returns the error of the RunJournal that follows.
func (f *failover) lose(t testing.TB, run func() error) error {
	ctx := t.Context()
	f.work(ctx, 10+f.rng.IntN(60))
	_ = f.feed(ctx, false)
	var lost []savedBucket
	for _, b := range f.a.buckets {
		if f.rng.IntN(len(f.a.buckets)) == 0 {
			lost = append(lost, saveBucket(t, b))
		}
	}
	f.work(ctx, 1+f.rng.IntN(30))
	_ = f.feed(ctx, false)
	for _, s := range lost {
		s.restore(t)
	}
	time.Sleep(time.Second) // a failover takes time: ids of entries are not used again
	f.work(ctx, f.rng.IntN(30))
	return run()
}

// Whatever a failover takes away: either the activity forked, or all units are there.
// After Rebuild they are, once each, and the sale goes on. Negative control: journals
// that go to the sink each for itself lose and mint units unnoticed.
func TestFailoversOfBuckets(t *testing.T) {
	t.Parallel()
	s := seed(t)
	rounds := uint64(25)
	if soak() {
		rounds = 1500
	}
	play := func(t *testing.T, seed uint64, run func(f *failover, ctx context.Context) error) (forked bool, faults []string, lost int) {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			rng := rand.New(rand.NewPCG(seed, 7))
			f := &failover{rng: rng, a: open(t, b.Client(), Options{
				Buckets: 2 + rng.IntN(3), SoldOutFor: -1, Hold: time.Hour, Linger: time.Millisecond, UserLimit: 60,
			})}
			f.sink = newRack(f.a)
			require.NoError(t, f.a.Load(t.Context(), map[string]int64{"tea": 40, "cup": 25}))
			err := f.lose(t, func() error { return run(f, t.Context()) })
			if errors.Is(err, ErrForked) {
				forked = true
				undone, err := f.a.Rebuild(t.Context(), f.sink)
				require.NoError(t, err)
				lost = len(undone)
				require.NoError(t, f.feed(t.Context(), true), "it forked again")
				require.Empty(t, onTheirWay(f.a.look(t.Context(), nil)), "what was on its way has arrived")
				f.work(t.Context(), 30)
				require.NoError(t, f.feed(t.Context(), true))
			} else {
				require.NoError(t, err)
			}
			for _, b := range f.a.buckets {
				info, err := b.Inspect(t.Context())
				require.NoError(t, err)
				require.Equal(t, info.LastEntry, f.sink.shelves[b.journal].at(), "SPILLWAY_SEED=%d: the sink never has it all, forked: %v", seed, forked)
			}
			faults = f.sink.judge(t, f.a)
			for _, b := range f.a.buckets { // who bought has it, and nobody twice
				for _, e := range f.sink.shelves[b.journal].entries {
					for _, o := range e.Ops {
						if o.Kind == OpDeduct || o.Kind == OpReserve {
							_, err := f.a.Lookup(t.Context(), Ref{o.ID, o.User})
							require.NoError(t, err)
						}
					}
				}
			}
		})
		return forked, faults, lost
	}
	forks, undone := 0, 0
	for i := range rounds {
		forked, faults, lost := play(t, s+i, func(f *failover, ctx context.Context) error { return f.feed(ctx, true) })
		if forked {
			forks++
		}
		undone += lost
		require.Empty(t, faults, "SPILLWAY_SEED=%d, forked: %v", s+i, forked)
	}
	require.Positive(t, forks)
	require.Less(t, uint64(forks), rounds)
	t.Logf("%d of %d forked, %d ops undone", forks, rounds, undone)

	t.Run("each for itself", func(t *testing.T) {
		for i := range 8 * rounds {
			_, faults, _ := play(t, s+i, func(f *failover, ctx context.Context) error {
				f.sink.slow = nil
				ctx, cancel := context.WithTimeout(ctx, 4*maxSleep)
				defer cancel()
				return together(f.a.buckets, func(b *Activity) error { return b.RunJournal(ctx, f.sink) })
			})
			if len(faults) > 0 {
				t.Logf("caught after %d failovers: %s", i+1, faults[0])
				return
			}
		}
		t.Error("the oracle sees nothing")
	})
}

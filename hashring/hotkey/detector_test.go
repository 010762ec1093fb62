package hotkey

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newTestDetector(t testing.TB, opts Options) *Detector {
	t.Helper()
	d, err := NewDetector(opts)
	require.NoError(t, err)
	return d
}

// A traffic is what a process sees: some keys with a share of their own, the rest
// spread over a long tail.
type traffic struct {
	rng    *rand.Rand
	shares map[string]float64
	tail   *rand.Zipf
	prefix string
}

func (tr *traffic) next() string {
	x := tr.rng.Float64()
	for k, share := range tr.shares {
		if x -= share; x < 0 {
			return k
		}
	}
	return fmt.Sprint(tr.prefix, tr.tail.Uint64())
}

// pass lets d see a time of traffic at a rate a second, in virtual time.
func (tr *traffic) pass(d *Detector, rate int, span time.Duration) {
	const step = 5 * time.Millisecond
	for range span / step {
		for range rate * int(step) / int(time.Second) {
			d.Observe(tr.next())
		}
		time.Sleep(step)
	}
}

// planted returns traffic with 20 keys of 1.0 to 1.5 % each and nothing else above
// 0.1 %.
func planted(rng *rand.Rand, prefix string) *traffic {
	tr := &traffic{rng: rng, shares: map[string]float64{}, prefix: prefix, tail: rand.NewZipf(rng, 1.01, 1000, 1_000_000)}
	for i := range 20 {
		tr.shares[fmt.Sprint(prefix, "hot-", i)] = 0.0101 + 0.005*float64(i)/20
	}
	return tr
}

// recall lets other traffic pass for three seconds, then returns what part of its
// hot keys is found after a second of the new, over some rounds, and how many of the
// old ones are still called hot.
func recall(t *testing.T, rounds int, opts Options) (found, stale float64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(round)))
			d := newTestDetector(t, opts)
			before, after := planted(rng, "before-"), planted(rng, "after-")
			before.pass(d, 50_000, 2*time.Second)
			after.pass(d, 50_000, time.Second)
			for k := range after.shares {
				if d.Hot(k) {
					found += 1 / float64(20*rounds)
				}
			}
			after.pass(d, 50_000, time.Second)
			for k := range before.shares {
				if d.Hot(k) {
					stale += 1 / float64(20*rounds)
				}
			}
		})
	}
	return found, stale
}

func TestFindsHotKeysWithinASecond(t *testing.T) {
	found, stale := recall(t, 10, Options{})
	t.Logf("found %.1f %%, stale %.1f %%", 100*found, 100*stale)
	assert.GreaterOrEqual(t, found, 0.99)
	assert.LessOrEqual(t, stale, 0.01, "two seconds later")

	// Without decay, what is new stays small beside what was.
	found, _ = recall(t, 2, Options{HalfLife: time.Hour})
	assert.Less(t, found, 0.9)
}

func TestCallsNothingElseHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDetector(t, Options{Sample: 1})
		tr := planted(rand.New(rand.NewPCG(1, 1)), "")
		tr.pass(d, 50_000, 2*time.Second)
		for _, k := range d.Top(100) {
			assert.Equal(t, k.Hot, strings.HasPrefix(k.Name, "hot-"), "%+v", k)
			if want, ok := tr.shares[k.Name]; ok {
				assert.InEpsilon(t, want, k.Share, 0.3, k.Name)
				assert.InEpsilon(t, want*50_000, k.Rate, 0.3, k.Name)
			}
		}
		assert.Equal(t, 20, d.Stats().Hot)
		assert.Len(t, d.Top(3), 3)
		assert.Empty(t, d.Top(-1))
	})
}

// A key around the border comes once; with one threshold for both ways it comes and
// goes.
func TestEnterAndLeaveAreApart(t *testing.T) {
	entered := func(opts Options) uint64 {
		var n uint64
		synctest.Test(t, func(t *testing.T) {
			d := newTestDetector(t, opts)
			tr := &traffic{rng: rand.New(rand.NewPCG(2, 2)), tail: rand.NewZipf(rand.New(rand.NewPCG(3, 3)), 1.01, 1000, 1_000_000)}
			for i := range 40 {
				tr.shares = map[string]float64{"border": 0.008 + 0.004*float64(i%2)}
				tr.pass(d, 20_000, 600*time.Millisecond)
			}
			n = d.Stats().Entered
		})
		return n
	}
	assert.Equal(t, uint64(1), entered(Options{Sample: 1, Enter: 0.01, Leave: 0.005}))
	assert.Greater(t, entered(Options{Sample: 1, Enter: 0.01, Leave: 0.01}), uint64(5))
}

func TestQuietTrafficIsNotHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := newTestDetector(t, Options{Sample: 1})
		any := newTestDetector(t, Options{Sample: 1, MinRate: -1})
		for range 500 { // 50 a second, all of one key
			slow.Observe("k")
			any.Observe("k")
			time.Sleep(20 * time.Millisecond)
		}
		assert.False(t, slow.Hot("k"), "below MinRate")
		assert.True(t, any.Hot("k"))
		// Halving rounds down.
		assert.InEpsilon(t, 1, any.Top(1)[0].Share, 0.1)
		assert.InEpsilon(t, 50, any.Top(1)[0].Rate, 0.1)
		time.Sleep(time.Hour)
		assert.True(t, any.Hot("k"), "nobody looked")
		assert.Empty(t, any.Top(1))
		assert.False(t, any.Hot("k"))
		s := any.Stats()
		assert.Equal(t, Stats{Entered: 1, Left: 1}, s)
	})
}

func TestEmptyAndLongKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDetector(t, Options{Sample: 1})
		long := strings.Repeat("x", 513)
		for range 200 {
			for range 10 {
				d.Observe("")
				d.Observe(long)
				d.Observe("k")
			}
			time.Sleep(10 * time.Millisecond)
		}
		assert.True(t, d.Hot(""))
		assert.True(t, d.Hot("k"))
		assert.False(t, d.Hot(long))
		assert.False(t, d.Hot("other"))
		assert.InDelta(t, 1.0/3, d.Top(1)[0].Share, 0.01, "long keys are traffic")
	})
}

func TestObserveAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDetector(t, Options{Sample: 1})
		tr := planted(rand.New(rand.NewPCG(4, 4)), "")
		names := make([]string, 1<<12)
		for i := range names {
			names[i] = fmt.Sprintf("%-20s", tr.next())
		}
		warm := func() {
			for _, k := range names {
				d.Observe(k)
			}
			time.Sleep(70 * time.Millisecond)
		}
		for range 20 {
			warm()
		}
		entered := d.Stats().Entered
		assert.NotZero(t, entered)
		assert.Zero(t, testing.AllocsPerRun(10, warm))
		assert.Equal(t, entered, d.Stats().Entered)
		assert.Zero(t, testing.AllocsPerRun(10, func() { d.Hot("cold"); d.Hot(names[0]) }))
	})
}

func TestDetectorFromManyGoroutines(t *testing.T) {
	d := newTestDetector(t, Options{Sample: 1, HalfLife: 10 * time.Millisecond})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				d.Observe(fmt.Sprint("key-", i%(g+2)))
				d.Hot("key-0")
				if i%1000 == 0 {
					d.Top(3)
					d.Stats()
				}
			}
		})
	}
	wg.Wait()
	assert.NotEmpty(t, d.Top(1))
}

func TestDetectorInvalid(t *testing.T) {
	for want, opts := range map[string]Options{
		"Options.Enter 2":     {Enter: 2},
		"Options.Enter 1e-05": {Enter: 0.00001},
		"Options.Leave 0.5":   {Leave: 0.5},
		"Options.Leave -1":    {Leave: -1},
		"Options.MinRate -2":  {MinRate: -2},
		"Options.Sample 3":    {Sample: 3},
		"Options.Sample -1":   {Sample: -1},
		"Options.HalfLife 1s": {HalfLife: time.Second * -1},
		"Options.HalfLife 1m": {HalfLife: time.Millisecond},
		"Options.Keys 2000":   {Keys: 2000},
	} {
		_, err := NewDetector(opts)
		require.ErrorIs(t, err, ErrInvalid, want)
		if opts.HalfLife >= 0 {
			assert.ErrorContains(t, err, want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	tr := planted(rand.New(rand.NewPCG(5, 5)), "")
	names := make([]string, 1<<14)
	for i := range names {
		names[i] = tr.next()
	}
	d := newTestDetector(b, Options{})
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			d.Observe(names[i&(1<<14-1)])
			i++
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				d.Observe(names[i&(1<<14-1)])
			}
		})
	})
	b.Run("hot", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			d.Hot(names[i&(1<<14-1)])
			i++
		}
	})
}

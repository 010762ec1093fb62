package coalesce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The stress runs callers against a random server in virtual time, with real
// parallelism, and an oracle looks on; a caller that is never answered is a
// deadlock of the bubble. naive_test.go holds the merging calls
// that the oracle must catch.

type (
	request struct {
		n        int // one per call of Do
		lane, id string
		size     int
	}
	reply struct {
		request
		batch int
	}
	doer interface {
		Do(ctx context.Context, lane, id string, q request, size int) (reply, error)
	}
	flusher func(ctx context.Context, lane string, batch []request) ([]reply, error)
)

// A batchError says which batch failed.
type batchError int

func (e batchError) Error() string { return fmt.Sprintf("batch %d failed", int(e)) }

type oracle struct {
	opts Options

	mu       sync.Mutex
	rng      *rand.Rand
	faults   map[string]string // the first of each kind
	batches  [][]request
	air      map[string][]time.Time         // lane: starts of its flights
	sent     map[int]int                    // request: batch
	unsent   map[int]bool                   // requests told so
	waiting  map[string]int                 // by key: callers in Do
	left     map[string]time.Time           // by key: when the last of them left
	outcomes struct{ ok, failed, lost int } // to see that a run met all kinds
}

func newOracle(seed uint64, opts Options) *oracle {
	return &oracle{
		opts: opts, rng: rand.New(rand.NewPCG(seed, 0)), faults: map[string]string{},
		air:  map[string][]time.Time{},
		sent: map[int]int{}, unsent: map[int]bool{}, waiting: map[string]int{}, left: map[string]time.Time{},
	}
}

func (o *oracle) fault(format string, args ...any) {
	if o.faults[format] == "" {
		o.faults[format] = fmt.Sprintf(format, args...)
	}
}

func (o *oracle) random(n int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rng.IntN(n)
}

// key is what callers share who wait for the same thing.
func (q request) key() string {
	if q.id == "" {
		return fmt.Sprintf("%s #%d", q.lane, q.n)
	}
	return q.lane + "/" + q.id
}

func (o *oracle) flush(ctx context.Context, lane string, batch []request) ([]reply, error) {
	seq := o.depart(lane, batch)
	defer o.arrive(lane, time.Now())
	took, fate := o.random(8), o.random(100)
	if fate%25 == 0 {
		took = 150 // stuck
	}
	select {
	case <-time.After(time.Duration(took) * ms):
	case <-ctx.Done():
		time.Sleep(time.Nanosecond) // until everybody who left in this moment has returned
		o.mu.Lock()
		for _, q := range batch {
			if q.id == "" && o.waiting[q.key()] > 0 {
				o.fault("batch %d was told to stop while request %d waits", seq, q.n)
			}
		}
		o.mu.Unlock()
		return nil, batchError(seq)
	}
	switch {
	case fate < 20:
		return nil, batchError(seq)
	case fate < 25:
		panic(batchError(seq))
	case fate < 28:
		runtime.Goexit()
	}
	replies := make([]reply, len(batch))
	for i, q := range batch {
		replies[i] = reply{q, seq}
	}
	return replies, nil
}

func (o *oracle) depart(lane string, batch []request) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	seq, now, bytes := len(o.batches), time.Now(), 0
	o.batches = append(o.batches, slices.Clone(batch))
	if others := o.air[lane]; len(others) > 0 {
		if age := now.Sub(slices.MaxFunc(others, time.Time.Compare)); age < slowFloor || len(others) == maxFlights {
			o.fault("batch %d opened beside %d flights, the youngest %v old", seq, len(others), age)
		}
	}
	o.air[lane] = append(o.air[lane], now)
	for _, q := range batch {
		bytes += q.size
		if q.lane != lane {
			o.fault("request %d flew in lane %s", q.n, lane)
		}
		if before, again := o.sent[q.n]; again {
			o.fault("request %d was sent twice, in batches %d and %d", q.n, before, seq)
		}
		o.sent[q.n] = seq
		if o.waiting[q.key()] == 0 && o.left[q.key()].Before(now) {
			o.fault("request %d was sent after its callers left", q.n)
		}
	}
	if len(batch) == 0 || len(batch) > o.opts.MaxItems || bytes > o.opts.MaxBytes && len(batch) > 1 {
		o.fault("batch %d has %d items of %d bytes", seq, len(batch), bytes)
	}
	return seq
}

func (o *oracle) arrive(lane string, took time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.air[lane], took.Equal)
	o.air[lane] = slices.Delete(o.air[lane], i, i+1)
}

// call makes one random call and judges its answer.
func (o *oracle) call(parent context.Context, d doer, n int) {
	q := request{n: n, lane: fmt.Sprint(o.random(3)), size: 1 + o.random(60)}
	if o.random(2) == 0 {
		q.id = fmt.Sprint(o.random(12))
	}
	ctx, patience := parent, time.Duration(1<<62)
	switch o.random(4) {
	case 0:
		ctx = context.WithoutCancel(parent)
	case 1, 2:
		patience = time.Duration(o.random(40)) * ms
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(parent, patience)
		defer cancel()
	}
	o.mu.Lock()
	o.waiting[q.key()]++
	before := len(o.batches)
	o.mu.Unlock()
	began := time.Now()
	r, err := d.Do(ctx, q.lane, q.id, q, q.size)
	took := time.Since(began)

	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[q.key()]--
	o.left[q.key()] = time.Now()
	if took > patience {
		o.fault("request %d waited %v with a patience of %v", n, took, patience)
	}
	var failed batchError
	switch {
	case err == nil:
		o.outcomes.ok++
		if r.key() != q.key() {
			o.fault("request %d (%s) got the result of request %d (%s)", n, q.key(), r.n, r.key())
		}
		if r.batch < before {
			o.fault("request %d got the result of batch %d, which was sent before it was made", n, r.batch)
		}
	case errors.Is(err, ErrUnsent) && errors.Is(err, ErrUnknown):
		o.fault("request %d was told both: %v", n, err)
	case errors.As(err, &failed):
		o.outcomes.failed++
		if !slices.ContainsFunc(o.batches[failed], func(b request) bool { return b.key() == q.key() }) {
			o.fault("request %d (%s) got the error of batch %d, in which it was not", n, q.key(), int(failed))
		}
	case errors.Is(err, ErrUnsent):
		o.outcomes.lost++
		o.unsent[n] = true
		fallthrough
	case errors.Is(err, context.DeadlineExceeded):
		if ctx.Err() == nil {
			o.fault("request %d was given up without a reason: %v", n, err)
		}
	case !errors.Is(err, ErrUnknown): // Goexit
		o.fault("request %d: %v", n, err)
	}
}

// judge runs callers times calls calls and returns what is wrong.
func judge(t *testing.T, seed uint64, callers, calls int, opts Options, build func(flusher, Options) doer) *oracle {
	o := newOracle(seed, opts)
	synctest.Test(t, func(t *testing.T) {
		d := build(o.flush, opts)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range calls {
					o.call(t.Context(), d, c*calls+i)
					if o.random(3) == 0 {
						time.Sleep(time.Duration(o.random(5)) * ms)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute) // whoever still flies for nobody lands
		if g, is := d.(*Group[request, reply]); is {
			require.NoError(t, g.Close(t.Context()))
			s, items := g.Stats(), 0
			for _, b := range o.batches {
				items += len(b)
			}
			require.Equal(t, len(o.batches), int(s.Flights))
			require.Equal(t, items, int(s.Items))
			for name, l := range g.lanes {
				require.Empty(t, l.ids, "lane %s remembers ids", name)
				require.Zero(t, l.queue.n+len(l.air)+l.landing, "lane %s is not idle", name)
			}
		}
	})
	for n := range o.unsent {
		if seq, was := o.sent[n]; was {
			o.fault("request %d was told it is not sent, and was, in batch %d", n, seq)
		}
	}
	return o
}

var stressed = Options{MaxItems: 6, MaxBytes: 200, MaxQueue: 1000}

func TestStress(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var unwatched, lanes atomic.Int64
	o := judge(t, seed, 48, 400, stressed, func(f flusher, opts Options) doer {
		var g *Group[request, reply]
		g = New(func(ctx context.Context, name string, batch []request) ([]reply, error) {
			g.each(func(l *lane[request, reply]) {
				if l.queue.n > 0 && (len(l.air) == 0 || !l.armed && l.landing == 0 && len(l.air) < maxFlights) {
					unwatched.Add(1)
				}
			})
			// Lanes come and go all the time.
			g.mu.Lock()
			g.sweepAt = 0
			g.mu.Unlock()
			g.create(fmt.Sprintf("another %d", lanes.Add(1)))
			return f(ctx, name, batch)
		}, opts)
		return g
	})
	require.Zero(t, unwatched.Load(), "a queue behind a flight without a timer")
	require.Empty(t, o.faults)
	require.NotZero(t, o.outcomes.ok)
	require.NotZero(t, o.outcomes.failed)
	require.NotZero(t, o.outcomes.lost)
}

func TestOrderOfArrivalIsKeptWhileOneFlightIsInTheAir(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		var got, want []int
		g := New(func(_ context.Context, _ string, batch []int) ([]int, error) {
			got = append(got, batch...)
			time.Sleep(ms)
			return batch, nil
		}, Options{MaxItems: 5, MaxBytes: 100})
		for n := range 1000 {
			want = append(want, n)
			size := rng.IntN(60)
			go func() {
				if _, err := g.Do(t.Context(), "l", "", n, size); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
			time.Sleep(time.Duration(rng.IntN(int(ms))))
		}
		require.NoError(t, g.Close(t.Context()))
		require.Equal(t, want, got)
	})
}

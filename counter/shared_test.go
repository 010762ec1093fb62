package counter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Calls that wait at the same time share round trips, and each is answered for itself,
// also when replies are lost on the way: no total is told twice, a member's change is
// told to one.
func TestCallsShareRoundTrips(t *testing.T) {
	const goroutines, each = 64, 25
	for _, p := range []float64{0, 0.01} {
		t.Run(fmt.Sprint("lost=", p), func(t *testing.T) {
			faults := redistest.Faults{Seed: rand.Uint64()}
			var trips redistest.Trips
			rdb := redistest.Shared(t).Client(faults.Options)
			rdb.AddHook(&trips)
			c := newTestCounter(t, rdb, Options{Interval: never})
			_, err := c.AddSync(t.Context(), 7, "likes", 1) // the server knows the scripts from here on
			require.NoError(t, err)
			_, err = c.Toggle(t.Context(), 8, "likes", "first", true)
			require.NoError(t, err)
			if p > 0 { // for each script; a round trip has dozens
				faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: p, Times: -1})
			}
			trips.N.Store(0)
			var mu sync.Mutex
			var totals []int64
			var changes atomic.Int64
			var wg sync.WaitGroup
			for range goroutines {
				wg.Go(func() {
					for i := range each {
						total, err := c.AddSync(t.Context(), 7, "likes", 1)
						if err != nil {
							t.Error(err)
						}
						mu.Lock()
						totals = append(totals, total)
						mu.Unlock()
						changed, err := c.Toggle(t.Context(), 8, "likes", fmt.Sprint("member-", i), true)
						if err != nil {
							t.Error(err)
						}
						if changed {
							changes.Add(1)
						}
					}
				})
			}
			wg.Wait()
			faults.Clear()
			slices.Sort(totals)
			for i, total := range totals {
				require.EqualValues(t, i+2, total)
			}
			assert.EqualValues(t, each, changes.Load())
			assert.Equal(t, int64(each+1), get(t, c, 8)["likes"])
			t.Logf("%d calls in %d round trips, %d replies lost", 2*goroutines*each, trips.N.Load(), faults.Fired(redistest.CutAfter))
			assert.Less(t, trips.N.Load(), int64(goroutines*each))
			assert.Equal(t, p > 0, faults.Fired(redistest.CutAfter) > 0)
		})
	}
}

// A caller whose ctx ends leaves at once, while its call may be on its way; the others
// wait on. What Close finds on its way it waits for.
func TestCallsLeaveAlone(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		c := newTestCounter(t, b.Client(faults.Options), Options{Prefix: "p", Interval: never})
		_, err := c.AddSync(t.Context(), 7, "likes", 1)
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second})
		var wg sync.WaitGroup
		for i := range 3 { // the first is on its way, the others wait for it
			ctx, cancel := context.WithTimeout(t.Context(), []time.Duration{30 * time.Millisecond, 30 * time.Millisecond, time.Minute}[i])
			defer cancel()
			began := time.Now()
			wg.Go(func() {
				_, err := c.AddSync(ctx, 7, "likes", 1)
				switch i {
				case 0:
					assert.ErrorIs(t, err, ErrUnknown)
				case 1:
					assert.ErrorIs(t, err, ErrUnavailable)
					assert.NotErrorIs(t, err, ErrUnknown)
				case 2:
					assert.NoError(t, err)
					return
				}
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, 30*time.Millisecond, time.Since(began))
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		assert.Equal(t, int64(3), get(t, c, 7)["likes"], "what was on its way is counted, what waited is not")

		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: time.Second})
		wg.Go(func() {
			_, err := c.AddSync(t.Context(), 7, "likes", 1)
			assert.NoError(t, err)
		})
		time.Sleep(time.Millisecond)
		began := time.Now()
		require.NoError(t, c.Close(t.Context()))
		assert.Greater(t, time.Since(began), 900*time.Millisecond)
		wg.Wait()
	})
}

// In a Cluster the calls of a shard share round trips, and those of others do not wait
// for them.
func TestLanes(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newTestCounter(t, rdb, Options{Interval: never})
		lanes := map[string]bool{}
		for i := range c.shards {
			lanes[c.shards[i].lane] = true
		}
		if _, single := rdb.(*redis.Client); single {
			assert.Len(t, lanes, 1)
		} else {
			assert.Len(t, lanes, shardCount)
		}
		var wg sync.WaitGroup
		for id := range int64(200) {
			wg.Go(func() {
				if _, err := c.AddSync(t.Context(), id, "likes", id+1); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for id := range int64(200) {
			assert.Equal(t, id+1, get(t, c, id)["likes"])
		}
	})
}

func BenchmarkAddSync(b *testing.B) {
	rdb := redistest.Shared(b).Client()
	c := newTestCounter(b, rdb, Options{Interval: never})
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprint("goroutines=", goroutines), func(b *testing.B) {
			b.SetParallelism(max(1, goroutines/2))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := int64(0); pb.Next(); i++ {
					if _, err := c.AddSync(b.Context(), i&15, "likes", 1); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// Where nothing can run a call waits for about a second; where its replies are lost, for
// five. The first counted nothing, the second once.
func TestCallsEnd(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var down, deaf redistest.Faults
		down.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		a := newTestCounter(t, b.Client(down.Options), Options{Prefix: "p", Interval: never})
		z := newTestCounter(t, b.Client(deaf.Options), Options{Prefix: "p", Interval: never})
		for _, call := range []func(c *Counter, id int64) error{
			func(c *Counter, id int64) error { _, err := c.AddSync(t.Context(), id, "likes", 1); return err },
			func(c *Counter, id int64) error {
				_, err := c.Toggle(t.Context(), id, "views", "ann", true)
				return err
			},
		} {
			require.NoError(t, call(z, 1)) // the server knows the script from here on
			deaf.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", Times: -1})
			began := time.Now()
			err := call(a, 7)
			require.ErrorIs(t, err, ErrUnavailable)
			require.NotErrorIs(t, err, ErrUnknown)
			assert.InDelta(t, 1.2, time.Since(began).Seconds(), 0.5)
			began = time.Now()
			require.ErrorIs(t, call(z, 7), ErrUnknown)
			assert.InDelta(t, 5.2, time.Since(began).Seconds(), 0.5)
			deaf.Clear()
		}
		v := get(t, z, 7)
		assert.Equal(t, []int64{1, 1}, []int64{v["likes"], v["views"]})
		down.Clear()
		time.Sleep(5 * time.Second) // go-redis's own attempts to dial end
	})
}

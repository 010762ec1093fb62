package counter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Each verb that changes something has its reply lost, twice: the server ran the
// script three times and it counted once.
func TestLostReplies(t *testing.T) {
	for _, fault := range []redistest.Fault{redistest.CutAfter, redistest.LoseReply} {
		for verb, call := range map[string]func(ctx context.Context, c *Counter) error{
			"Add and Flush": func(ctx context.Context, c *Counter) error { return errors.Join(c.Add(1, "likes", 1), c.Flush(ctx)) },
			"AddSync": func(ctx context.Context, c *Counter) error {
				total, err := c.AddSync(ctx, 1, "likes", 1)
				if total != 1 {
					err = errors.Join(err, fmt.Errorf("total %d", total))
				}
				return err
			},
			"Toggle": func(ctx context.Context, c *Counter) error {
				changed, err := c.Toggle(ctx, 1, "likes", "ann", true)
				if !changed {
					err = errors.Join(err, errors.New("not changed"))
				}
				return err
			},
			"ToggleAt": func(ctx context.Context, c *Counter) error {
				changed, err := c.ToggleAt(ctx, 1, "likes", 5, true)
				if !changed {
					err = errors.Join(err, errors.New("not changed"))
				}
				return err
			},
		} {
			for _, schema := range []Schema{posts, tiny} {
				t.Run(fmt.Sprint(verb, " ", fault, " ", schema.Name), func(t *testing.T) {
					redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
						var faults redistest.Faults
						soon := func(o *redis.Options) { o.ReadTimeout = 100 * time.Millisecond }
						c := newCounterOf(t, b.Client(faults.Options, soon), schema, Options{Prefix: "p", Interval: never})
						faults.Add(redistest.Rule{Do: fault, Match: "eval", Skip: 1, Times: 2}) // the first is NOSCRIPT
						require.NoError(t, call(t.Context(), c))
						assert.Equal(t, 2, faults.Fired(fault), "replies lost of scripts that ran")
						assert.Equal(t, int64(1), get(t, c, 1)["likes"])
					})
				})
			}
		}
	}
}

// What the tokens are for: the same increment, by a script without one, sent by a
// client that retries, counts as often as its reply was lost.
func TestLostRepliesWithoutToken(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options)
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "hincrby", Times: 2})
		require.NoError(t, rdb.HIncrBy(t.Context(), "k", "likes", 1).Err())
		assert.Equal(t, "3", rdb.HGet(t.Context(), "k", "likes").Val())
	})
}

// One process, a flusher that never rests, and replies that get lost: at every
// moment a read is exactly what was added so far. Without the number of the flush, what is
// on its way counts twice or not at all: the test goes on until that was seen.
func TestReadsOwnWritesThroughLostReplies(t *testing.T) {
	t.Run("plain", func(t *testing.T) { readsOwnWrites(t, posts, "score", "hot") })
	t.Run("packed", func(t *testing.T) { readsOwnWrites(t, tiny, "score", "views") })
}

func readsOwnWrites(t *testing.T, schema Schema, fields ...string) {
	rounds := 60
	if schema.Packed { // which spares it the slow control
		rounds = 600
	}
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		rounds = 6000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	faults := redistest.Faults{Seed: seed}
	rdb := redistest.Shared(t).Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = time.Second })
	c := newCounterOf(t, rdb, schema, Options{Interval: time.Millisecond})
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.02, Times: -1})
	faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", P: 0.02, Times: -1})
	faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", P: 0.02, Times: -1, Delay: 5 * time.Millisecond})
	want, naiveWrong := map[int64]int64{}, 0
	happened := func() bool {
		return faults.Fired(redistest.CutAfter) > 0 && faults.Fired(redistest.DelayReply) > 0 && (schema.Packed || naiveWrong > 0)
	}
	for round := 0; round < rounds || !happened(); round++ {
		for range rng.IntN(20) {
			id := rng.Int64N(6)
			field := fields[rng.IntN(2)]
			delta := rng.Int64N(5)
			require.NoError(t, c.Add(id, field, delta))
			want[id] += delta
		}
		ids := []int64{0, 1, 2, 3, 4, 5}
		if !schema.Packed && !assertNaive(t, c, rdb, want) {
			naiveWrong++
		}
		all, err := c.GetMany(t.Context(), ids)
		require.NoError(t, err)
		for i, id := range ids {
			require.Equal(t, want[id], all[i][fields[0]]+all[i][fields[1]], "object %d", id)
		}
	}
	faults.Clear()
	require.NoError(t, c.Flush(t.Context()))
	for id := range want {
		v := get(t, c, id)
		assert.Equal(t, want[id], v[fields[0]]+v[fields[1]])
	}
}

// assertNaive reads as one would without a number: what is stored, and then what is
// known not to be.
func assertNaive(t *testing.T, c *Counter, rdb redis.UniversalClient, want map[int64]int64) bool {
	for id, n := range want {
		k := name{id: id}
		s := &c.shards[shardOf(k)]
		l := &look{name: k}
		s.mu.RLock()
		l.before(s)
		s.mu.RUnlock()
		stored, err := rdb.HGet(t.Context(), s.keyOf(k), "score").Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			continue // lost by the faults: the next one tells
		}
		hot := name{id, c.home(id, 3).sub}
		more, _ := rdb.HGet(t.Context(), c.shards[shardOf(hot)].keyOf(hot), "hot").Int64()
		sum := stored + more
		if l.o != nil {
			sum += l.pending[2] + l.flight[2]
		}
		c.shards[shardOf(hot)].mu.RLock()
		h := &look{name: hot}
		h.before(&c.shards[shardOf(hot)])
		c.shards[shardOf(hot)].mu.RUnlock()
		if h.o != nil {
			sum += h.pending[3] + h.flight[3]
		}
		if sum != n {
			return false
		}
	}
	return true
}

// Eight counters that share objects, with lost replies: the total of everything
// acknowledged is exact. Ten million increments with SPILLWAY_SOAK=1.
func TestTotalsAreExactAcrossProcesses(t *testing.T) {
	t.Run("plain", func(t *testing.T) { totalsAreExact(t, posts, "likes", "hot") })
	t.Run("packed", func(t *testing.T) { totalsAreExact(t, tiny, "likes", "views") })
}

// flushed flushes until all is stored: what one flush could not find out goes with the next.
func flushed(t *testing.T, c *Counter) {
	for {
		err := c.Flush(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrUnavailable) || t.Context().Err() != nil {
			t.Error(err)
			return
		}
		t.Log(err)
	}
}

func totalsAreExact(t *testing.T, schema Schema, fields ...string) {
	perCounter := 6_250
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		perCounter = 1_250_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	proc := redistest.Shared(t)
	prefix := redistest.Prefix(t)
	const objects = 50
	var total, maybe [objects]atomic.Int64 // counted for sure; and what nobody could find out
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			faults := redistest.Faults{Seed: seed + uint64(g)}
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.02, Times: -1})
			c := newCounterOf(t, proc.Client(faults.Options), schema, Options{Prefix: prefix, Interval: 2 * time.Millisecond})
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			addSync := func(id int64, field string) {
				_, err := c.AddSync(t.Context(), id, field, 1)
				switch {
				case err == nil:
					total[id].Add(1)
				case errors.Is(err, ErrUnknown): // a machine that stood still for five seconds
					t.Logf("object %d: %v", id, err)
					maybe[id].Add(1)
				default:
					t.Error(err)
				}
			}
			for i := range perCounter {
				id := rng.Int64N(objects)
				field := fields[i%2]
				if err := c.Add(id, field, 1); err != nil {
					t.Error(err)
					return
				}
				total[id].Add(1)
				if i%(perCounter/8) == 0 {
					flushed(t, c)
					addSync(id, field)
				}
			}
			for faults.Fired(redistest.CutAfter) == 0 { // a short run may be spared by chance
				addSync(rng.Int64N(objects), fields[0])
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			assert.Zero(t, c.Stats().Dropped)
		})
	}
	wg.Wait()
	reader := newCounterOf(t, proc.Client(), schema, Options{Prefix: prefix, Interval: never})
	for id := range total {
		v := get(t, reader, int64(id))
		assert.GreaterOrEqual(t, v[fields[0]]+v[fields[1]], total[id].Load(), "object %d", id)
		assert.LessOrEqual(t, v[fields[0]]+v[fields[1]], total[id].Load()+maybe[id].Load(), "object %d", id)
	}
}

// Members toggled from everywhere, with lost replies: the total is the number of
// members that are on.
func TestTogglesAreExact(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	proc := redistest.Shared(t)
	prefix := redistest.Prefix(t)
	var wg sync.WaitGroup
	var net, lost atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			faults := redistest.Faults{Seed: seed + uint64(g)}
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.1, Times: -1})
			c := newTestCounter(t, proc.Client(faults.Options), Options{Prefix: prefix, Interval: never})
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			for range 300 {
				on := rng.IntN(2) == 0
				changed, err := c.Toggle(t.Context(), 1, "likes", fmt.Sprint("member-", rng.IntN(10)), on)
				if err != nil {
					t.Error(err)
				}
				if changed && on {
					net.Add(1)
				} else if changed {
					net.Add(-1)
				}
			}
			lost.Add(int64(faults.Fired(redistest.CutAfter)))
		})
	}
	wg.Wait()
	assert.NotZero(t, lost.Load())
	rdb := proc.Client()
	c := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
	likes := get(t, c, 1)["likes"]
	members := c.shards[shardOf(name{id: 1})].space.Key("m:1:likes")
	assert.Equal(t, rdb.SCard(t.Context(), members).Val(), likes)
	assert.Equal(t, net.Load(), likes, "every change was told once")
}

// During an outage Add gathers, then refuses; afterwards everything that it accepted
// is stored.
func TestOutage(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		c := newTestCounter(t, b.Client(faults.Options), Options{Prefix: "p", MaxOutage: 10 * time.Second})
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Flush(t.Context()))
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "eval", Times: -1})
		accepted, began := int64(1), time.Now()
		h := c.Handle(1, "likes")
		var err error
		for err == nil {
			if err = h.Add(1); err == nil {
				accepted++
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.ErrorIs(t, err, ErrBacklog)
		require.ErrorIs(t, c.Add(1, "likes", 1), ErrBacklog)
		assert.InDelta(t, 10, time.Since(began).Seconds(), 7)
		err = c.Flush(t.Context())
		assert.True(t, errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown), "%v", err)
		_, err = c.Get(t.Context(), 1)
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown, "a read changes nothing")
		assert.NotZero(t, c.Pending())
		assert.NotZero(t, c.Stats().Failures)
		faults.Clear()
		time.Sleep(10 * time.Second)
		require.NoError(t, h.Add(1))
		assert.Equal(t, accepted+1, get(t, c, 1)["likes"])
		require.NoError(t, c.Flush(t.Context()))
		assert.Zero(t, c.Pending())
	})
}

// A process that is gone loses what it added in its last interval, and no more.
func TestKilledProcessLosesOneInterval(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var dead redistest.Faults
		rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
		const interval = 200 * time.Millisecond
		c := newTestCounter(t, b.Client(dead.Options), Options{Prefix: "p", Interval: interval})
		reader := newTestCounter(t, b.Client(), Options{Prefix: "p"})
		var times []time.Time
		for range 500 + rng.IntN(500) {
			require.NoError(t, c.Add(1, "likes", 1))
			times = append(times, time.Now())
			time.Sleep(7 * time.Millisecond)
		}
		dead.Add(redistest.Rule{Do: redistest.CutBefore, Match: "eval", Times: -1}) // nothing leaves it any more
		stored := get(t, reader, 1)["likes"]
		late := int64(0)
		for _, at := range times {
			if time.Since(at) <= interval {
				late++
			}
		}
		assert.GreaterOrEqual(t, stored, int64(len(times))-late)
		assert.NotZero(t, late)
		require.NoError(t, c.Add(1, "likes", 1)) // the last flush may have left nothing to wait for
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.Close(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "1 objects pending")
	})
}

// A batch whose outcome stays unknown until its number is about to expire is given
// up: sent later, it might count twice.
func TestResendsEndBeforeTheTokenDoes(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		c := newTestCounter(t, b.Client(faults.Options), Options{Prefix: "p", Interval: never, MaxOutage: time.Hour})
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Flush(t.Context()))
		require.NoError(t, c.Add(1, "likes", 1))
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval"})
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "eval", Times: -1})
		require.ErrorIs(t, c.Flush(t.Context()), ErrUnknown)
		c.turn <- struct{}{}
		flight := c.shards[shardOf(name{id: 1})].flight
		assert.WithinDuration(t, time.Now(), flight.unknown, 6*time.Second)
		flight.unknown = flight.unknown.Add(-resendFor) // a day of attempts, one a minute
		<-c.turn
		time.Sleep(2 * time.Minute)
		faults.Clear()
		assert.Equal(t, Stats{Flushes: 1, Objects: 1, Failures: c.Stats().Failures, Dropped: 1}, c.Stats())
		assert.Zero(t, c.Pending())
		time.Sleep(25 * time.Hour)
		assert.Equal(t, int64(2), get(t, c, 1)["likes"], "it had been stored, and was not stored again")
	})
}

// Out of memory nothing is half done: what is refused did not happen, and what was
// gathered is stored later.
func TestOutOfMemory(t *testing.T) {
	proc := redistest.Server(t)
	rdb := proc.Client()
	c := newTestCounter(t, rdb, Options{Interval: never})
	require.NoError(t, c.Add(1, "likes", 1))
	require.NoError(t, c.Flush(t.Context()))
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.NoError(t, c.Add(1, "likes", 1))
	require.ErrorIs(t, c.Flush(t.Context()), ErrUnavailable)
	_, err := c.AddSync(t.Context(), 1, "likes", 1)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = c.Toggle(t.Context(), 1, "likes", "ann", true)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.Equal(t, 1, c.Pending())
	assert.Equal(t, int64(2), get(t, c, 1)["likes"])
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	require.NoError(t, c.Flush(t.Context()))
	assert.Zero(t, c.Pending())
	assert.Equal(t, int64(2), get(t, c, 1)["likes"])
}

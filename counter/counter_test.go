package counter

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

var posts = Schema{Name: "post", Fields: []Field{{Name: "likes"}, {Name: "views"}, {Name: "score", Signed: true}, {Name: "hot", Spread: 4}}}

// never is an interval in which no test sees a tick.
const never = time.Minute

func newTestCounter(t testing.TB, rdb redis.UniversalClient, opts Options) *Counter {
	t.Helper()
	return newCounterOf(t, rdb, posts, opts)
}

func newCounterOf(t testing.TB, rdb redis.UniversalClient, schema Schema, opts Options) *Counter {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	c, err := New(rdb, schema, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

func get(t testing.TB, c *Counter, id int64) Values {
	t.Helper()
	v, err := c.Get(t.Context(), id)
	require.NoError(t, err)
	return v
}

func TestAddIsSeenAtOnceAndStoredByFlush(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		here := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
		there := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
		assert.Equal(t, Values{"likes": 0, "views": 0, "score": 0, "hot": 0}, get(t, here, 7))
		require.NoError(t, here.Add(7, "likes", 2))
		require.NoError(t, here.Add(7, "score", -5))
		require.NoError(t, here.Add(7, "hot", 3))
		views := here.Handle(7, "views")
		require.NoError(t, views.Add(10))
		want := Values{"likes": 2, "views": 10, "score": -5, "hot": 3}
		assert.Equal(t, want, get(t, here, 7), "own writes")
		assert.Equal(t, int64(0), get(t, there, 7)["likes"])
		assert.NotZero(t, here.Pending())
		require.NoError(t, here.Flush(t.Context()))
		assert.Zero(t, here.Pending())
		assert.Equal(t, want, get(t, here, 7))
		assert.Equal(t, want, get(t, there, 7))
		require.NoError(t, views.Add(1))
		require.NoError(t, there.Add(7, "views", 1))
		assert.Equal(t, int64(11), get(t, here, 7)["views"])
		require.NoError(t, there.Flush(t.Context()))
		assert.Equal(t, int64(12), get(t, here, 7)["views"])
	})
}

func TestGetManyAcrossShards(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newTestCounter(t, rdb, Options{Interval: never})
		ids := []int64{math.MinInt64, math.MaxInt64, -1, 0, 5, 5}
		for i := range int64(300) {
			ids = append(ids, 1000+i)
		}
		for i, id := range ids {
			require.NoError(t, c.Add(id, "likes", int64(i+1)))
			if i == 100 {
				require.NoError(t, c.Flush(t.Context()))
			}
		}
		all, err := c.GetMany(t.Context(), ids)
		require.NoError(t, err)
		for i := range ids {
			want := int64(i + 1)
			if ids[i] == 5 {
				want = 5 + 6
			}
			assert.Equal(t, want, all[i]["likes"], "id %d", ids[i])
		}
		none, err := c.GetMany(t.Context(), nil)
		require.NoError(t, err)
		assert.Empty(t, none)
	})
}

func TestFlushesByItself(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		c := newTestCounter(t, rdb, Options{Prefix: "p", Interval: 100 * time.Millisecond})
		other := newTestCounter(t, rdb, Options{Prefix: "p"})
		require.NoError(t, c.Add(1, "likes", 1))
		time.Sleep(101 * time.Millisecond)
		assert.Equal(t, int64(1), get(t, other, 1)["likes"])
		assert.Zero(t, c.Pending())
		assert.Empty(t, c.shards[shardOf(name{id: 1})].objects, "what is stored is forgotten")
		s := c.Stats()
		assert.Equal(t, Stats{Flushes: 1, Objects: 1}, s)
	})
}

func TestAddSync(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newTestCounter(t, rdb, Options{Interval: never})
		for i := range int64(3) {
			total, err := c.AddSync(t.Context(), 7, "likes", 2)
			require.NoError(t, err)
			assert.Equal(t, 2*(i+1), total)
			total, err = c.AddSync(t.Context(), 7, "hot", 1)
			require.NoError(t, err)
			assert.Equal(t, i+1, total)
		}
		total, err := c.AddSync(t.Context(), 7, "likes", -10)
		require.NoError(t, err)
		assert.Zero(t, total, "likes are not signed")
		total, err = c.AddSync(t.Context(), 7, "score", -10)
		require.NoError(t, err)
		assert.Equal(t, int64(-10), total)
		assert.Zero(t, c.Pending())
	})
}

func TestToggleCountsAMemberOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newTestCounter(t, rdb, Options{Interval: never})
		step := func(member string, on, changed bool, likes int64) {
			t.Helper()
			got, err := c.Toggle(t.Context(), 7, "likes", member, on)
			require.NoError(t, err)
			assert.Equal(t, changed, got)
			assert.Equal(t, likes, get(t, c, 7)["likes"])
		}
		step("ann", true, true, 1)
		step("ann", true, false, 1)
		step("bob", true, true, 2)
		step("ann", false, true, 1)
		step("ann", false, false, 1)
		step("cat", false, false, 1)
		changed, err := c.Toggle(t.Context(), 7, "hot", "ann", true)
		require.NoError(t, err)
		assert.True(t, changed)
		require.NoError(t, c.Add(7, "hot", 5))
		require.NoError(t, c.Flush(t.Context()))
		assert.Equal(t, int64(6), get(t, c, 7)["hot"], "one of the keys that a field spreads over")
	})
}

// Who is on is told for many objects at once, of many slots.
func TestIsOn(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, schema := range []Schema{posts, tiny} {
			ctx, c := t.Context(), newCounterOf(t, rdb, schema, Options{Interval: never})
			var ids []int64
			var want []bool
			for i := range int64(40) {
				ids, want = append(ids, i*1000), append(want, i%3 == 0)
				for _, change := range []bool{true, i%3 == 0} {
					_, err := c.Toggle(ctx, i*1000, "likes", "ann", change)
					require.NoError(t, err)
					_, err = c.ToggleAt(ctx, i*1000, "views", 70_000, change)
					require.NoError(t, err)
				}
			}
			on, err := c.IsOn(ctx, "likes", "ann", ids...)
			require.NoError(t, err)
			require.Equal(t, want, on)
			on, err = c.IsOnAt(ctx, "views", 70_000, ids...)
			require.NoError(t, err)
			require.Equal(t, want, on)
			for name, none := range map[string]func() ([]bool, error){
				"of another member": func() ([]bool, error) { return c.IsOn(ctx, "likes", "bob", ids...) },
				"of another field":  func() ([]bool, error) { return c.IsOn(ctx, "views", "ann", ids...) },
				"of another number": func() ([]bool, error) { return c.IsOnAt(ctx, "views", 70_001, ids...) },
			} {
				on, err = none()
				require.NoError(t, err)
				require.Equal(t, make([]bool, len(ids)), on, name)
			}
			on, err = c.IsOn(ctx, "likes", "ann")
			require.NoError(t, err)
			require.Empty(t, on)
			_, err = c.IsOn(ctx, "nothing", "ann", 1)
			require.ErrorIs(t, err, ErrInvalid)
			_, err = c.IsOn(ctx, "likes", "", 1)
			require.ErrorIs(t, err, ErrInvalid)
			_, err = c.IsOn(ctx, "likes", "ann", make([]int64, maxMany+1)...)
			require.ErrorIs(t, err, ErrInvalid)
			require.NoError(t, c.Close(ctx))
			_, err = c.IsOn(ctx, "likes", "ann", 1)
			require.ErrorIs(t, err, ErrClosed)
		}
	})
}

func TestToggleAtCountsAMemberOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, schema := range []Schema{posts, tiny} {
			c := newCounterOf(t, rdb, schema, Options{Interval: never})
			rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
			is, likes := map[uint32]bool{}, int64(0)
			members := []uint32{0, 1, 65535, 65536, math.MaxUint32}
			for range 100 {
				member, on := members[rng.IntN(len(members))], rng.IntN(2) == 0
				changed, err := c.ToggleAt(t.Context(), 7, "likes", member, on)
				require.NoError(t, err)
				require.Equal(t, is[member] != on, changed, "member %d", member)
				if changed && on {
					likes++
				} else if changed {
					likes--
				}
				is[member] = on
				require.Equal(t, likes, get(t, c, 7)["likes"])
			}
			for i := range uint32(3) {
				bitmap := c.shardOf(name{id: 7}).space.Key("d:7:likes:" + []string{"0", "1", "65535"}[i])
				assert.LessOrEqual(t, rdb.StrLen(t.Context(), bitmap).Val(), int64(8192))
			}
			_, err := c.ToggleAt(t.Context(), 7, "nothing", 1, true)
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
}

// Processes differ in the key that they add a spread field's increments to, and the
// keys lie in different slots.
func TestProcessesSpread(t *testing.T) {
	_, rdb := redistest.Mini(t)
	keys, shards := map[name]bool{}, map[int]bool{}
	for range 40 {
		n := newTestCounter(t, rdb, Options{Interval: never}).home(7, 3)
		assert.Contains(t, []int{1, 2, 3, 4}, n.sub)
		keys[n] = true
		shards[shardOf(n)] = true
	}
	assert.GreaterOrEqual(t, len(keys), 3)
	assert.GreaterOrEqual(t, len(shards), 3)
}

func TestTotalsStayInRange(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newTestCounter(t, rdb, Options{Interval: never})
		key := c.shards[shardOf(name{id: 7})].keyOf(name{id: 7})
		const most = 1<<53 - 1
		require.NoError(t, rdb.HSet(t.Context(), key, "likes", int64(most-2), "score", int64(-most)).Err())
		require.NoError(t, c.Add(7, "likes", 3))
		require.NoError(t, c.Add(7, "score", -1))
		require.NoError(t, c.Add(7, "views", 1))
		require.NoError(t, c.Flush(t.Context()))
		assert.Equal(t, Values{"likes": most - 2, "views": 1, "score": -most, "hot": 0}, get(t, c, 7), "only what fits")
		assert.Equal(t, uint64(2), c.Stats().Refused)
		_, err := c.AddSync(t.Context(), 7, "likes", 3)
		require.ErrorIs(t, err, ErrInvalid)
		total, err := c.AddSync(t.Context(), 7, "likes", 2)
		require.NoError(t, err)
		assert.Equal(t, int64(most), total)
		_, err = c.Toggle(t.Context(), 7, "likes", "ann", true)
		require.ErrorIs(t, err, ErrInvalid)
		// A key of another kind spoils only its own object.
		require.NoError(t, rdb.Set(t.Context(), c.shards[shardOf(name{id: 8})].keyOf(name{id: 8}), "x", 0).Err())
		require.NoError(t, c.Add(8, "likes", 1))
		require.NoError(t, c.Flush(t.Context()))
		assert.Zero(t, c.Pending())
		assert.Equal(t, uint64(3), c.Stats().Refused)
	})
}

// A decrement may be stored before its increment: nothing is lost, and nobody reads
// a negative number of likes.
func TestNegativeTotals(t *testing.T) {
	_, rdb := redistest.Mini(t)
	prefix := redistest.Prefix(t)
	a := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
	b := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
	require.NoError(t, a.Add(1, "likes", 1))
	require.NoError(t, b.Add(1, "likes", -1))
	require.NoError(t, b.Flush(t.Context()))
	assert.Zero(t, get(t, b, 1)["likes"])
	require.NoError(t, a.Flush(t.Context()))
	assert.Zero(t, get(t, b, 1)["likes"])
	require.NoError(t, a.Add(1, "likes", 1))
	assert.Equal(t, int64(1), get(t, a, 1)["likes"])
}

func TestInvalid(t *testing.T) {
	_, rdb := redistest.Mini(t)
	for want, s := range map[string]Schema{
		`Schema.Name ""`:                 {Fields: []Field{{Name: "a"}}},
		`Schema.Name "a:b"`:              {Name: "a:b", Fields: []Field{{Name: "a"}}},
		"0 Schema.Fields":                {Name: "a"},
		"33 Schema.Fields":               {Name: "a", Fields: make([]Field, 33)},
		`Fields[0].Name "x y"`:           {Name: "a", Fields: []Field{{Name: "x y"}}},
		`Fields[1].Name "a" is there tw`: {Name: "a", Fields: []Field{{Name: "a"}, {Name: "a"}}},
		"Spread 65":                      {Name: "a", Fields: []Field{{Name: "a", Spread: 65}}},
		"Spread 2 of \"a\", want none":   {Name: "a", Fields: []Field{{Name: "a", Spread: 2}}, Packed: true},
	} {
		_, err := New(rdb, s, Options{})
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
	for want, opts := range map[string]Options{
		"Options.Interval -1ns": {Interval: -1},
		"Options.Interval 2m":   {Interval: 2 * time.Minute},
		"Options.MaxOutage 1ms": {MaxOutage: time.Millisecond},
		"Options.ColdAfter 1ms": {ColdAfter: time.Millisecond},
		"Options.Cold is for":   {Cold: newMemoryStore()},
	} {
		_, err := New(rdb, posts, opts)
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
	_, err := New(nil, posts, Options{})
	require.ErrorIs(t, err, ErrInvalid)

	c := newTestCounter(t, rdb, Options{Interval: never})
	require.ErrorIs(t, c.Add(1, "nothing", 1), ErrInvalid)
	require.ErrorIs(t, c.Add(1, "likes", 1<<32+1), ErrInvalid)
	require.ErrorIs(t, c.Add(1, "likes", math.MinInt64), ErrInvalid)
	require.ErrorIs(t, c.Handle(1, "nothing").Add(1), ErrInvalid)
	require.ErrorIs(t, c.Handle(1, "likes").Add(math.MaxInt64), ErrInvalid)
	_, err = c.AddSync(t.Context(), 1, "nothing", 1)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.AddSync(t.Context(), 1, "likes", math.MaxInt64)
	require.ErrorIs(t, err, ErrInvalid)
	for _, member := range []string{"", strings.Repeat("x", 257)} {
		_, err = c.Toggle(t.Context(), 1, "likes", member, true)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = c.GetMany(t.Context(), make([]int64, 10_001))
	require.ErrorIs(t, err, ErrInvalid)
	require.NoError(t, c.Add(1, "likes", 0))
	assert.Zero(t, c.Pending())
}

func TestEvictingServerIsRefused(t *testing.T) {
	rdb := redistest.Server(t, "--maxmemory-policy", "allkeys-lru").Client()
	_, err := New(rdb, posts, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	newTestCounter(t, rdb, Options{AllowEviction: true})
}

func TestClosed(t *testing.T) {
	_, rdb := redistest.Mini(t)
	c := newTestCounter(t, rdb, Options{Interval: never})
	h := c.Handle(1, "likes")
	require.NoError(t, h.Add(1))
	require.NoError(t, c.Add(2, "likes", 1))
	require.NoError(t, c.Close(t.Context()))
	require.NoError(t, c.Close(t.Context()), "twice")
	require.ErrorIs(t, h.Add(1), ErrClosed)
	require.ErrorIs(t, c.Handle(9, "likes").Add(1), ErrClosed)
	require.ErrorIs(t, c.Add(1, "likes", 1), ErrClosed)
	require.ErrorIs(t, c.Flush(t.Context()), ErrClosed)
	_, err := c.Get(t.Context(), 1)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.AddSync(t.Context(), 1, "likes", 1)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Toggle(t.Context(), 1, "likes", "ann", true)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.ToggleAt(t.Context(), 1, "likes", 5, true)
	require.ErrorIs(t, err, ErrClosed)
}

// Every Add that returned nil is stored, and no other, whatever Close interrupts.
func TestCloseLosesNoAcknowledgedAdd(t *testing.T) {
	t.Parallel()
	_, rdb := redistest.Mini(t)
	for round := range 20 {
		prefix := redistest.Prefix(t)
		c := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: time.Millisecond})
		var wg sync.WaitGroup
		var mu sync.Mutex
		want := map[int64]int64{}
		started := make(chan struct{}, 4)
		for g := range 4 {
			h := c.Handle(0, "likes")
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				mine := map[int64]int64{}
				for i := 0; ; i++ {
					id, add := rng.Int64N(20), func(id int64) error { return c.Add(id, "likes", 1) }
					if i%2 == 0 {
						id, add = 0, func(int64) error { return h.Add(1) }
					}
					err := add(id)
					if err != nil {
						break
					}
					mine[id]++
					if i == 100 {
						started <- struct{}{}
					}
				}
				mu.Lock()
				for id, n := range mine {
					want[id] += n
				}
				mu.Unlock()
			})
		}
		for range 4 {
			<-started
		}
		require.NoError(t, c.Close(t.Context()))
		wg.Wait()
		reader := newTestCounter(t, rdb, Options{Prefix: prefix, Interval: never})
		for id, n := range want {
			require.Equal(t, n, get(t, reader, id)["likes"], "object %d", id)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	_, rdb := redistest.Mini(b)
	c := newTestCounter(b, rdb, Options{Interval: never})
	b.Run("keyed", func(b *testing.B) {
		b.ReportAllocs()
		i := int64(0)
		for b.Loop() {
			_ = c.Add(i&1023, "likes", 1)
			i++
		}
	})
	b.Run("handle", func(b *testing.B) {
		h := c.Handle(1, "views")
		b.ReportAllocs()
		for b.Loop() {
			_ = h.Add(1)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := int64(0); pb.Next(); i++ {
				_ = c.Add(i&1023, "likes", 1)
			}
		})
	})
	assert.Zero(b, testing.AllocsPerRun(1000, func() { _ = c.Add(5, "likes", 1) }), "allocations")
}

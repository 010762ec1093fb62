package counter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
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

var errStore = errors.New("the store's reply was lost")

// A memoryStore is a ColdStore whose replies get lost: fail is asked before and after
// each call.
type memoryStore struct {
	mu     sync.Mutex
	blocks map[string]ColdBlock
	fail   func() bool
}

func newMemoryStore() *memoryStore {
	return &memoryStore{blocks: map[string]ColdBlock{}, fail: func() bool { return false }}
}

func (m *memoryStore) Load(_ context.Context, schema string, block int64) (ColdBlock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail() {
		return ColdBlock{}, errStore
	}
	return m.blocks[fmt.Sprint(schema, "/", block)], nil
}

func (m *memoryStore) Save(_ context.Context, schema string, block int64, b ColdBlock) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail() {
		return false, errStore
	}
	k := fmt.Sprint(schema, "/", block)
	if m.blocks[k].Revision != b.Revision-1 {
		return false, nil
	}
	b.Totals = slices.Clone(b.Totals)
	m.blocks[k] = b
	if m.fail() {
		return false, errStore
	}
	return true, nil
}

func (m *memoryStore) states() (states []ColdState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.blocks {
		states = append(states, b.State)
	}
	return states
}

// moveOut moves the block of an object.
func moveOut(t testing.TB, c *Counter, id int64) bool {
	t.Helper()
	moved, err := c.move(t.Context(), c.shardOf(name{id: id}), id>>blockBits)
	require.NoError(t, err)
	return moved
}

func TestColdBlocksComeBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		store := newMemoryStore()
		opts := Options{Prefix: redistest.Prefix(t), Interval: never, Cold: store}
		c := newCounterOf(t, rdb, tiny, opts)
		ctx := t.Context()
		assert.Equal(t, Values{"likes": 0, "views": 0, "score": 0}, get(t, c, 7))
		assert.Empty(t, store.blocks, "a read makes no block")
		want := Values{"likes": 1, "views": 1 << 32, "score": -1 << 32}
		for field, n := range want {
			require.NoError(t, c.Add(7, field, n))
		}
		require.NoError(t, c.Add(300, "likes", 2))
		require.NoError(t, c.Flush(ctx))
		assert.Zero(t, c.Pending())
		keys := c.keysOf(c.shardOf(name{id: 7}), name{id: 7})
		for round := range 3 {
			require.True(t, moveOut(t, c, 7))
			require.False(t, moveOut(t, c, 7), "it is away")
			require.Zero(t, rdb.Exists(ctx, keys[0], keys[1]).Val())
			assert.Equal(t, int64(1), rdb.Exists(ctx, keys[2]).Val(), "its mark stays")
			other := newCounterOf(t, rdb, tiny, opts)
			switch round {
			case 0:
				assert.Equal(t, want, get(t, other, 7))
			case 1:
				require.NoError(t, other.Add(7, "likes", 4))
				require.NoError(t, other.Flush(ctx))
				want["likes"] += 4
			case 2:
				total, err := other.AddSync(ctx, 7, "likes", 4)
				require.NoError(t, err)
				want["likes"] += 4
				assert.Equal(t, want["likes"], total)
			}
			assert.Equal(t, want, get(t, c, 7))
			assert.Equal(t, int64(1), rdb.Exists(ctx, keys[0]).Val())
		}
		require.True(t, moveOut(t, c, 7))
		changed, err := c.Toggle(ctx, 7, "likes", "ann", true)
		require.NoError(t, err)
		assert.True(t, changed)
		want["likes"]++
		many, err := c.GetMany(ctx, []int64{7, 300, 9999, 8})
		require.NoError(t, err)
		assert.Equal(t, want, many[0])
		assert.Equal(t, int64(2), many[1]["likes"])
		assert.Zero(t, many[2]["likes"])
	})
}

// Blocks leave when nobody has changed them for Options.ColdAfter, not before.
func TestIdleBlocksLeave(t *testing.T) {
	t.Parallel()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		c := newCounterOf(t, rdb, tiny, Options{Prefix: "p", Cold: newMemoryStore(), ColdAfter: 10 * time.Minute})
		here := func(id int64) bool {
			return rdb.Exists(t.Context(), c.keysOf(c.shardOf(name{id: id}), name{id: id})[0]).Val() == 1
		}
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Add(1000, "likes", 1))
		for range 9 {
			time.Sleep(time.Minute)
			require.NoError(t, c.Add(1000, "likes", 1))
		}
		assert.True(t, here(1))
		time.Sleep(3 * time.Minute)
		assert.False(t, here(1))
		assert.True(t, here(1000))
		time.Sleep(20 * time.Minute)
		assert.False(t, here(1000))
		assert.Equal(t, int64(1), get(t, c, 1)["likes"])
		assert.Equal(t, int64(10), get(t, c, 1000)["likes"])
	})
}

// A mover or a return that is killed between any two of its steps loses nothing, and
// the next one goes on from there.
func TestMovesKilledBetweenSteps(t *testing.T) {
	for step := range 12 {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			_, rdb := redistest.Mini(t)
			store := newMemoryStore()
			opts := Options{Prefix: redistest.Prefix(t), Interval: never, Cold: store}
			c := newCounterOf(t, rdb, tiny, opts)
			killed := newCounterOf(t, rdb, tiny, opts)
			require.NoError(t, c.Add(1, "likes", 1))
			require.NoError(t, c.Flush(t.Context()))
			ctx, kill := context.WithCancel(t.Context())
			left := step
			store.fail = func() bool { // and nothing after it
				left--
				if left <= 0 {
					kill()
				}
				return left <= 0
			}
			_, _ = killed.move(ctx, killed.shardOf(name{id: 1}), 0)
			_, _ = killed.AddSync(ctx, 1, "views", 1)
			kill()
			store.fail = func() bool { return false }
			t.Log(store.states())
			require.NoError(t, c.Add(1, "likes", 1))
			require.NoError(t, c.Flush(t.Context()))
			assert.Equal(t, int64(2), get(t, c, 1)["likes"])
			require.True(t, moveOut(t, c, 1))
			assert.Equal(t, int64(2), get(t, c, 1)["likes"])
		})
	}
}

// A step of a move or a return that arrives late, when the block has long moved on,
// changes nothing.
func TestLateStepsChangeNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		store := newMemoryStore()
		c := newCounterOf(t, rdb, tiny, Options{Interval: never, Cold: store})
		ctx, s := t.Context(), c.shardOf(name{id: 1})
		keys := c.keysOf(s, name{id: 1})
		var marks []string
		var records []ColdBlock
		remember := func() {
			marks = append(marks, rdb.Get(ctx, keys[2]).Val())
			b, err := store.Load(ctx, c.coldName(), 0)
			require.NoError(t, err)
			records = append(records, b)
		}
		for range 3 {
			require.NoError(t, c.Add(1, "likes", 1))
			require.NoError(t, c.Flush(ctx))
			remember()
			require.True(t, moveOut(t, c, 1))
			remember()
			get(t, c, 1)
			remember()
		}
		for i, old := range marks[:len(marks)-1] {
			var epoch, version int64
			var letter string
			_, err := fmt.Sscanf(old, "%s %d %d", &letter, &epoch, &version)
			require.NoError(t, err)
			b := records[i]
			require.NoError(t, c.restore(ctx, keys, 0, old, b))
			reply, err := evictScript.Run(ctx, rdb, evictCall(keys, old, mark(false, epoch, version), 0))
			require.NoError(t, err)
			assert.Equal(t, int64(0), reply)
		}
		assert.Equal(t, int64(3), get(t, c, 1)["likes"])
	})
}

// The scripts that evict and restore have their replies lost, twice each.
func TestLostRepliesOfMoves(t *testing.T) {
	for _, fault := range []redistest.Fault{redistest.CutAfter, redistest.LoseReply} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			soon := func(o *redis.Options) { o.ReadTimeout = 100 * time.Millisecond }
			store := newMemoryStore()
			c := newCounterOf(t, b.Client(faults.Options, soon), tiny, Options{Prefix: "p", Interval: never, Cold: store})
			require.NoError(t, c.Add(1, "likes", 1))
			require.NoError(t, c.Flush(t.Context()))
			require.True(t, moveOut(t, c, 1)) // so that the server knows the scripts
			require.Equal(t, int64(1), get(t, c, 1)["likes"])
			faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: 1, Times: 2}) // behind the snapshot
			require.True(t, moveOut(t, c, 1))
			assert.Equal(t, 2, faults.Fired(fault))
			require.Equal(t, []ColdState{Cold}, store.states())
			faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: 1, Times: 2}) // behind the read
			require.Equal(t, int64(1), get(t, c, 1)["likes"])
			assert.Equal(t, 4, faults.Fired(fault))
			require.Equal(t, []ColdState{Hot}, store.states())
		})
	}
}

// naiveMove forgets to look whether the block was changed since it was written down.
func naiveMove(ctx context.Context, c *Counter, rdb redis.UniversalClient, id int64) {
	keys := c.keysOf(c.shardOf(name{id: id}), name{id: id})
	_, _ = c.moveAs(ctx, c.shardOf(name{id: id}), id>>blockBits, func(_, away string) (bool, error) {
		var epoch, version int64
		if n, _ := fmt.Sscanf(away, "c %d %d", &epoch, &version); n != 2 {
			return false, nil
		}
		return true, errors.Join(rdb.Set(ctx, keys[2], away, 0).Err(), rdb.Del(ctx, keys[0], keys[1]).Err())
	})
}

// Blocks that are added to, read and moved out at the same time, by several counters
// whose replies get lost, Redis's and the store's: no increment is lost, none counts
// twice. A mover that does not compare versions is found out.
func TestColdMoveRaces(t *testing.T) {
	perCounter := 400
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		perCounter = 40_000
	}
	right, want := coldRaces(t, perCounter, false)
	assert.Equal(t, want, right)
	for range 10 {
		if wrong, want := coldRaces(t, perCounter, true); wrong != want {
			return
		}
	}
	t.Error("the mover that does not compare was not found out")
}

func coldRaces(t *testing.T, perCounter int, naive bool) (got, want [3]int64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	proc, prefix, store := redistest.Shared(t), redistest.Prefix(t), newMemoryStore()
	storeRNG := rand.New(rand.NewPCG(seed, 99))
	store.fail = func() bool { return !naive && storeRNG.IntN(50) == 0 }
	var total [3]atomic.Int64
	var faulty, failed, moves atomic.Int64
	ids := [3]int64{1, 2, -1}
	adding, moving := sync.WaitGroup{}, sync.WaitGroup{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for g := range 3 {
		var faults redistest.Faults
		faults.Seed = seed + uint64(g)
		if !naive {
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.02, Times: -1})
		}
		rdb := proc.Client(faults.Options)
		c := newCounterOf(t, rdb, tiny, Options{Prefix: prefix, Interval: 2 * time.Millisecond, Cold: store})
		rng := rand.New(rand.NewPCG(seed, uint64(g)))
		adding.Go(func() {
			for i := 0; i < perCounter || !naive && (faults.Fired(redistest.CutAfter) == 0 || moves.Load() == 0); i++ {
				k := rng.IntN(3)
				if err := c.Add(ids[k], "likes", 1); err != nil {
					t.Error(err)
				}
				total[k].Add(1)
				if i%5 == 0 {
					_, err := c.AddSync(t.Context(), ids[k], "likes", 1)
					for errors.Is(err, ErrUnavailable) && !naive { // nothing happened: the store failed
						failed.Add(1)
						_, err = c.AddSync(t.Context(), ids[k], "likes", 1)
					}
					if err == nil {
						total[k].Add(1)
					} else if !naive {
						t.Error(err)
					}
				}
			}
			for c.Pending() > 0 {
				if err := c.Flush(t.Context()); naive && errors.Is(err, ErrLost) {
					break
				}
			}
			faulty.Add(int64(faults.Fired(redistest.CutAfter)))
		})
		moving.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := ids[i%3]
				if naive {
					naiveMove(ctx, c, rdb, id)
				} else if moved, _ := c.move(ctx, c.shardOf(name{id: id}), id>>blockBits); moved {
					moves.Add(1)
				}
			}
		})
	}
	adding.Wait()
	stop()
	moving.Wait()
	store.mu.Lock()
	store.fail = func() bool { return false }
	store.mu.Unlock()
	reader := newCounterOf(t, proc.Client(), tiny, Options{Prefix: prefix, Interval: never, Cold: store})
	for k, id := range ids {
		want[k] = total[k].Load()
		if v, err := reader.Get(t.Context(), id); err == nil || !naive {
			require.NoError(t, err)
			got[k] = v["likes"]
		}
	}
	t.Logf("%d moves, %d store failures told, %d replies lost", moves.Load(), failed.Load(), faulty.Load())
	return got, want
}

// A block that is brought back for a call, and may or may not have come, is no reason to tell
// the caller that what he wanted may have happened: it has not.
func TestUnknownReturnIsUnavailable(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		ctx, store := t.Context(), newMemoryStore()
		c := newCounterOf(t, b.Client(faults.Options), tiny, Options{Prefix: "p", Interval: never, Cold: store})
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Flush(ctx))
		require.True(t, moveOut(t, c, 1))
		for name, call := range map[string]func() error{
			"AddSync": func() error { _, err := c.AddSync(ctx, 1, "likes", 1); return err },
			"Get":     func() error { _, err := c.Get(ctx, 1); return err },
		} {
			// The call itself is answered; the script that restores the block is not.
			faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "evalsha", Skip: 1, Times: -1})
			err := call()
			require.NotZero(t, faults.Fired(redistest.CutBefore), name)
			require.ErrorIs(t, err, ErrUnavailable, name)
			require.NotErrorIs(t, err, ErrUnknown, name)
			faults.Clear()
		}
	})
}

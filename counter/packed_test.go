package counter

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

var tiny = Schema{Name: "tiny", Fields: []Field{{Name: "likes"}, {Name: "views"}, {Name: "score", Signed: true}}, Packed: true}

// What a block looks like, byte for byte: other releases read it.
func TestBlock(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newCounterOf(t, rdb, tiny, Options{Prefix: "p" + redistest.Prefix(t), Interval: never})
		ctx := t.Context()
		require.NoError(t, c.Add(512, "likes", 1))
		require.NoError(t, c.Add(767, "score", -2))
		require.NoError(t, c.Add(513, "views", 0x01020304))
		require.NoError(t, c.Add(514, "views", 1<<31))
		require.NoError(t, c.Flush(ctx))
		keys := c.keysOf(c.shardOf(name{id: 600}), name{id: 600})
		assert.True(t, strings.HasSuffix(keys[0], "}:b:2") && strings.HasSuffix(keys[1], "}:o:2"), keys)
		want := make([]byte, 3*256*4)
		want[3] = 1
		copy(want[1024+4:], []byte{1, 2, 3, 4})
		copy(want[1024+8:], []byte{0x80, 0, 0, 0})
		copy(want[3072-4:], []byte{0xff, 0xff, 0xff, 0xfe})
		assert.Equal(t, string(want), rdb.Get(ctx, keys[0]).Val())
		assert.Equal(t, map[string]string{"258": "2147483648"}, rdb.HGetAll(ctx, keys[1]).Val())
	})
}

// A field added at the end finds the others' totals where they were.
func TestPackedSchemaGrows(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		old := newCounterOf(t, rdb, tiny, Options{Prefix: prefix, Interval: never})
		require.NoError(t, old.Add(-1, "score", -7))
		require.NoError(t, old.Flush(t.Context()))
		more := tiny
		more.Fields = append(more.Fields[:3:3], Field{Name: "shares"})
		grown := newCounterOf(t, rdb, more, Options{Prefix: prefix, Interval: never})
		assert.Equal(t, Values{"likes": 0, "views": 0, "score": -7, "shares": 0}, get(t, grown, -1))
		require.NoError(t, grown.Add(-1, "shares", 3))
		require.NoError(t, grown.Flush(t.Context()))
		require.NoError(t, old.Add(-1, "likes", 1))
		require.NoError(t, old.Flush(t.Context()))
		assert.Equal(t, Values{"likes": 1, "views": 0, "score": -7, "shares": 3}, get(t, grown, -1))
	})
}

// Totals pass the ends of 4 bytes, and those of 2^53 they do not.
func TestPackedTotalsStayInRange(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newCounterOf(t, rdb, tiny, Options{Interval: never})
		ctx := t.Context()
		for _, end := range []int64{1<<31 - 1, 1 << 31, -1 << 31, 0, 1<<31 + 1, 0, -1<<31 + 1, -1<<31 - 1, 255, -256} {
			was := get(t, c, 7)["score"]
			total, err := c.AddSync(ctx, 7, "score", end-was)
			require.NoError(t, err)
			assert.Equal(t, end, total)
			assert.Equal(t, Values{"likes": 0, "views": 0, "score": end}, get(t, c, 7))
		}
		keys := c.keysOf(c.shardOf(name{id: 9}), name{id: 9})
		const most = 1<<53 - 1
		_, err := c.AddSync(ctx, 9, "score", 1<<32)
		require.NoError(t, err)
		require.NoError(t, rdb.HSet(ctx, keys[1], "521", int64(most-2)).Err())
		require.NoError(t, c.Add(9, "score", 3))
		require.NoError(t, c.Add(9, "likes", 1))
		require.NoError(t, c.Add(9, "views", 1))
		require.NoError(t, c.Flush(ctx))
		assert.Equal(t, Values{"likes": 1, "views": 1, "score": most - 2}, get(t, c, 9))
		assert.Equal(t, uint64(1), c.Stats().Refused)
		_, err = c.AddSync(ctx, 9, "score", 3)
		require.ErrorIs(t, err, ErrInvalid)

		// A total that is gone from the hash is refused and is no zero; keys of another
		// type spoil only their own block.
		require.NoError(t, rdb.HDel(ctx, keys[1], "521").Err())
		require.NoError(t, c.Add(9, "score", 3))
		require.NoError(t, rdb.SAdd(ctx, c.keysOf(c.shardOf(name{id: -1}), name{id: -1})[0], "x").Err())
		require.NoError(t, c.Add(-1, "likes", 1))
		require.NoError(t, c.Add(300, "likes", 1))
		require.NoError(t, c.Flush(ctx))
		assert.Equal(t, uint64(3), c.Stats().Refused)
		assert.Equal(t, int64(1), get(t, c, 300)["likes"])
		_, err = c.Get(ctx, 9)
		require.ErrorIs(t, err, ErrUnavailable)
	})
}

// disagree runs a random history on both layouts and returns the first difference.
func disagree(t *testing.T, rdb redis.UniversalClient, steps int, of *scripts) string {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	plain := tiny
	plain.Name, plain.Packed = "plain", false
	a := newCounterOf(t, rdb, plain, Options{Interval: never})
	b := newCounterOf(t, rdb, tiny, Options{Interval: never})
	b.scripts = of
	b.syncs, b.toggles = newGroup(rdb, of.sync), newGroup(rdb, of.toggle)
	ids := []int64{math.MinInt64, math.MinInt64 + 1, -257, -256, -1, 0, 1, 255, 256, 257, 511, math.MaxInt64 - 1, math.MaxInt64}
	deltas := []int64{1, 1, 1, -1, 255, 1 << 16, 1<<31 - 1, -1 << 31, 1 << 32, -1 << 32}
	ctx := t.Context()
	for step := range steps {
		id, field, delta := ids[rng.IntN(len(ids))], tiny.Fields[rng.IntN(3)].Name, deltas[rng.IntN(len(deltas))]
		var x, y any
		var errA, errB error
		switch op := rng.IntN(20); {
		case op < 12:
			errA, errB = a.Add(id, field, delta), b.Add(id, field, delta)
		case op < 14:
			x, errA = a.AddSync(ctx, id, field, delta)
			y, errB = b.AddSync(ctx, id, field, delta)
		case op < 16:
			member, on := fmt.Sprint(rng.IntN(3)), rng.IntN(2) == 0
			x, errA = a.Toggle(ctx, id, field, member, on)
			y, errB = b.Toggle(ctx, id, field, member, on)
		case op < 18:
			errA, errB = a.Flush(ctx), b.Flush(ctx)
		default:
			all, err := a.GetMany(ctx, ids)
			packed, other := b.GetMany(ctx, ids)
			errA, errB = err, other
			for i := range ids {
				if err == nil && other == nil && !maps.Equal(all[i], packed[i]) {
					return fmt.Sprintf("seed %d, step %d, object %d: %v in plain, %v in packed", seed, step, ids[i], all[i], packed[i])
				}
			}
		}
		require.NoError(t, errA)
		if x != y || errB != nil {
			return fmt.Sprintf("seed %d, step %d, object %d: %v in plain, %v and error %v in packed", seed, step, id, x, y, errB)
		}
	}
	return ""
}

func TestPackedAndPlainAgree(t *testing.T) {
	steps := 400
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		steps = 40_000
	}
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		assert.Empty(t, disagree(t, rdb, steps, packed))
	})
}

// Packings that are wrong in what one gets wrong: they must be found out.
func TestWrongPackingsDisagree(t *testing.T) {
	_, rdb := redistest.Mini(t)
	for why, change := range map[string][2]string{
		"wraps":     {"if total <= -MOVED or total >= MOVED then", "if total ~= total then"},
		"unsigned":  {"elseif total > MOVED then", "elseif total ~= total then"},
		"one short": {"4 * tonumber(cells[i]), string.char", "4 * math.min(tonumber(cells[i]), 254), string.char"},
	} {
		wrong := strings.Replace(packedLua, change[0], change[1], 1)
		require.NotEqual(t, packedLua, wrong)
		assert.NotEmpty(t, disagree(t, rdb, 1000, newScripts(wrong)), why)
	}
}

// What doc.go says of memory.
func TestPackedMemory(t *testing.T) {
	rdb := redistest.Server(t).Client()
	schema := tiny
	schema.Fields = []Field{{Name: "likes"}, {Name: "comments"}, {Name: "reposts"}, {Name: "views"}}
	c := newCounterOf(t, rdb, schema, Options{Interval: never})
	for id := range int64(2560) {
		for i, f := range schema.Fields {
			require.NoError(t, c.Add(1e9+id, f.Name, int64(10*i+1)))
		}
	}
	require.NoError(t, c.Flush(t.Context()))
	sum := int64(0)
	for block := int64(1e9 >> 8); block <= (1e9+2559)>>8; block++ {
		n := name{id: block << 8}
		sum += rdb.MemoryUsage(t.Context(), c.keysOf(c.shardOf(n), n)[0]).Val()
	}
	t.Logf("%d bytes", sum)
	assert.LessOrEqual(t, sum, int64(26*2816), "11 blocks, of which the first and the last are not full")
}

package counter

import (
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What Redis has lost is an error; what was at rest in the store is not lost.
func TestLostBlocks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		store := newMemoryStore()
		c := newCounterOf(t, rdb, tiny, Options{Interval: never, Cold: store})
		ctx := t.Context()
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Add(1000, "likes", 1))
		require.NoError(t, c.Flush(ctx))
		require.True(t, moveOut(t, c, 1000))
		for _, id := range []int64{1, 1000} { // Redis forgets everything
			keys := c.keysOf(c.shardOf(name{id: id}), name{id: id})
			for _, k := range keys {
				require.NoError(t, rdb.Del(ctx, k).Err())
			}
		}
		assert.Equal(t, int64(1), get(t, c, 1000)["likes"])
		_, err := c.Get(ctx, 1)
		require.ErrorIs(t, err, ErrLost)
		_, err = c.AddSync(ctx, 2, "likes", 1)
		require.ErrorIs(t, err, ErrLost)
		_, err = c.Toggle(ctx, 2, "likes", "ann", true)
		require.ErrorIs(t, err, ErrLost)
		require.NoError(t, c.Add(3, "likes", 1))
		require.NoError(t, c.Add(1000, "likes", 1))
		require.ErrorIs(t, c.Flush(ctx), ErrLost)
		assert.Equal(t, int64(2), get(t, c, 1000)["likes"], "other shards go on")
		assert.Equal(t, 1, c.Pending())

		// Whoever accepts the loss deletes the record.
		delete(store.blocks, fmt.Sprint(c.coldName(), "/", 0))
		require.NoError(t, c.Flush(ctx))
		assert.Equal(t, int64(1), get(t, c, 3)["likes"])

		// Only the block's string is lost, or the store has lost what Redis knows.
		require.NoError(t, rdb.Del(ctx, c.keysOf(c.shardOf(name{id: 3}), name{id: 3})[0]).Err())
		_, err = c.Get(ctx, 3)
		require.Error(t, err)
		_, err = c.move(ctx, c.shardOf(name{id: 3}), 0)
		require.ErrorIs(t, err, ErrLost)
		require.True(t, moveOut(t, c, 1000))
		clear(store.blocks)
		_, err = c.Get(ctx, 1000)
		require.ErrorIs(t, err, ErrLost)
		require.NoError(t, c.Add(7000, "likes", 1))
		require.NoError(t, c.Flush(ctx))
		clear(store.blocks)
		_, err = c.move(ctx, c.shardOf(name{id: 7000}), 7000>>blockBits)
		require.ErrorIs(t, err, ErrLost)
	})
}

// A block that is here by its mark, and of which a key is gone or is something else, is
// lost, whoever asks; increments of it wait.
func TestHalfLostBlocks(t *testing.T) {
	const beyond = 1 << 32 // of 4 bytes: the total moves to the hash
	for what, lose := range map[string]func(rdb redis.UniversalClient, keys []string) error{
		"the string": func(rdb redis.UniversalClient, keys []string) error { return rdb.Del(t.Context(), keys[0]).Err() },
		"the hash":   func(rdb redis.UniversalClient, keys []string) error { return rdb.Del(t.Context(), keys[1]).Err() },
		"its type": func(rdb redis.UniversalClient, keys []string) error {
			return errors.Join(rdb.Del(t.Context(), keys[0]).Err(), rdb.RPush(t.Context(), keys[0], "x").Err())
		},
	} {
		t.Run(what, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				c := newCounterOf(t, rdb, tiny, Options{Interval: never, Cold: newMemoryStore()})
				ctx := t.Context()
				require.NoError(t, c.Add(1, "likes", beyond))
				require.NoError(t, c.Flush(ctx))
				s := c.shardOf(name{id: 1})
				require.NoError(t, lose(rdb, c.keysOf(s, name{id: 1})))

				_, err := c.Get(ctx, 1)
				require.ErrorIs(t, err, ErrLost)
				require.NotErrorIs(t, err, ErrUnavailable)
				_, err = c.AddSync(ctx, 1, "likes", 1)
				require.ErrorIs(t, err, ErrLost)
				require.NotErrorIs(t, err, ErrUnknown)
				_, err = c.Toggle(ctx, 1, "likes", "ann", true)
				require.ErrorIs(t, err, ErrLost)
				require.NoError(t, c.Add(1, "likes", 1))
				require.NoError(t, c.Add(2, "views", 7))
				require.ErrorIs(t, c.Flush(ctx), ErrLost)
				require.Equal(t, 2, c.Pending())
				require.Zero(t, c.Stats().Refused)
			})
		})
	}
}

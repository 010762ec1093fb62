package counter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Increments that cancelled each other fill a batch, and what stands behind them is
// stored all the same.
func TestFlushPassesWhatCancelled(t *testing.T) {
	_, rdb := redistest.Mini(t)
	opts := Options{Prefix: redistest.Prefix(t), Interval: never}
	c, other := newCounterOf(t, rdb, tiny, opts), newCounterOf(t, rdb, tiny, opts)
	for id := range int64(batchSize) {
		require.NoError(t, c.Add(id, "likes", 1))
		require.NoError(t, c.Add(id, "likes", -1))
	}
	require.NoError(t, c.Add(batchSize, "likes", 1))
	require.NoError(t, c.Flush(t.Context()))
	require.Zero(t, c.Pending())
	require.Equal(t, int64(1), get(t, other, batchSize)["likes"])
}

// A shard whose flush fails does not hold up the others, however much they have.
func TestShardsDoNotHoldUpEachOther(t *testing.T) {
	_, rdb := redistest.Mini(t)
	c := newCounterOf(t, rdb, tiny, Options{Interval: never, Cold: newMemoryStore()})
	require.NoError(t, c.Add(1, "likes", 1))
	require.NoError(t, c.Flush(t.Context()))
	require.NoError(t, rdb.FlushAll(t.Context()).Err())
	const many = 10 * 1 << blockBits
	lost, others := c.shardOf(name{id: 1}), 0
	require.NoError(t, c.Add(1, "likes", 1))
	for id := int64(1 << blockBits); id < many; id++ {
		if c.shardOf(name{id: id}) != lost {
			others++
			require.NoError(t, c.Add(id, "likes", 1))
		}
	}
	require.Greater(t, others, 4*batchSize)
	require.ErrorIs(t, c.Flush(t.Context()), ErrLost)
	require.Equal(t, 1, c.Pending())
	require.Equal(t, uint64(1), c.Stats().Failures)
}

// What is given up does not keep its shard closed.
func TestBacklogEndsWithItsBatch(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		c := newTestCounter(t, b.Client(faults.Options), Options{Prefix: "p", Interval: never, MaxOutage: time.Minute})
		require.NoError(t, c.Add(1, "likes", 1))
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval"})
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Match: "eval", Times: -1})
		require.ErrorIs(t, c.Flush(t.Context()), ErrUnknown)
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, c.Flush(t.Context()), ErrUnknown)
		require.ErrorIs(t, c.Add(1, "likes", 1), ErrBacklog)
		c.turn <- struct{}{}
		flight := c.shardOf(name{id: 1}).flight
		flight.unknown = flight.unknown.Add(-resendFor) // a day of attempts
		<-c.turn
		require.NoError(t, c.Flush(t.Context()), "given up")
		assert.Equal(t, uint64(1), c.Stats().Dropped)
		faults.Clear()
		require.NoError(t, c.Add(1, "likes", 1))
		require.NoError(t, c.Flush(t.Context()))
	})
}

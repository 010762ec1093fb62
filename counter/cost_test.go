package counter

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// trips counts round trips.
type trips struct{ n atomic.Int64 }

func (*trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmds)
	}
}

// What doc.go says that calls cost.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	hook := &trips{}
	rdb.AddHook(hook)
	c := newTestCounter(t, rdb, Options{Interval: never})
	ctx := t.Context()
	ids := make([]int64, 300)
	for i := range ids {
		ids[i] = int64(i)
	}
	steps := []struct {
		name  string
		trips int64
		call  func() error
	}{
		{"Add", 0, func() error {
			for _, id := range ids {
				if err := c.Add(id, "likes", 1); err != nil {
					return err
				}
			}
			return nil
		}},
		{"Flush", 1, func() error { return c.Flush(ctx) }},
		{"Flush of nothing", 0, func() error { return c.Flush(ctx) }},
		{"AddSync", 1, func() error { _, err := c.AddSync(ctx, 1, "likes", 1); return err }},
		{"AddSync, spread", 2, func() error { _, err := c.AddSync(ctx, 1, "hot", 1); return err }},
		{"Toggle", 1, func() error { _, err := c.Toggle(ctx, 1, "likes", "ann", true); return err }},
		{"Get", 1, func() error { _, err := c.Get(ctx, 1); return err }},
		{"GetMany", 1, func() error { _, err := c.GetMany(ctx, ids); return err }},
	}
	for _, s := range steps { // so that the server knows the scripts
		require.NoError(t, s.call())
	}
	for _, s := range steps {
		before := hook.n.Load()
		require.NoError(t, s.call())
		assert.Equal(t, s.trips, hook.n.Load()-before, s.name)
	}

	h := c.Handle(1, "likes")
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = h.Add(1) }), "Handle.Add")
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = c.Add(1, "likes", 1) }), "Add")
	id := int64(1000)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Add(id, "likes", 1); id++ }), 8.0, "the first Add")
}

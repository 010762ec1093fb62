package idgen

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

func (*trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// What doc.go says that calls cost.
func TestCostPerCall(t *testing.T) {
	_, rdb := redistest.Mini(t)
	hook := &trips{}
	rdb.AddHook(hook)
	store := redisStoreOf(t, rdb, RedisOptions{})
	s := segment(t, store, Options{MinStep: 1_000_000})
	p, err := NewPermuter([]byte("k"), 1<<40)
	require.NoError(t, err)
	take(t, s, 1) // loads the script, and claims
	for _, step := range []struct {
		name   string
		trips  int64
		allocs float64 // -1: not promised
		call   func() error
	}{
		{"Next", 0, 0, func() error { _, err := s.Next(t.Context()); return err }},
		{"TryNext", 0, 0, func() error { s.TryNext(); return nil }},
		{"NextN", 0, 1, func() error { _, err := s.NextN(t.Context(), 100); return err }},
		{"Permute", 0, 0, func() error { _, err := p.Permute(1); return err }},
		{"Invert", 0, 0, func() error { _, err := p.Invert(1); return err }},
		{"Claim", 1, -1, func() error { _, err := store.Claim(t.Context(), "order", 10); return err }},
	} {
		before := hook.n.Load()
		require.NoError(t, step.call(), step.name)
		assert.Equal(t, step.trips, hook.n.Load()-before, step.name)
		if step.allocs >= 0 {
			assert.Equal(t, step.allocs, testing.AllocsPerRun(100, func() { _ = step.call() }), step.name)
		}
	}
}

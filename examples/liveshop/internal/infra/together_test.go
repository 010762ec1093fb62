package infra_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
	"github.com/spillway-go/spillway/internal/redistest"
)

// Everybody gets the results of their own commands, and the errors.
func TestTogether(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		ctx := t.Context()
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				key := fmt.Sprint("together:", i)
				var count *redis.IntCmd
				var none, same *redis.StringCmd
				err := env.Together(ctx, key, func(p redis.Pipeliner) {
					none = p.Get(ctx, key)
					if i%7 == 0 {
						p.HSet(ctx, key, "f", "v")
					}
					count = p.IncrBy(ctx, key, int64(i))
					same = p.Get(ctx, key)
				})
				if i%7 == 0 {
					require.ErrorContains(t, err, "WRONGTYPE")
					return
				}
				require.NoError(t, err, "that there is no such key is an answer")
				require.ErrorIs(t, none.Err(), redis.Nil)
				require.Equal(t, int64(i), count.Val())
				require.Equal(t, strconv.Itoa(i), same.Val())
			})
		}
		wg.Wait()

		gone, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, env.Together(gone, "k", func(p redis.Pipeliner) { p.Ping(gone) }), context.Canceled)
	})
}

// A road is a way to Redis that takes a while, and counts the trips.
type road struct {
	redis.Hook
	trips atomic.Int64
}

func (*road) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*road) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (r *road) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.trips.Add(1)
		<-time.After(5 * time.Millisecond)
		return next(ctx, cmds)
	}
}

// Who comes while a round trip is under way shares the next one.
func TestTogetherSharesRoundTrips(t *testing.T) {
	env := shoptest.Env(t)
	r := &road{}
	env.Redis.AddHook(r)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			require.NoError(t, env.Together(t.Context(), "k", func(p redis.Pipeliner) { p.Incr(t.Context(), "k") }))
		})
	}
	wg.Wait()
	require.Less(t, r.trips.Load(), int64(50))
	require.Equal(t, "200", env.Redis.Get(t.Context(), "k").Val())
}

// Nobody waits for a node of a Cluster that does not answer but who asks for its keys.
func TestTogetherByNode(t *testing.T) {
	procs := redistest.Cluster(t, 3, 0)
	var addrs []string
	for _, node := range procs.Nodes() {
		addrs = append(addrs, node.Addr())
	}
	env := shoptest.Open(t, infra.Config{Cluster: strings.Join(addrs, ",")}, true)
	ask := func(ctx context.Context, key string) error {
		return env.Together(ctx, key, func(p redis.Pipeliner) { p.Incr(ctx, key) })
	}
	stuck := procs.MasterOf("stuck")
	var others []string
	for i := 0; len(others) < 50; i++ {
		if key := fmt.Sprint("k", i); procs.MasterOf(key) != stuck {
			others = append(others, key)
		}
	}
	stuck.Pause()
	defer stuck.Resume()
	hasty, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, key := range others {
		wg.Go(func() { assert.ErrorIs(t, ask(hasty, "stuck"), context.DeadlineExceeded) })
		wg.Go(func() { assert.NoError(t, ask(hasty, key)) })
	}
	wg.Wait()
}

package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// The oracle finds what is wrong with the usual ways.
func TestHistoriesCatchNaiveCaches(t *testing.T) {
	for kind, open := range map[string]func(rdb *redis.Client, h *history) (node, func()){
		"cache-aside": func(rdb *redis.Client, h *history) (node, func()) {
			return &naive{rdb: rdb, load: h.load}, func() {}
		},
		"SETNX after DEL": func(rdb *redis.Client, h *history) (node, func()) {
			return &naive{rdb: rdb, load: h.load, setnx: true}, func() {}
		},
		"local cleared before Redis": func(rdb *redis.Client, h *history) (node, func()) {
			c, err := New(rdb, "rows", Source[string, int]{Load: h.load}, Options{TTL: 2 * time.Second})
			require.NoError(t, err)
			return clearsFirst{cacheNode{c}}, func() { require.NoError(t, c.Close(context.Background())) }
		},
		"nobody is told": func(rdb *redis.Client, h *history) (node, func()) {
			c, err := New(rdb, "rows", Source[string, int]{Load: h.load}, Options{LocalTTL: time.Minute})
			require.NoError(t, err)
			// The messages are neither sent nor counted.
			c.remote.channel = "astray"
			c.remote.sequence = newInvalidations(rdb, "astray", nil, nil)
			return cacheNode{c}, func() { require.NoError(t, c.Close(context.Background())) }
		},
	} {
		t.Run(kind, func(t *testing.T) {
			h := run(t, freshSeed(t), 5000, pace{calm: kind == "nobody is told"}, open)
			require.NotEmpty(t, h.wrong)
			t.Logf("%d of %d reads, such as %s", len(h.wrong), h.done, h.wrong[0])
		})
	}
}

// clearsFirst is this cache with the steps of Delete in the order that comes to
// mind first.
type clearsFirst struct{ cacheNode }

func (n clearsFirst) Delete(ctx context.Context, keys ...string) error {
	n.forget(keys[0], n.local.hash(keys[0]))
	sleep(ctx, time.Millisecond) // the way to Redis, which takes no time in a bubble
	return n.remote.drop(ctx, keys, false)[0]
}

// naive is a cache as one writes it in an afternoon.
type naive struct {
	rdb   *redis.Client
	load  func(context.Context, string) (int, error)
	setnx bool
}

func (n *naive) Get(ctx context.Context, key string) (int, error) {
	v, err := n.rdb.Get(ctx, key).Int()
	if !errors.Is(err, redis.Nil) {
		return v, err
	}
	if v, err = n.load(ctx, key); err != nil {
		return 0, err
	}
	if n.setnx {
		return v, n.rdb.SetNX(ctx, key, v, 2*time.Second).Err()
	}
	return v, n.rdb.Set(ctx, key, v, 2*time.Second).Err()
}

func (n *naive) Set(ctx context.Context, key string, v int) error {
	return n.rdb.Set(ctx, key, v, 2*time.Second).Err()
}

func (n *naive) Delete(ctx context.Context, keys ...string) error {
	return n.rdb.Del(ctx, keys...).Err()
}

func (n *naive) inRedis(ctx context.Context, key string) (int, bool) {
	v, err := n.rdb.Get(ctx, key).Int()
	return v, err == nil
}

// Package noevict asks whether a Redis may throw keys away when its memory is
// full. Packages whose keys only make sense together break when one of them is
// evicted, and use it in New.
package noevict

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// NoEviction is the policy under which Redis refuses writes instead of evicting.
const NoEviction = "noeviction"

// errUnreadable says that the policy could not be learned: the server hides it,
// as many hosted ones do, or did not answer.
var errUnreadable = errors.New("maxmemory-policy is unreadable")

// Check returns the maxmemory-policy of the masters behind rdb: NoEviction if
// all have it, else one that another of them has. It is an error, which wraps
// the cause, if no master is known to evict but one could not be asked. It
// costs one or two round trips a master.
func Check(ctx context.Context, rdb redis.UniversalClient) (policy string, err error) {
	var mu sync.Mutex
	policy = NoEviction
	each := func(ctx context.Context, c *redis.Client) error {
		p, err := read(ctx, c)
		if err == nil && p != NoEviction {
			mu.Lock()
			policy = p
			mu.Unlock()
		}
		return err
	}
	switch c := rdb.(type) {
	case interface {
		ForEachMaster(context.Context, onNode) error
	}: // Cluster
		err = c.ForEachMaster(ctx, each)
	case interface {
		ForEachShard(context.Context, onNode) error
	}: // Ring, except shards found down
		err = c.ForEachShard(ctx, each)
	default:
		policy, err = read(ctx, rdb)
	}
	if policy != NoEviction && policy != "" {
		return policy, nil
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return policy, nil
}

type onNode = func(context.Context, *redis.Client) error

// read prefers CONFIG, and INFO where that is forbidden or renamed.
func read(ctx context.Context, c redis.Cmdable) (string, error) {
	config, err := c.ConfigGet(ctx, "maxmemory-policy").Result()
	if policy := config["maxmemory-policy"]; policy != "" {
		return policy, nil
	}
	info, err2 := c.Info(ctx, "memory").Result()
	for line := range strings.Lines(info) {
		if policy, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); ok {
			return policy, nil
		}
	}
	if err = errors.Join(err, err2); err == nil {
		err = errors.New("neither CONFIG GET nor INFO tells it")
	}
	return "", err
}

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

var (
	// ErrEvicts says that keys may be evicted.
	ErrEvicts = errors.New("maxmemory-policy is not noeviction: CONFIG SET maxmemory-policy noeviction")
	// ErrUnreadable says that the policy could not be learned: the server
	// hides it, as many hosted ones do, or did not answer.
	ErrUnreadable = errors.New("maxmemory-policy is unreadable")
)

// Check reads the maxmemory-policy of every master behind rdb: one or two
// round trips each. It returns nil if all are noeviction; an error that wraps
// ErrEvicts and names the policy if one is not; else one that wraps
// ErrUnreadable and the cause if one could not be read.
func Check(ctx context.Context, rdb redis.UniversalClient) error {
	var (
		mu    sync.Mutex
		found []error
	)
	each := func(ctx context.Context, c *redis.Client) error {
		err := checkOne(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		found = append(found, err)
		return nil // the others are asked all the same
	}
	var err error
	switch c := rdb.(type) {
	case interface {
		ForEachMaster(context.Context, perNode) error
	}: // Cluster
		err = c.ForEachMaster(ctx, each)
	case interface {
		ForEachShard(context.Context, perNode) error
	}: // Ring
		err = c.ForEachShard(ctx, each)
	default:
		return checkOne(ctx, rdb)
	}
	for _, err := range found {
		if errors.Is(err, ErrEvicts) {
			return err
		}
	}
	if err == nil && len(found) == 0 {
		err = errors.New("no master is known")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return errors.Join(found...)
}

type perNode = func(context.Context, *redis.Client) error

func checkOne(ctx context.Context, c redis.Cmdable) error {
	policy, err := read(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	case policy != "noeviction":
		return fmt.Errorf("%w, now %s", ErrEvicts, policy)
	}
	return nil
}

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

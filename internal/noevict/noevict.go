// Package noevict finds out whether a Redis may evict keys.
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

// Check returns the maxmemory-policy of the server, or of a Cluster's masters the
// first that is not NoEviction. An error means that it could not be read, as on
// servers that allow neither CONFIG nor INFO.
func Check(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	c, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return policy(ctx, rdb)
	}
	var mu sync.Mutex
	result := NoEviction
	err := c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		p, err := policy(ctx, node)
		if err == nil && p != NoEviction {
			mu.Lock()
			result = p
			mu.Unlock()
		}
		return err
	})
	if result != NoEviction {
		return result, nil
	}
	return result, err
}

func policy(ctx context.Context, rdb redis.Cmdable) (string, error) {
	config, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	if err == nil && config["maxmemory-policy"] != "" {
		return config["maxmemory-policy"], nil
	}
	info, infoErr := rdb.Info(ctx, "memory").Result()
	for line := range strings.Lines(info) {
		if p, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); found {
			return p, nil
		}
	}
	return "", fmt.Errorf("maxmemory-policy is in neither CONFIG GET nor INFO: %w", errors.Join(err, infoErr, errors.ErrUnsupported))
}

package im

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// routeUsers has frames for users sent to this server, for 150 s: those given, or all
// who are here. The entry is not taken back when a user goes, only left to expire: one
// who goes and comes back at the same moment would otherwise be lost, and a frame too
// many costs nothing.
func (h *Hub) routeUsers(ctx context.Context, uids ...int64) error {
	if len(uids) == 0 {
		h.mu.Lock()
		for uid := range h.users {
			uids = append(uids, uid)
		}
		h.mu.Unlock()
	}
	for some := range slices.Chunk(uids, 500) {
		_, err := h.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, uid := range some {
				p.SAdd(ctx, userKey(uid), h.server)
				p.Expire(ctx, userKey(uid), 150*time.Second)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("im: route users: %w", err)
		}
	}
	return nil
}

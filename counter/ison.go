package counter

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// IsOn reports for each of up to 10,000 objects whether a member is on there, as Toggle
// put it: the hearts of a page, for one reader. One round trip for all (one to each server
// of a Cluster), O(objects). Errors are those of Get.
func (c *Counter) IsOn(ctx context.Context, field, member string, ids ...int64) ([]bool, error) {
	if err := checkMember(member); err != nil {
		return nil, err
	}
	return c.areOn(ctx, field, ids, func(p redis.Pipeliner, id int64, s *shard) redis.Cmder {
		return p.SIsMember(ctx, s.space.Key(setOf(id, field)), member)
	})
}

// IsOnAt is IsOn for members that ToggleAt put on or off.
func (c *Counter) IsOnAt(ctx context.Context, field string, member uint32, ids ...int64) ([]bool, error) {
	return c.areOn(ctx, field, ids, func(p redis.Pipeliner, id int64, s *shard) redis.Cmder {
		return p.GetBit(ctx, s.space.Key(bitmapOf(id, field, member)), int64(member%bitmapBits))
	})
}

func (c *Counter) areOn(ctx context.Context, field string, ids []int64, ask func(redis.Pipeliner, int64, *shard) redis.Cmder) ([]bool, error) {
	if c.closed.Load() {
		return nil, fmt.Errorf("%w: schema %q", ErrClosed, c.schema.Name)
	}
	if len(ids) > maxMany {
		return nil, fmt.Errorf("%w: %d ids, want at most %d", ErrInvalid, len(ids), maxMany)
	}
	if _, err := c.field(field); err != nil {
		return nil, err
	}
	on := make([]bool, len(ids))
	if len(ids) == 0 {
		return on, nil
	}
	replies := make([]redis.Cmder, len(ids))
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			replies[i] = ask(p, id, c.shardOf(name{id: id}))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("counter: schema %q: %w: %w", c.schema.Name, ErrUnavailable, err)
	}
	for i, r := range replies {
		switch r := r.(type) {
		case *redis.BoolCmd:
			on[i] = r.Val()
		case *redis.IntCmd:
			on[i] = r.Val() == 1
		}
	}
	return on, nil
}

// setOf and bitmapOf name what remembers members that are on.
func setOf(id int64, field string) string { return "m:" + strconv.FormatInt(id, 10) + ":" + field }

func bitmapOf(id int64, field string, member uint32) string {
	return "d:" + strconv.FormatInt(id, 10) + ":" + field + ":" + strconv.Itoa(int(member/bitmapBits))
}

func checkMember(member string) error {
	if member == "" || len(member) > maxMember {
		return fmt.Errorf("%w: member of %d bytes, want 1 to %d", ErrInvalid, len(member), maxMember)
	}
	return nil
}

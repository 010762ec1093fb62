package feed

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/delayqueue"
)

// job pushes a post.
type job struct {
	ID    int64 `json:"id"`
	Added int64 `json:"added"` // ms
}

func (j job) name() string { return "post-" + strconv.FormatInt(j.ID, 10) }

func (f *Feeds) addJob(ctx context.Context, j job) error {
	body, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, err = f.jobs.Add(ctx, delayqueue.Job{ID: j.name(), Body: body, Delay: pushAfter})
	return err
}

func inboxKey(fan int64) string   { return "liveshop:feed:inbox:" + text(fan) }
func freshKey(fan int64) string   { return "liveshop:feed:fresh:" + text(fan) }
func activeKey(host int64) string { return "liveshop:feed:active:" + text(host) }

// push puts a post into the inboxes of the host's active fans. Doing it twice changes
// nothing.
func (f *Feeds) push(ctx context.Context, j job, _ *delayqueue.Delivery) error {
	p, err := scanPost(f.env.DB.QueryRowContext(ctx, "SELECT "+postColumns+" FROM posts WHERE id = ?", j.ID))
	switch {
	case errors.Is(err, sql.ErrNoRows) && time.Now().UnixMilli()-j.Added < unstored.Milliseconds():
		return delayqueue.Snooze(pushAfter) // it may come yet
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("post %d: %w", j.ID, err)
	}
	total, err := f.total(ctx, p.Host)
	if err != nil {
		return err
	}
	if err := f.unread.Posted(ctx, text(p.Host), total); err != nil {
		return err
	}
	active, since := activeKey(p.Host), time.Now().Add(-activeFor).UnixMilli()
	if err := f.env.Redis.ZRemRangeByScore(ctx, active, "-inf", strconv.FormatInt(since, 10)).Err(); err != nil {
		return err
	}
	for cursor := uint64(0); ; { // a scan sees every fan who is there all the time
		var fans []string // and their scores
		if fans, cursor, err = f.env.Redis.ZScan(ctx, active, cursor, "", 500).Result(); err != nil {
			return err
		}
		_, err := f.env.Redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := 0; i < len(fans); i += 2 {
				uid, err := strconv.ParseInt(fans[i], 10, 64)
				if err != nil {
					return err
				}
				fill(ctx, pipe, uid, []Post{p})
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("post %d: %w", p.ID, err)
		}
		if cursor == 0 {
			return nil
		}
	}
}

// fill puts posts into an inbox.
func fill(ctx context.Context, pipe redis.Pipeliner, fan int64, posts []Post) {
	if len(posts) == 0 {
		return
	}
	entries := make([]redis.Z, len(posts))
	for i, p := range posts {
		entries[i] = redis.Z{Score: float64(p.Created), Member: p.ID}
	}
	key := inboxKey(fan)
	pipe.ZAdd(ctx, key, entries...)
	pipe.ZRemRangeByRank(ctx, key, 0, -perInbox-1)
	pipe.Expire(ctx, key, activeFor)
}

// fingerprint names a set of hosts.
func fingerprint(hosts []int64) string {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, hosts)
	return strconv.FormatUint(h.Sum64(), 36)
}

// pull brings the inbox of a fan who was away up to date. First the fan becomes active
// at all hosts, so that no post falls between what is pulled and what is pushed.
func (f *Feeds) pull(ctx context.Context, fan int64, hosts []int64) error {
	if len(hosts) == 0 {
		return nil
	}
	now := float64(time.Now().UnixMilli())
	_, err := f.env.Redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, h := range hosts {
			pipe.ZAdd(ctx, activeKey(h), redis.Z{Score: now, Member: fan})
		}
		return nil
	})
	if err != nil {
		return err
	}
	posts, err := f.query(ctx, fmt.Sprintf("SELECT %s FROM posts WHERE host IN (%s) AND deleted = 0 ORDER BY created_ms DESC, id DESC LIMIT %d",
		postColumns, marks(len(hosts)), perInbox), values(hosts)...)
	if err != nil {
		return err
	}
	_, err = f.env.Redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		fill(ctx, pipe, fan, posts)
		pipe.Set(ctx, freshKey(fan), fingerprint(hosts), freshFor)
		return nil
	})
	return err
}

package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// An Entry is a post as it is shown.
type Entry struct {
	Post
	Name string `json:"name"`
}

// page answers GET /feed?page=: the newest posts of the hosts that the user follows. The
// first page makes what is there not unread any more.
func (f *Feeds) page(r *api.Request) (any, error) {
	n, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("page"), "0"))
	if err != nil || n < 0 {
		return nil, api.Bad("page: want a number from 0 on")
	}
	ctx := r.Context()
	hosts, err := f.follows.Get(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	posts, err := f.read(ctx, r.UID, hosts)
	if err != nil {
		return nil, err
	}
	out := struct {
		Posts []Entry `json:"posts"`
		Next  int     `json:"next,omitempty"`
	}{Posts: []Entry{}}
	if len(posts) > (n+1)*perPage {
		out.Next = n + 1
	}
	for _, p := range posts[min(n*perPage, len(posts)):min((n+1)*perPage, len(posts))] {
		name, err := f.name(ctx, p.Host)
		if err != nil {
			return nil, err
		}
		out.Posts = append(out.Posts, Entry{p, name})
	}
	if n == 0 && len(hosts) > 0 {
		if _, err := f.unread.Visit(ctx, text(r.UID), names(hosts)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// read returns what is in a fan's inbox and is to be seen, newest first.
func (f *Feeds) read(ctx context.Context, fan int64, hosts []int64) ([]Post, error) {
	fresh, err := f.env.Redis.Get(ctx, freshKey(fan)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if fresh != fingerprint(hosts) {
		if err := f.pull(ctx, fan, hosts); err != nil {
			return nil, fmt.Errorf("feed of %d: %w", fan, err)
		}
	}
	members, err := f.env.Redis.ZRevRange(ctx, inboxKey(fan), 0, perInbox-1).Result()
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(members))
	for i, m := range members {
		if ids[i], err = strconv.ParseInt(m, 10, 64); err != nil {
			return nil, fmt.Errorf("inbox of %d: %w", fan, err)
		}
	}
	found, err := f.posts.GetMany(ctx, ids)
	if err != nil {
		return nil, err
	}
	var posts []Post
	for _, id := range ids {
		if p, ok := found[id]; ok && !p.Deleted && slices.Contains(hosts, p.Host) {
			posts = append(posts, p)
		}
	}
	return posts, nil
}

// Unread returns how many posts of those whom a user follows are new since the last
// visit. Deleted ones count until then, and so does one that was read before its job
// had run.
func (f *Feeds) Unread(ctx context.Context, uid int64) (any, error) {
	hosts, err := f.follows.Get(ctx, uid)
	if err != nil || len(hosts) == 0 {
		return int64(0), err
	}
	return f.unread.Count(ctx, text(uid), names(hosts))
}

// Following reports whether a user follows a host.
func (f *Feeds) Following(ctx context.Context, uid, host int64) (bool, error) {
	hosts, err := f.follows.Get(ctx, uid)
	return slices.Contains(hosts, host), err
}

func names(hosts []int64) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = text(h)
	}
	return out
}

// follow answers POST /users/{id}/follow. The next visit finds that the inbox is that of
// other hosts, and pulls it anew.
func (f *Feeds) follow(r *api.Request) (any, error) {
	host, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if host == r.UID {
		return nil, api.Bad("nobody follows oneself")
	}
	if _, err := f.name(ctx, host); errors.Is(err, cache.ErrNotFound) {
		return nil, api.NotFound("user")
	} else if err != nil {
		return nil, err
	}
	hosts, err := f.follows.Get(ctx, r.UID)
	if err != nil {
		return nil, err
	}
	if len(hosts) >= mostHosts {
		return nil, api.Conflict("too_many_hosts", fmt.Sprintf("one follows at most %d hosts", mostHosts))
	}
	_, err = f.env.DB.ExecContext(ctx, f.env.InsertNew("follows", "fan", "host", "since_ms"), r.UID, host, time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	return nil, f.follows.Delete(ctx, r.UID)
}

// unfollow answers POST /users/{id}/unfollow. What is pushed until the host forgets the
// fan is not shown.
func (f *Feeds) unfollow(r *api.Request) (any, error) {
	host, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if _, err := f.env.DB.ExecContext(ctx, "DELETE FROM follows WHERE fan = ? AND host = ?", r.UID, host); err != nil {
		return nil, err
	}
	if err := f.follows.Delete(ctx, r.UID); err != nil {
		return nil, err
	}
	return nil, f.env.Redis.ZRem(ctx, activeKey(host), r.UID).Err()
}

func (f *Feeds) loadFollows(ctx context.Context, fan int64) (hosts []int64, err error) {
	rows, err := f.env.DB.QueryContext(ctx, "SELECT host FROM follows WHERE fan = ? ORDER BY host", fan)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h int64
		if err := rows.Scan(&h); err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, rows.Err()
}

package room

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// enter answers GET /rooms/{id}: the room, and its parts, which are read side by side.
// A page that lacks a part is better than none: a part that fails, or takes too long,
// is null and named in "missing".
func (r *Rooms) enter(q *api.Request) (any, error) {
	id, err := q.ID("id")
	if err != nil {
		return nil, err
	}
	v, err := r.Get(q.Context(), id)
	if err != nil {
		return nil, err
	}
	if v.Open {
		if err := r.counts.Add(id, "views", 1); err != nil {
			r.env.Log.Warn("view is not counted", "room", id, "err", err)
		}
	}
	parts := maps.Clone(r.parts)
	parts["host"] = r.hostPart
	parts["counts"] = r.countsPart
	if q.UID != 0 {
		parts["unread"] = r.unreadPart
	}
	out := r.read(q.Context(), v, q.UID, parts)
	out["room"], out["server_time"] = v, time.Now().UnixMilli()
	counts, _ := out["counts"].(map[string]int64)
	out["likes"], out["views"] = counts["likes"], counts["views"]
	delete(out, "counts")
	return out, nil
}

// read reads parts side by side.
func (r *Rooms) read(ctx context.Context, v Room, uid int64, parts map[string]Part) map[string]any {
	ctx, cancel := context.WithTimeout(ctx, r.partTimeout)
	defer cancel()
	var mu sync.Mutex
	out := map[string]any{}
	missing := []string{}
	var g errgroup.Group
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		g.Go(func() error {
			value, err := parts[name](ctx, v, uid)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.env.Log.Warn("part of a room", "room", v.ID, "part", name, "err", err)
				missing = append(missing, name)
				value = nil
			}
			out[name] = value
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	slices.Sort(missing)
	out["missing"] = missing
	return out
}

func (r *Rooms) hostPart(ctx context.Context, v Room, _ int64) (any, error) {
	name, err := r.name(ctx, v.Host)
	return map[string]any{"uid": v.Host, "name": name}, err
}

func (r *Rooms) countsPart(ctx context.Context, v Room, _ int64) (any, error) {
	c, err := r.counts.Get(ctx, v.ID)
	return map[string]int64(c), err
}

// unreadPart also remembers that the user was here, for GET /unread.
func (r *Rooms) unreadPart(ctx context.Context, v Room, uid int64) (any, error) {
	key := visitedKey(uid)
	_, err := r.env.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, key, redis.Z{Score: float64(time.Now().UnixMilli()), Member: v.ID})
		p.ZRemRangeByRank(ctx, key, 0, -visited-1)
		p.Expire(ctx, key, 30*24*time.Hour)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("visit: %w", err)
	}
	n, err := r.messages.Unread(ctx, uid, []int64{v.ID})
	if err != nil {
		return nil, err
	}
	return n[0], nil
}

// visited is how many rooms GET /unread tells of: those entered last.
const visited = 20

func visitedKey(uid int64) string { return "liveshop:visited:" + strconv.FormatInt(uid, 10) }

// unread answers GET /unread: how much is new in the rooms that the user knows, whether
// a room opened that the user has not seen, and what other parts have to tell.
func (r *Rooms) unread(q *api.Request) (any, error) {
	g, ctx := errgroup.WithContext(q.Context())
	out := map[string]any{}
	var mu sync.Mutex
	for name, news := range r.news {
		g.Go(func() error {
			v, err := news(ctx, q.UID)
			mu.Lock()
			defer mu.Unlock()
			out[name] = v
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// roomNews are the messages that the user has not read, by room.
func (r *Rooms) roomNews(ctx context.Context, uid int64) (any, error) {
	names, err := r.env.Redis.ZRevRange(ctx, visitedKey(uid), 0, visited-1).Result()
	if err != nil {
		return nil, fmt.Errorf("visited rooms: %w", err)
	}
	ids := make([]int64, len(names))
	for i, s := range names {
		if ids[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("visited rooms: %w", err)
		}
	}
	counts, err := r.messages.Unread(ctx, uid, ids)
	if err != nil {
		return nil, err
	}
	rooms := map[string]int64{}
	for i, name := range names {
		rooms[name] = counts[i]
	}
	return rooms, nil
}

// dotNews are the red dots, by area.
func (r *Rooms) dotNews(ctx context.Context, uid int64) (any, error) {
	lit, newest, err := r.dots.Lit(ctx, strconv.FormatInt(uid, 10), areas)
	if err != nil {
		return nil, err
	}
	dots := map[string]dot{}
	for i, area := range areas {
		if !newest[i].IsZero() {
			dots[area] = dot{lit[i], newest[i].UnixMilli()}
		}
	}
	return dots, nil
}

// areas are what has a red dot on the page: that rooms were opened.
var areas = []string{"live"}

type dot struct {
	Lit    bool  `json:"lit"`
	Newest int64 `json:"newest"` // ms: what POST /unread/seen takes
}

// seen answers POST /unread/seen: the user saw an area as it was at that time, which is
// "newest" of GET /unread. Not now: something may have come since.
func (r *Rooms) seen(q *api.Request) (any, error) {
	var in struct {
		Area string `json:"area"`
		At   int64  `json:"at"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	if !slices.Contains(areas, in.Area) || in.At <= 0 || in.At >= 1<<53 {
		return nil, api.Bad("want an area of %v, and at: its newest", areas)
	}
	return nil, r.dots.Seen(q.Context(), strconv.FormatInt(q.UID, 10), in.Area, time.UnixMilli(in.At))
}

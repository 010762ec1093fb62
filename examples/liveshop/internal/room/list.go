package room

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
)

// perPage is how many cards a page of the list has.
const perPage = 20

// A card is what the list shows of a room.
type card struct {
	Room
	HostName string `json:"host_name"`
	Likes    int64  `json:"likes"`
	Views    int64  `json:"views"`
	Online   int64  `json:"online"`

	seq int64 // the highest number of its messages
}

// All keys of the list are in one slot: a key is renamed within its slot only.
func listKey(kind string) string { return "liveshop:{rooms}:list:" + kind }

func nextKey(fence int64, kind string) string {
	return fmt.Sprintf("liveshop:{rooms}:next:%d:%s", fence, kind)
}

// page answers GET /rooms?kind=&page=. While somebody turns pages the list is built
// anew, so that a room may be on two pages, or on none.
func (r *Rooms) page(q *api.Request) (any, error) {
	kind := cmp.Or(q.URL.Query().Get("kind"), "all")
	if !slices.Contains([]string{"all", Normal, PK}, kind) {
		return nil, api.Bad("kind: want %s or %s, or none", Normal, PK)
	}
	page, err := strconv.ParseInt(cmp.Or(q.URL.Query().Get("page"), "0"), 10, 32)
	if err != nil || page < 0 {
		return nil, api.Bad("page: want a number from 0 on")
	}
	cards, err := r.env.Redis.LRange(q.Context(), listKey(kind), page*perPage, (page+1)*perPage).Result()
	if err != nil {
		return nil, fmt.Errorf("list of rooms: %w", err)
	}
	out := struct {
		Rooms []json.RawMessage `json:"rooms"`
		Next  int64             `json:"next,omitempty"`
	}{Rooms: []json.RawMessage{}}
	if len(cards) > perPage { // one more was asked for
		cards, out.Next = cards[:perPage], page+1
	}
	for _, c := range cards {
		out.Rooms = append(out.Rooms, json.RawMessage(c))
	}
	return out, nil
}

// builder is what the process that builds the list remembers from one second to the
// next.
type builder struct {
	likes, seqs map[int64]int64
}

// runList builds the list once a second, in whichever process of the fleet holds the
// lock.
func (r *Rooms) runList(ctx context.Context) {
	for ctx.Err() == nil {
		held, lease, err := r.locks.Lock(ctx, "room-list")
		if err != nil {
			if ctx.Err() == nil {
				r.env.Log.Warn("list of rooms: lock", "err", err)
			}
			pause(ctx, time.Second)
			continue
		}
		r.building = builder{map[int64]int64{}, map[int64]int64{}}
		for held.Err() == nil {
			began := time.Now()
			// A list that cannot be built stays as it is: an old one is better than none.
			if err := r.build(held, lease.Fence()); err != nil && held.Err() == nil {
				r.env.Log.Warn("list of rooms", "err", err)
			}
			pause(held, time.Second-time.Since(began))
		}
		if err := lease.Unlock(context.WithoutCancel(ctx)); err != nil {
			r.env.Log.Warn("list of rooms: unlock", "err", err) // another process takes over in 3 s
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// build makes the list, and tells what changed since the last time.
func (r *Rooms) build(ctx context.Context, fence int64) error {
	cards, err := r.cards(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(cards, func(a, b card) int {
		stars := func(c card) int {
			if c.Star {
				return 0
			}
			return 1
		}
		return cmp.Or(stars(a)-stars(b), cmp.Compare(b.Online, a.Online), cmp.Compare(b.ID, a.ID))
	})
	for _, kind := range []string{"all", Normal, PK} {
		var texts []any
		for _, c := range cards {
			if kind == "all" || kind == c.Kind {
				text, err := json.Marshal(c)
				if err != nil {
					return err
				}
				texts = append(texts, text)
			}
		}
		if err := r.replace(ctx, fence, kind, texts); err != nil {
			return err
		}
	}
	return r.tellChanges(ctx, cards)
}

// replace puts a list in place of another at once: nobody sees half of one. The fence in
// the name of the new one keeps a builder that lost its lock, and does not know it yet,
// from writing into another's.
func (r *Rooms) replace(ctx context.Context, fence int64, kind string, texts []any) error {
	if len(texts) == 0 {
		return r.env.Redis.Del(ctx, listKey(kind)).Err()
	}
	next := nextKey(fence, kind)
	_, err := r.env.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, next)
		for some := range slices.Chunk(texts, 500) {
			p.RPush(ctx, next, some...)
		}
		p.Expire(ctx, next, time.Minute)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = r.env.Redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Rename(ctx, next, listKey(kind))
		p.Persist(ctx, listKey(kind))
		return nil
	})
	return err
}

// cards reads what the list shows, and the numbers of the rooms' messages.
func (r *Rooms) cards(ctx context.Context) ([]card, error) {
	rooms, err := r.live(ctx)
	if err != nil || len(rooms) == 0 {
		return nil, err
	}
	ids := make([]int64, len(rooms))
	for i, v := range rooms {
		ids[i] = v.ID
	}
	standings, err := r.messages.Standings(ctx, ids)
	if err != nil {
		return nil, err
	}
	cards := make([]card, len(rooms))
	counts, err := r.counts.GetMany(ctx, ids) // up to 10,000
	if err != nil {
		return nil, err
	}
	for i, v := range rooms {
		name, err := r.name(ctx, v.Host)
		if err != nil {
			return nil, err
		}
		cards[i] = card{v, name, counts[i]["likes"], counts[i]["views"], standings[i].Online, standings[i].Seq}
	}
	return cards, nil
}

// tellChanges shows new likes in the rooms, once a second for all of them, and tells the
// unread counts how many messages there are.
func (r *Rooms) tellChanges(ctx context.Context, cards []card) error {
	var errs []error
	for _, c := range cards {
		if was, ok := r.building.likes[c.ID]; ok && was != c.Likes {
			errs = append(errs, r.messages.Publish(ctx, c.ID, "like", map[string]int64{"count": c.Likes}, im.Sampled))
		}
		r.building.likes[c.ID] = c.Likes
		if r.building.seqs[c.ID] != c.seq {
			if err := r.messages.Sent(ctx, c.ID, c.seq); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		r.building.seqs[c.ID] = c.seq
	}
	return errors.Join(errs...)
}

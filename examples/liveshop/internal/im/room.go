package im

import (
	"context"
	_ "embed"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

//go:embed present.lua
var presentLua string

var present = redis.NewScript(presentLua)

const keepPresence = time.Minute

// A room is what this server knows of a room with sockets here. Guarded by the hub's
// lock, but for reporting.
type room struct {
	id      int64
	members map[*socket]bool
	joining map[*socket]bool // not yet told where the room stands
	known   bool             // epoch and tail are set
	epoch   int64
	seq     int64 // the highest that was handed out here
	tail    int64 // the last reliable frame that was
	online  int64
	budget  bucket           // barrages
	shown   map[string]shown // by type

	// reporting is held over a call that tells Redis of this server, so that a "nobody
	// is left" cannot overtake the "somebody is here" of a socket that comes.
	reporting sync.Mutex
	listed    bool // Redis sends us the room's frames; guarded by reporting
}

// standing is how a room stands in Redis.
type standing struct {
	online, seq, tail, epoch, now int64
	listed                        bool // this server was counted
}

// say tells Redis how many sockets this server has in r. The caller holds r.reporting.
func (h *Hub) say(ctx context.Context, r *room) (standing, error) {
	h.mu.Lock()
	n := len(r.members) + len(r.joining)
	h.mu.Unlock()
	k := keysOf(r.id)
	v, err := present.Run(ctx, h.rdb, []string{k.numbers, k.servers, k.online},
		h.server, n, gone.Milliseconds(), keepNumbers.Milliseconds(), keepPresence.Milliseconds()).Int64Slice()
	if err != nil {
		return standing{}, wrap("report of room", r.id, err)
	}
	r.listed = n > 0
	return standing{v[0], v[1], v[2], v[3], v[4], r.listed}, nil
}

// list sees to it that this server gets the room's frames. What is published once it
// has returned arrives here.
func (h *Hub) list(ctx context.Context, r *room) error {
	r.reporting.Lock()
	defer r.reporting.Unlock()
	if r.listed {
		return nil
	}
	st, err := h.say(ctx, r)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(r.members) == 0 { // those who are joining are told where it stands later
		r.known, r.epoch, r.seq, r.tail, r.online = true, st.epoch, st.seq, st.tail, st.online
	}
	return nil
}

// report tells Redis of all rooms, and repairs what pub/sub lost: a room whose last
// reliable frame did not arrive here. Only the receiving goroutine calls it.
func (h *Hub) report(ctx context.Context) {
	h.mu.Lock()
	rooms := make([]*room, 0, len(h.rooms))
	for _, r := range h.rooms {
		rooms = append(rooms, r)
	}
	h.mu.Unlock()
	found := make([]standing, len(rooms))
	ctx, cancel := context.WithTimeout(ctx, heartbeat) // frames wait for this goroutine
	defer cancel()
	var g errgroup.Group
	g.SetLimit(8)
	for i, r := range rooms {
		g.Go(func() (err error) {
			r.reporting.Lock()
			defer r.reporting.Unlock()
			found[i], err = h.say(ctx, r)
			return err
		})
	}
	h.warn(ctx, "im: report", g.Wait())
	for i, r := range rooms {
		if st := found[i]; st.epoch > 0 {
			h.compare(ctx, r, st)
		}
	}
}

// compare brings a room to where it stands in Redis.
func (h *Hub) compare(ctx context.Context, r *room, st standing) {
	h.mu.Lock()
	if len(r.members)+len(r.joining) == 0 && !st.listed {
		delete(h.rooms, r.id) // a socket that comes makes a new one, which is listed anew
		h.mu.Unlock()
		return
	}
	back := r.known && st.epoch == r.epoch && st.tail < r.tail
	h.mu.Unlock()
	if back {
		// A failover lost the last numbers. They will be given out again, for other
		// frames: so they need another epoch, which the other servers notice as well.
		if err := h.rdb.HSet(ctx, keysOf(r.id).numbers, "epoch", st.now).Err(); err != nil {
			h.warn(ctx, "im: epoch", err, "room", r.id)
			return // it still is so with the next report
		}
		st.epoch = st.now
	}
	h.mu.Lock()
	h.follow(r, st.epoch, st.tail)
	behind := r.known && st.tail > r.tail
	if st.online != r.online {
		r.online = st.online
		h.hand(r, direct(figure, "online", h.id(), r.id, st.now, map[string]int64{"count": st.online}))
	}
	h.mu.Unlock()
	if behind {
		h.repair(ctx, r, st.tail)
	}
}

// follow notices that Redis lost the room's numbers: they begin again, and every
// client has to load the room again. The caller holds the lock.
func (h *Hub) follow(r *room, epoch, tail int64) {
	if r.known && epoch != r.epoch {
		r.epoch = epoch
		h.startOver(r, tail)
	}
}

// startOver tells the sockets of r that they missed something for good: what comes next
// follows tail. The caller holds the lock.
func (h *Hub) startOver(r *room, tail int64) {
	r.seq, r.tail = tail, tail
	for s := range r.members {
		s.after = 0
		h.counts.Unrecovered++
		h.send(s, h.hello(r, hello{Tail: tail, Seq: tail}))
	}
}

// receive handles a message on the server's channel.
func (h *Hub) receive(ctx context.Context, text string) {
	if len(text) > 4 && text[:4] == "user" {
		h.warn(ctx, "im: receive", h.deliver(text))
		return
	}
	b, err := parseBatch(text)
	if err != nil {
		h.warn(ctx, "im: receive", err)
		return
	}
	h.mu.Lock()
	r := h.rooms[b.room]
	if r == nil || !r.known || b.epoch < r.epoch { // the last: sent before Redis lost its data
		h.mu.Unlock()
		return
	}
	h.follow(r, b.epoch, b.prev)
	behind := b.prev > r.tail
	h.mu.Unlock()
	if behind && h.repairs && !h.repair(ctx, r, b.prev) {
		return // its reliable frames are in the log, and come with the next repair
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range b.frames {
		if f.kind == reliable {
			if f.seq <= r.tail {
				continue // a repair was faster
			}
			r.tail = f.seq
		}
		h.hand(r, f)
	}
}

// repair hands out the reliable frames after r.tail, to at least the one numbered to, from
// the log in Redis, and reports whether it could ask. Only the receiving goroutine calls it.
func (h *Hub) repair(ctx context.Context, r *room, to int64) bool {
	if !h.repairs {
		return false
	}
	h.mu.Lock()
	tail := r.tail
	h.mu.Unlock()
	frames, err := h.logged(ctx, r.id, tail)
	if err != nil {
		h.warn(ctx, "im: repair", err, "room", r.id)
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.Repairs++
	if len(frames) == 0 || frames[0].prev > tail { // the log does not reach back so far
		h.startOver(r, to)
	}
	for _, f := range frames {
		if f.seq > r.tail {
			r.tail = f.seq
			h.hand(r, f)
		}
	}
	return true
}

// logged returns the reliable frames of a room after seq.
func (h *Hub) logged(ctx context.Context, room, seq int64) ([]*frame, error) {
	lines, err := h.rdb.ZRangeByScore(ctx, keysOf(room).log, &redis.ZRangeBy{Min: above(seq), Max: "+inf"}).Result()
	if err != nil {
		return nil, wrap("log of room", room, err)
	}
	return parseLines(lines)
}

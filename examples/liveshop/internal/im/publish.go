package im

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed publish.lua
var publishLua string

var publish = redis.NewScript(publishLua)

const (
	logged      = 4 * backlog // reliable frames that can be resumed: more than a socket may have waiting when it is evicted
	stored      = 50          // barrages for those who enter
	keepNumbers = 7 * 24 * time.Hour
	keepFrames  = 24 * time.Hour
	perCall     = 100 // frames in one script
)

// A lane is the frames of one room that wait for the call in flight. They go together
// in the next one: a busy room costs one script a round trip, not one a frame.
type lane struct {
	waiting []*post
}

type post struct {
	kind     byte
	from     int64
	id, rest string
	done     chan error // takes one
}

// Publish sends a frame of type t to everybody in a room, on every server. It returns
// when the frame is stored and on its way. If it fails, the frame may have been sent:
// publish it again with the same id (see Named).
func (h *Hub) Publish(ctx context.Context, room int64, t string, d any, c Class) error {
	kind := byte(figure)
	if c == Reliable {
		kind = reliable
	}
	return h.publish(ctx, room, kind, 0, t, d)
}

func (h *Hub) publish(ctx context.Context, room int64, kind byte, from int64, t string, d any) error {
	rest, id, err := encode(t, h.id(), room, d)
	if err != nil {
		return err
	}
	p := &post{kind, from, id, rest, make(chan error, 1)}
	h.lanesMu.Lock()
	l := h.lanes[room]
	if l == nil {
		l = &lane{}
		h.lanes[room] = l
		go h.drive(context.WithoutCancel(ctx), room, l) // ends with the lane; no call takes over 5 s
	}
	l.waiting = append(l.waiting, p)
	h.lanesMu.Unlock()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("im: publish to room %d: %w", room, context.Cause(ctx))
	}
}

// drive sends what waits in a lane until nothing does.
func (h *Hub) drive(ctx context.Context, room int64, l *lane) {
	for {
		h.lanesMu.Lock()
		n := min(len(l.waiting), perCall)
		posts := l.waiting[:n:n]
		l.waiting = l.waiting[n:]
		if n == 0 {
			delete(h.lanes, room)
		}
		h.lanesMu.Unlock()
		if n == 0 {
			return
		}
		err := h.store(ctx, room, posts)
		for _, p := range posts {
			p.done <- err
		}
	}
}

func (h *Hub) store(ctx context.Context, room int64, posts []*post) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	args := []any{room, channels, gone.Milliseconds(), logged, stored, keepNumbers.Milliseconds(), keepFrames.Milliseconds()}
	for _, p := range posts {
		args = append(args, string(p.kind), p.from, p.id, p.rest)
	}
	k := keysOf(room)
	if err := publish.Run(ctx, h.rdb, []string{k.numbers, k.log, k.last, k.servers}, args...).Err(); err != nil {
		return fmt.Errorf("im: publish to room %d: %w", room, err)
	}
	return nil
}

func wrap(what string, id int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("im: %s %d: %w", what, id, err)
}

// Online returns how many sockets a room has, as the servers said last.
func (h *Hub) Online(ctx context.Context, room int64) (int64, error) {
	counts, err := h.rdb.HVals(ctx, keysOf(room).online).Result()
	return sum(counts), wrap("online of room", room, err)
}

// Last returns the last 50 barrages of a room, oldest first.
func (h *Hub) Last(ctx context.Context, room int64) ([]json.RawMessage, error) {
	lines, err := h.rdb.LRange(ctx, keysOf(room).last, 0, stored-1).Result()
	if err != nil {
		return nil, wrap("last of room", room, err)
	}
	frames, err := parseLines(lines)
	out := make([]json.RawMessage, 0, len(frames))
	for i := len(frames) - 1; i >= 0; i-- {
		out = append(out, frames[i].text)
	}
	return out, err
}

// A Standing is how a room stands: how many sockets it has, and the highest number of
// its frames.
type Standing struct{ Online, Seq int64 }

// Standings returns how many rooms stand. One round trip.
func (h *Hub) Standings(ctx context.Context, rooms []int64) ([]Standing, error) {
	online, seqs := make([]*redis.StringSliceCmd, len(rooms)), make([]*redis.StringCmd, len(rooms))
	_, err := h.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range rooms {
			k := keysOf(id)
			online[i], seqs[i] = p.HVals(ctx, k.online), p.HGet(ctx, k.numbers, "seq")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("im: standings: %w", err)
	}
	out := make([]Standing, len(rooms))
	for i := range rooms {
		if err := errors.Join(online[i].Err(), seqs[i].Err()); err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("im: standing of room %d: %w", rooms[i], err)
		}
		out[i].Online = sum(online[i].Val())
		out[i].Seq, _ = strconv.ParseInt(seqs[i].Val(), 10, 64) // none yet is 0
	}
	return out, nil
}

func sum(counts []string) (n int64) {
	for _, s := range counts {
		c, _ := strconv.ParseInt(s, 10, 64)
		n += c
	}
	return n
}

package im

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// showEvery is how often is asked for what sockets are shown.
const showEvery = time.Second

// A show is something of a room that every socket should see as it is by now: nobody
// publishes it, each server asks for it and hands it to its own sockets.
type show struct {
	t   string
	ask func(ctx context.Context, room int64) (any, error)
}

// A shown is what the sockets of a room saw last of a show.
type shown struct {
	data  []byte
	frame *frame
}

// Show has ask called once a second for each room that has sockets on this server, and
// no other. What it returns is handed to them, as a Sampled frame of type t, if it is
// not what they saw last; nil shows nothing. A socket that comes later gets the last one
// behind its hello, and one that was too slow for some gets it again. So it costs what
// ask costs, once a room and second, however many sockets there are, and nothing in
// Redis by itself. Call it before Run.
func (h *Hub) Show(t string, ask func(ctx context.Context, room int64) (any, error)) {
	h.shows = append(h.shows, show{t, ask})
}

// runShows asks and shows until ctx ends.
func (h *Hub) runShows(ctx context.Context) {
	if len(h.shows) == 0 {
		return
	}
	t := time.NewTicker(showEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			h.warn(ctx, "im: show", h.showAll(ctx))
		case <-ctx.Done():
			return
		}
	}
}

// showAll asks once for each room. Those that it cannot ask about in time are shown with
// the next second.
func (h *Hub) showAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, showEvery)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(8)
	for _, room := range h.crowded() {
		for _, s := range h.shows {
			g.Go(func() error {
				d, err := s.ask(ctx, room)
				if err != nil || d == nil {
					return wrap("show "+s.t+" in room", room, err)
				}
				text, err := json.Marshal(d)
				if err == nil {
					h.show(room, s.t, text)
				}
				return err
			})
		}
	}
	return g.Wait()
}

// crowded returns the rooms that have sockets here.
func (h *Hub) crowded() (rooms []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, r := range h.rooms {
		if len(r.members)+len(r.joining) > 0 {
			rooms = append(rooms, id)
		}
	}
	return rooms
}

// show hands out what is news.
func (h *Hub) show(room int64, t string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[room]
	if r == nil || bytes.Equal(r.shown[t].data, data) {
		return
	}
	f := direct(figure, t, h.id(), room, now(), json.RawMessage(data))
	if r.shown == nil {
		r.shown = map[string]shown{}
	}
	r.shown[t] = shown{data, f}
	h.hand(r, f)
}

// showLast gives a socket what the others of its room see, but for what waits for it.
// The caller holds the lock.
func (h *Hub) showLast(s *socket, r *room) {
	for _, last := range r.shown {
		if !slices.Contains(s.early, last.frame) {
			h.send(s, last.frame)
		}
	}
}

package im

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

const socketPath = "/ws"

// Routes adds the hub's part of the API.
func (h *Hub) Routes(m *api.Mux) {
	m.User("GET /rooms/{id}/im", h.issue)
	m.User("GET /rooms/{id}/read", h.readers)
	m.Raw("GET "+api.Prefix+socketPath, http.HandlerFunc(h.serve))
}

// hello is the first frame of a connection.
type hello struct {
	Recovered  bool  `json:"recovered"` // nothing was missed since the seq that the client named
	Seq        int64 `json:"seq"`       // what comes next is above
	Tail       int64 `json:"tail"`      // prev of the next reliable frame
	Epoch      int64 `json:"epoch"`     // to be named with seq when resuming
	ServerTime int64 `json:"server_time"`
	Online     int64 `json:"online"`
}

func (h *Hub) hello(r *room, v hello) *frame {
	v.Epoch, v.Online, v.ServerTime = r.epoch, r.online, now()
	return direct(figure, "hello", h.id(), r.id, v.ServerTime, v)
}

// serve is one WebSocket, from its token to its end.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	if !h.Ready() {
		http.Error(w, "im: not ready", http.StatusServiceUnavailable)
		return
	}
	if !h.fromOurPage(r) { // before the token is used up
		http.Error(w, "im: origin refused", http.StatusForbidden)
		return
	}
	q := r.URL.Query()
	t, err := h.redeem(r.Context(), q.Get("token"))
	switch {
	case errors.Is(err, errToken):
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	case err != nil:
		h.warn(r.Context(), "im: token", err)
		http.Error(w, "im: not ready", http.StatusServiceUnavailable)
		return
	}
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	s := newSocket(h, conn, t)
	defer s.evict() // closes the connection
	ctx := context.WithoutCancel(r.Context())
	room := h.add(s)
	if room == nil { // the server began to stop while the socket was being opened
		text := websocket.FormatCloseMessage(websocket.CloseServiceRestart, serverStops)
		_ = conn.WriteControl(websocket.CloseMessage, text, time.Now().Add(time.Second))
		return
	}
	defer h.all.Done()
	defer h.remove(s, room)
	seen, _ := strconv.ParseInt(q.Get("seq"), 10, 64)
	epoch, _ := strconv.ParseInt(q.Get("epoch"), 10, 64)
	if err := h.join(ctx, s, room, seen, epoch); err != nil {
		h.warn(ctx, "im: join", err, "room", t.Room)
		text := websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "try again")
		_ = conn.WriteControl(websocket.CloseMessage, text, time.Now().Add(time.Second))
		return
	}
	written := make(chan struct{})
	go func() { defer close(written); s.write() }()
	s.listen(ctx)
	s.evict()
	<-written
}

// add makes a socket one that is joining its room; nil if the hub is ending.
func (h *Hub) add(s *socket) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return nil
	}
	r := h.rooms[s.room]
	if r == nil {
		r = &room{id: s.room, members: map[*socket]bool{}, joining: map[*socket]bool{}, budget: newBucket(perRoom)}
		h.rooms[s.room] = r
	}
	r.joining[s] = true
	h.sockets[s] = true
	h.all.Add(1)
	return r
}

// remove forgets a socket. Redis hears of it with the next report.
func (h *Hub) remove(s *socket, r *room) {
	s.evict()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(r.joining, s)
	delete(r.members, s)
	delete(h.sockets, s)
	delete(h.users[s.uid], s)
	if len(h.users[s.uid]) == 0 {
		delete(h.users, s.uid)
	}
	h.counts.add(s.tally())
}

// join makes a socket a member: first this server gets the room's frames, then the
// socket's place among them is read from Redis, and what came meanwhile follows it. So
// there is no moment from which a frame could be missing.
func (h *Hub) join(ctx context.Context, s *socket, r *room, seen, epoch int64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := h.routeUsers(ctx, s.uid); err != nil {
		return err
	}
	if err := h.list(ctx, r); err != nil {
		return err
	}
	at, err := h.place(ctx, r.id, seen)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	resumed := at.resumable && epoch == at.epoch && epoch == r.epoch && seen <= at.seq
	if seen > 0 && !resumed {
		h.counts.Unrecovered++
	}
	s.after, s.read, r.seq = at.seq, at.seq, max(r.seq, at.seq)
	h.send(s, h.hello(r, hello{Recovered: resumed, Seq: at.seq, Tail: at.tail}))
	if resumed {
		h.counts.Resumed++
		s.allow(len(at.missed))
		for _, f := range at.missed {
			h.send(s, f)
		}
	}
	for _, f := range s.early {
		if f.seq == 0 || f.seq > s.after {
			h.counts.Fanout++
			s.offer(f, f.from == s.uid && f.from != 0, false)
		}
	}
	h.showLast(s, r)
	s.early = nil
	delete(r.joining, s)
	r.members[s] = true
	if h.users[s.uid] == nil {
		h.users[s.uid] = map[*socket]bool{}
	}
	h.users[s.uid][s] = true
	return nil
}

// A place is where a socket enters the frames of a room.
type place struct {
	seq, tail, epoch int64
	missed           []*frame // above the seq that the client named, in order
	resumable        bool     // these are all reliable ones that it missed
}

// place reads the place in one transaction. A client that names nothing needs no frames:
// GET /rooms/{id} has the last ones.
func (h *Hub) place(ctx context.Context, room, seen int64) (place, error) {
	k := keysOf(room)
	var numbers *redis.SliceCmd
	var log, last *redis.StringSliceCmd
	_, err := h.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		numbers = p.HMGet(ctx, k.numbers, "seq", "tail", "epoch")
		if seen > 0 {
			log = p.ZRangeByScore(ctx, k.log, &redis.ZRangeBy{Min: above(seen), Max: "+inf"})
			last = p.LRange(ctx, k.last, 0, stored-1)
		}
		return nil
	})
	if err != nil {
		return place{}, wrap("place in room", room, err)
	}
	var at place
	for i, to := range []*int64{&at.seq, &at.tail, &at.epoch} {
		s, _ := numbers.Val()[i].(string)
		*to, _ = strconv.ParseInt(s, 10, 64) // not there is 0
	}
	if seen <= 0 {
		return at, nil
	}
	frames, err1 := parseLines(log.Val())
	barrages, err2 := parseLines(last.Val())
	if err := errors.Join(err1, err2); err != nil {
		return place{}, err
	}
	at.resumable = at.tail <= seen // no reliable frame is above
	if len(frames) > 0 {
		at.resumable = frames[0].prev <= seen // else the log does not reach back so far
	}
	at.missed = append(frames, slices.DeleteFunc(barrages, func(f *frame) bool { return f.seq <= seen })...)
	slices.SortFunc(at.missed, func(a, b *frame) int { return cmp.Compare(a.seq, b.seq) })
	return at, nil
}

// above is the range of scores greater than seq.
func above(seq int64) string { return "(" + strconv.FormatInt(seq, 10) }

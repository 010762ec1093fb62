package im

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/counter/unread"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

const (
	heartbeat = 5 * time.Second  // between pings, and between a server's reports
	gone      = 15 * time.Second // without a sign, sockets and servers are gone
	retry     = 2 * time.Second  // for an acknowledgement, once
)

// Options of a Hub.
type Options struct {
	// Name returns what a user is called in the room.
	Name func(ctx context.Context, uid int64) (string, error)
	// Enter says whether a user may enter a room, by an error that the user is told.
	Enter func(ctx context.Context, room, uid int64) error
	// Barrage is asked whether barrage is switched on; nil: always.
	Barrage func() bool
}

// A Hub is one server's part of the messages: its sockets, and the way to those of
// the other servers.
//
//   - Publish sends a frame to a room, Tell and Notify to a user; Show keeps the sockets
//     of a room up to date with something that nobody publishes.
//   - Run moves what others publish to the sockets here; without it there are none.
type Hub struct {
	rdb      redis.UniversalClient
	log      *slog.Logger
	server   string
	opts     Options
	originOK func(origin, host string) bool
	upgrader websocket.Upgrader
	unread   *unread.Unread
	receipts *unread.Receipts
	words    *words
	born     string // of this Hub: ids, and the line of its counts
	ids      atomic.Int64
	notes    chan note

	shows []show

	lanesMu sync.Mutex
	lanes   map[int64]*lane

	mu      sync.Mutex
	open    bool // subscribed, and not leaving
	leaving bool
	rooms   map[int64]*room
	users   map[int64]map[*socket]bool
	sockets map[*socket]bool
	counts  Counts // without what live sockets hold
	budget  bucket // barrages that may be handed out
	all     sync.WaitGroup

	reminding struct {
		sync.Mutex
		bucket
	}

	// What a test replaces with a naive variant.
	policy  policy
	repairs bool
}

// New returns the hub of one server.
func New(env *infra.Env, opts Options) (*Hub, error) {
	if opts.Name == nil || opts.Enter == nil {
		return nil, errors.New("im: Options.Name and Options.Enter are required")
	}
	u, err1 := unread.NewUnread(env.Redis, unread.Options{Prefix: "liveshop"})
	r, err2 := unread.NewReceipts(env.Redis, unread.ByMessage, unread.Options{Prefix: "liveshop"})
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	h := &Hub{
		rdb: env.Redis, log: env.Log, server: env.Server, opts: opts, originOK: env.Config.OriginAllowed, unread: u, receipts: r,
		words: newWords(banned), notes: make(chan note, waitingNotes), born: rand.Text()[:8], budget: newBucket(perServer),
		lanes: map[int64]*lane{}, rooms: map[int64]*room{}, users: map[int64]map[*socket]bool{}, sockets: map[*socket]bool{},
		policy: keepReliable, repairs: true,
	}
	h.reminding.bucket = newBucket(allReminders)
	h.upgrader = websocket.Upgrader{CheckOrigin: h.fromOurPage, ReadBufferSize: 1024, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}
	return h, nil
}

// id returns an id that no other frame has.
func (h *Hub) id() string { return h.born + "-" + strconv.FormatInt(h.ids.Add(1), 36) }

// keys of a room, all in one slot.
type keys struct{ numbers, log, last, servers, online, members string }

func keysOf(room int64) keys {
	tag := fmt.Sprintf("liveshop:im:{room-%d}:", room)
	return keys{tag + "numbers", tag + "log", tag + "last", tag + "servers", tag + "online", tag + "members"}
}

const (
	channels  = "liveshop:im:to:"
	countsKey = "liveshop:im:counts"
)

func userKey(uid int64) string { return fmt.Sprintf("liveshop:im:user:%d", uid) }

// Run receives what other servers publish and keeps this one's presence, until ctx
// ends. Then every socket is told, and has three seconds to take what is queued for it.
// It returns nil, or an error if Redis refuses the subscription.
func (h *Hub) Run(ctx context.Context) error {
	sub := h.rdb.Subscribe(ctx, channels+h.server)
	defer func() { _ = sub.Close() }()
	arrivals := sub.ChannelWithSubscriptions(redis.WithChannelSize(1024))
	var notes sync.WaitGroup
	notes.Go(func() { h.runNotes(ctx) })
	notes.Go(func() { h.runShows(ctx) })
	defer notes.Wait()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			h.end(context.WithoutCancel(ctx))
			return nil
		case a, ok := <-arrivals:
			if !ok {
				return errors.New("im: subscription closed")
			}
			h.arrive(ctx, a)
		case <-beat.C:
			h.beat(ctx, n)
			n++
		}
	}
}

// arrive handles what the subscription brings.
func (h *Hub) arrive(ctx context.Context, a any) {
	switch a := a.(type) {
	case *redis.Subscription: // the first one, or another after a break: something may have been missed
		h.mu.Lock()
		h.open = !h.leaving
		h.mu.Unlock()
		h.report(ctx)
	case *redis.Message:
		h.receive(ctx, a.Payload)
	}
}

// beat is what happens every five seconds, for the nth time.
func (h *Hub) beat(ctx context.Context, n int) {
	h.report(ctx)
	if n%12 == 0 { // every minute
		h.warn(ctx, "im: route users", h.routeUsers(ctx))
	}
	h.sayCounts(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sockets {
		if n := s.takeMissed(); n > 0 {
			h.send(s, direct(figure, "sampled", h.id(), s.room, now(), map[string]int64{"n": n}))
			if r := h.rooms[s.room]; r != nil {
				h.showLast(s, r) // it may have missed the last one, and no other need come
			}
		}
	}
}

// serverStops is what sockets are told then.
const serverStops = "server stops"

// Leave tells every socket that this server stops, and closes each when it has taken
// what is queued for it. Clients resume at another server. No new ones are accepted.
func (h *Hub) Leave(context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving {
		return
	}
	h.open, h.leaving = false, true
	for s := range h.sockets {
		h.send(s, direct(figure, "bye", h.id(), s.room, now(), map[string]string{"reason": serverStops}))
		s.finish()
	}
}

// end is Leave, and returns when no socket is left: three seconds later at most.
func (h *Hub) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	h.Leave(ctx)
	force := time.AfterFunc(3*time.Second, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for s := range h.sockets {
			s.evict()
		}
	})
	h.all.Wait()
	force.Stop()
	h.report(ctx) // of rooms that have nobody: this server leaves them
	h.sayCounts(ctx)
}

// Ready reports whether sockets are accepted.
func (h *Hub) Ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// now is this server's clock, for frames that do not pass through Redis.
func now() int64 { return time.Now().UnixMilli() }

// warn logs failures of background work.
func (h *Hub) warn(ctx context.Context, what string, err error, args ...any) {
	if err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, what, append(args, "err", err)...)
	}
}

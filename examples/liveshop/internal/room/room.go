// Package room is live rooms: opened and closed by hosts, listed, entered, liked,
// shared.
//
// Redis keys, beside those of cache, counter, counter/unread and lock:
//
//	liveshop:{rooms}:list:<kind>    list  a card per open room, JSON; kinds all, normal, pk
//	liveshop:{rooms}:next:<fence>:… list  the same while it is built; TTL 1 min
//	liveshop:visited:<uid>          zset  the last 20 rooms that a user entered; TTL 30 days
package room

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/counter"
	"github.com/spillway-go/spillway/counter/unread"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/lock"
	"github.com/spillway-go/spillway/shorturl"
)

// The kinds of rooms.
const (
	Normal = "normal"
	PK     = "pk" // the host may be challenged
)

// A Room is where a host sells.
type Room struct {
	ID     int64  `json:"id"`
	Host   int64  `json:"host"`
	Title  string `json:"title"`
	Kind   string `json:"kind"`
	Star   bool   `json:"star"` // of a host who draws crowds: kept warm
	Open   bool   `json:"open"`
	Opened int64  `json:"opened"` // ms
	Closed int64  `json:"closed"` // ms; 0 while it is open
}

// Messages is what rooms need of package im.
type Messages interface {
	Publish(ctx context.Context, room int64, t string, d any, c im.Class) error
	Standings(ctx context.Context, rooms []int64) ([]im.Standing, error)
	Sent(ctx context.Context, room, seq int64) error
	Unread(ctx context.Context, uid int64, rooms []int64) ([]int64, error)
}

// A Part is a field of the answer to entering a room; uid is 0 for nobody.
type Part func(ctx context.Context, r Room, uid int64) (any, error)

// News is a field of the answer to GET /unread.
type News func(ctx context.Context, uid int64) (any, error)

// Rooms are all rooms.
type Rooms struct {
	env      *infra.Env
	messages Messages
	name     func(ctx context.Context, uid int64) (string, error)

	ids    *idgen.Segment
	rooms  *cache.Cache[int64, Room]
	counts *counter.Counter
	dots   *unread.RedDot
	locks  *lock.Locker
	links  *shorturl.Service

	parts map[string]Part
	// partTimeout is how long the page of a room waits for its parts.
	partTimeout time.Duration
	news        map[string]News
	opening     []func(context.Context, Room) error
	closing     []func(context.Context, Room) error
	building    builder
}

// New returns the rooms of the service; name returns what a user is called.
func New(ctx context.Context, env *infra.Env, messages Messages, name func(ctx context.Context, uid int64) (string, error)) (*Rooms, error) {
	if err := errors.Join(Migrate(ctx, env), shorturl.Migrate(ctx, env.DB, env.Dialect)); err != nil {
		return nil, err
	}
	r := &Rooms{env: env, messages: messages, name: name, parts: map[string]Part{}, partTimeout: 500 * time.Millisecond}
	r.news = map[string]News{"rooms": r.roomNews, "dots": r.dotNews}
	var errs [7]error
	r.ids, errs[0] = env.IDs("room")
	r.rooms, errs[1] = cache.New(env.Redis, "room", cache.Source[int64, Room]{Load: r.load},
		cache.Options{Prefix: "liveshop", StaleFor: time.Minute, Logger: env.Log})
	r.counts, errs[2] = counter.New(env.Redis, counter.Schema{Name: "room", Fields: []counter.Field{{Name: "likes", Spread: 4}, {Name: "views"}}},
		counter.Options{Prefix: "liveshop", Logger: env.Log})
	r.dots, errs[3] = unread.NewRedDot(env.Redis, unread.Options{Prefix: "liveshop"})
	r.locks, errs[4] = lock.New(env.Redis, lock.Options{Prefix: "liveshop", TTL: 3 * time.Second, Logger: env.Log})
	var store shorturl.Store
	var ids *idgen.Segment
	store, errs[5] = shorturl.SQLStore(env.DB, env.Dialect)
	ids, errs[6] = env.IDs("link")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	var err error
	r.links, err = shorturl.New(shorturl.Options{IDs: ids, Store: store, Key: []byte(env.Config.Secret), Logger: env.Log})
	if err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	env.CountCache("room", r.rooms.Stats)
	return r, nil
}

// Routes registers the calls of this package.
func (r *Rooms) Routes(m *api.Mux) {
	m.Public("GET /rooms", r.page)
	m.User("POST /rooms", r.open)
	m.User("GET /rooms/mine", r.mine)
	m.Public("GET /rooms/{id}", r.enter)
	m.User("POST /rooms/{id}/close", r.close)
	m.User("POST /rooms/{id}/like", r.like)
	m.Public("POST /rooms/{id}/share", r.share)
	m.Raw("GET /s/{code}", r.follow())
	m.User("GET /unread", r.unread)
	m.User("POST /unread/seen", r.seen)
	m.Admin("POST /admin/grants", r.grant)
}

// OnOpen registers what has to be done before a room is open to anybody. It is called
// while the server is put together. f may be called again for the same room.
func (r *Rooms) OnOpen(f func(context.Context, Room) error) { r.opening = append(r.opening, f) }

// OnClose registers what is done when a room was closed, or could not be opened;
// likewise.
func (r *Rooms) OnClose(f func(context.Context, Room) error) { r.closing = append(r.closing, f) }

// Part registers a field of the answer to entering a room; likewise.
func (r *Rooms) Part(name string, p Part) { r.parts[name] = p }

// News registers a field of the answer to GET /unread; likewise.
func (r *Rooms) News(name string, n News) { r.news[name] = n }

// Run keeps star rooms warm and, in one process of the fleet, builds the list.
func (r *Rooms) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return r.rooms.RunWarm(ctx, 30*time.Second, r.stars) })
	g.Go(func() error { r.runList(ctx); return nil })
	return g.Wait()
}

// Close stores what was counted, and ends what New started.
func (r *Rooms) Close(ctx context.Context) error {
	var errs []error
	if r.counts != nil { // nil where New failed
		errs = append(errs, r.counts.Close(ctx))
	}
	if r.rooms != nil {
		errs = append(errs, r.rooms.Close(ctx))
	}
	if r.links != nil {
		errs = append(errs, r.links.Close(ctx))
	}
	if r.locks != nil {
		errs = append(errs, r.locks.Close(ctx))
	}
	return errors.Join(errs...)
}

// Get returns a room, from the cache.
func (r *Rooms) Get(ctx context.Context, id int64) (Room, error) {
	room, err := r.rooms.Get(ctx, id)
	if errors.Is(err, cache.ErrNotFound) {
		return Room{}, api.NotFound("room")
	}
	return room, err
}

// GetOpen is Get, for what can be done in open rooms only.
func (r *Rooms) GetOpen(ctx context.Context, id int64) (Room, error) {
	room, err := r.Get(ctx, id)
	if err == nil && !room.Open {
		return Room{}, api.Conflict("room_closed", "the room is closed")
	}
	return room, err
}

const columns = "id, host, title, kind, star, opened_ms, closed_ms"

func scan(row interface{ Scan(...any) error }) (v Room, err error) {
	var star int
	err = row.Scan(&v.ID, &v.Host, &v.Title, &v.Kind, &star, &v.Opened, &v.Closed)
	v.Star, v.Open = star != 0, v.Closed == 0
	return v, err
}

func (r *Rooms) load(ctx context.Context, id int64) (Room, error) {
	v, err := scan(r.env.DB.QueryRowContext(ctx, "SELECT "+columns+" FROM rooms WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("room %d: %w", id, cache.ErrNotFound)
	}
	return v, err
}

// live returns all open rooms.
func (r *Rooms) live(ctx context.Context) (rooms []Room, err error) {
	rows, err := r.env.DB.QueryContext(ctx, "SELECT "+columns+" FROM rooms WHERE live IS NOT NULL")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, v)
	}
	return rooms, rows.Err()
}

func (r *Rooms) stars(ctx context.Context) (ids []int64, err error) {
	rooms, err := r.live(ctx)
	for _, v := range rooms {
		if v.Star {
			ids = append(ids, v.ID)
		}
	}
	return ids, err
}

// Package pk is the contest of a host and one challenger, whom gifts decide: the bar
// begins at 50:50, 200 yuan move it by 20, and who gets it to 100 first has won.
//
// All of it happens in two scripts on one hash, so that two gifts at the same moment
// cannot both be the winning one, and a gift that comes again, because a reply was
// lost, moves nothing.
//
// Redis keys; TTL 7 days:
//
//	liveshop:pk:{room-<id>}:bar    hash
//	liveshop:pk:{room-<id>}:gifts  set   keys of gifts that came, whether they moved a bar or not
//	liveshop:pk:{room-<id>}:wins   list  "<round> <winner>", one a round
package pk

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
)

var (
	//go:embed challenge.lua
	challengeLua string
	//go:embed push.lua
	pushLua string

	challenge = redis.NewScript(challengeLua)
	push      = redis.NewScript(pushLua)
)

const (
	// whole is the bar in fen: 200 yuan are a fifth of it.
	whole = 100_000
	lasts = 10 * time.Minute
	rests = 10 * time.Second // the winner is seen, before the next challenge
	kept  = 7 * 24 * time.Hour
)

// Rooms are where a PK happens.
type Rooms interface {
	GetOpen(ctx context.Context, id int64) (room.Room, error)
}

// An Announcer brings frames to pages.
type Announcer interface {
	Publish(ctx context.Context, room int64, t string, d any, c im.Class) error
}

// A Bar is how a PK stands. The names are there for pages, on which the challenger may
// never have been heard of; they are missing where they could not be had.
type Bar struct {
	Round   int64  `json:"round"`
	A       int64  `json:"a"` // the host
	AName   string `json:"a_name,omitempty"`
	B       int64  `json:"b"` // the challenger
	BName   string `json:"b_name,omitempty"`
	Left    int64  `json:"left"`  // of the host; both together 100
	Right   int64  `json:"right"` // of the challenger
	State   string `json:"state"` // on, won, drawn
	Winner  int64  `json:"winner"`
	Ends    int64  `json:"ends"` // ms; of one that is won, when there may be another
	Version int64  `json:"version"`

	room int64
}

// FrameID lets a bar that is announced twice be shown once.
func (b Bar) FrameID() string { return fmt.Sprintf("pk-%d-%d", b.room, b.Version) }

// PK is the contests of all rooms.
type PK struct {
	rdb       redis.UniversalClient
	rooms     Rooms
	announcer Announcer
	name      func(ctx context.Context, uid int64) (string, error)
}

// New returns the PKs; name returns what a user is called.
func New(env *infra.Env, rooms Rooms, announcer Announcer, name func(ctx context.Context, uid int64) (string, error)) *PK {
	return &PK{env.Redis, rooms, announcer, name}
}

// Routes registers the calls of this package.
func (p *PK) Routes(m *api.Mux) { m.User("POST /rooms/{id}/pk/join", p.join) }

// keys of a room, in one slot: the bar, the gifts, the wins.
func keys(room int64) []string {
	tag := fmt.Sprintf("liveshop:pk:{room-%d}:", room)
	return []string{tag + "bar", tag + "gifts", tag + "wins"}
}

// join answers POST /rooms/{id}/pk/join: the first is the challenger.
func (p *PK) join(r *api.Request) (any, error) {
	id, err := r.ID("id")
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	v, err := p.rooms.GetOpen(ctx, id)
	if err != nil {
		return nil, err
	}
	switch {
	case v.Kind != room.PK:
		return nil, api.Conflict("no_pk", "this room has no PK")
	case v.Host == r.UID:
		return nil, api.Conflict("own_room", "a host does not challenge oneself")
	}
	ok, bar, err := parse(id, challenge.Run(ctx, p.rdb, keys(id)[:1], v.Host, r.UID, lasts.Milliseconds(), whole, kept.Milliseconds()))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, api.Conflict("taken", "somebody else was first")
	}
	p.introduce(ctx, bar)
	return bar, p.announcer.Publish(ctx, id, "pk", bar, im.Reliable)
}

// Gift counts a gift of so many fen to a user, once for a key, and shows the bar if it
// is in use. After an error call it again: what was counted is not counted twice.
func (p *PK) Gift(ctx context.Context, room, to, fen int64, key string) error {
	_, bar, err := parse(room, push.Run(ctx, p.rdb, keys(room), to, fen, key, whole, rests.Milliseconds(), kept.Milliseconds()))
	if err != nil || bar == nil || to != bar.A && to != bar.B {
		return err
	}
	p.introduce(ctx, bar)
	return p.announcer.Publish(ctx, room, "pk", *bar, im.Reliable)
}

// introduce says what the two are called. A bar without names is better than none.
func (p *PK) introduce(ctx context.Context, b *Bar) {
	b.AName, _ = p.name(ctx, b.A)
	b.BName, _ = p.name(ctx, b.B)
}

// Part is the PK in the answer to entering a room; nil if there never was one.
func (p *PK) Part(ctx context.Context, v room.Room, _ int64) (any, error) {
	bar, err := p.Get(ctx, v.ID)
	if bar == nil {
		return nil, err
	}
	p.introduce(ctx, bar)
	return bar, err
}

// Get returns the PK of a room, without names; nil if there never was one.
func (p *PK) Get(ctx context.Context, room int64) (*Bar, error) {
	fields, err := p.rdb.HMGet(ctx, keys(room)[0], "round", "a", "b", "left", "right", "state", "winner", "ends", "version").Result()
	if err != nil {
		return nil, fmt.Errorf("pk of room %d: %w", room, err)
	}
	return newBar(room, fields)
}

func parse(room int64, cmd *redis.Cmd) (ok bool, bar *Bar, err error) {
	v, err := cmd.Slice()
	if err == nil && len(v) > 1 {
		bar, err = newBar(room, v[1:])
	}
	if err != nil {
		return false, nil, fmt.Errorf("pk of room %d: %w", room, err)
	}
	return v[0] == int64(1), bar, nil
}

func newBar(room int64, fields []any) (*Bar, error) {
	if len(fields) != 9 || fields[0] == nil {
		return nil, nil
	}
	var n [9]int64
	var errs []error
	for i, f := range fields {
		s, _ := f.(string)
		if i != 5 {
			var err error
			n[i], err = strconv.ParseInt(s, 10, 64)
			errs = append(errs, err)
		}
	}
	state, _ := fields[5].(string)
	b := &Bar{Round: n[0], A: n[1], B: n[2], Left: n[3], Right: n[4], State: state, Winner: n[6], Ends: n[7], Version: n[8], room: room}
	if state == "on" && time.Now().UnixMilli() >= b.Ends {
		b.State = "drawn" // nobody has to come and say so
	}
	// Shown are whole points; the two add up to 100 also where fen were given.
	b.Left = b.Left * 100 / whole
	b.Right = 100 - b.Left
	return b, errors.Join(errs...)
}

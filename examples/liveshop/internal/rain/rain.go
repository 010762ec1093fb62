// Package rain is red-packet rain: a host pays for packets, starts the rain once, and
// for some seconds every user may grab one packet.
//
// The host's money goes to the platform first, and from there into packets and what is
// left over; all bookings go by names of their own and can be made again. A grab is one
// script in Redis; the packet is booked right after it. A server that dies between the
// two leaves the grab in Redis, and the settlement, when the rain is over, books what is
// not booked, and gives the host the rest. Packets granted + rest = prepared, whoever
// dies. If Redis itself loses its data, grabs that were not booked yet are lost with it:
// they go back to the host.
//
// Redis keys; TTL 2 days:
//
//	liveshop:rain:{<id>}:window   hash  starts and ends, ms, and the room
//	liveshop:rain:{<id>}:amounts  list  fen of the packets that are left
//	liveshop:rain:{<id>}:grabbed  hash  fen by uid
//	liveshop:rain:room:<id>       string  the rain that is on in a room; TTL until it ends
package rain

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
	"github.com/spillway-go/spillway/idgen"
	"github.com/spillway-go/spillway/lock"
)

var (
	//go:embed fill.lua
	fillLua string
	//go:embed grab.lua
	grabLua string

	fill = redis.NewScript(fillLua)
	grab = redis.NewScript(grabLua)
)

const (
	mostPackets = 10_000
	kept        = 48 * time.Hour
	unstarted   = time.Hour // after which a rain that was not started is given up
)

// Options are what rain needs of other parts.
type Options struct {
	Wallet interface {
		Pay(ctx context.Context, from, to, fen int64, kind, ref string) (balance int64, err error)
	}
	Rooms interface {
		GetOpen(ctx context.Context, id int64) (room.Room, error)
		Granted(ctx context.Context, uid int64, what string) (bool, error)
	}
	Announcer interface {
		Publish(ctx context.Context, room int64, t string, d any, c im.Class) error
	}
	Name func(ctx context.Context, uid int64) (string, error)
}

// Rains are the red-packet rains of all rooms.
type Rains struct {
	env   *infra.Env
	opts  Options
	ids   *idgen.Segment
	locks *lock.Locker

	countdown time.Duration // from start to the first packet
	falls     time.Duration // the window
}

// New returns the rains.
func New(ctx context.Context, env *infra.Env, opts Options) (*Rains, error) {
	if err := Migrate(ctx, env); err != nil {
		return nil, err
	}
	ids, err1 := env.IDs("rain")
	locks, err2 := lock.New(env.Redis, lock.Options{Prefix: "liveshop", Logger: env.Log})
	return &Rains{env: env, opts: opts, ids: ids, locks: locks, countdown: 3 * time.Second, falls: 15 * time.Second}, errors.Join(err1, err2)
}

// Routes registers the calls of this package.
func (r *Rains) Routes(m *api.Mux) {
	m.User("GET /rooms/{id}/rain", r.mine)
	m.User("POST /rooms/{id}/rain/prepare", r.prepare)
	m.User("POST /rooms/{id}/rain/start", r.start)
	m.User("POST /rooms/{id}/rain/grab", r.grab)
}

// Close ends what New began. End Run first.
func (r *Rains) Close(ctx context.Context) error { return r.locks.Close(ctx) }

// A Rain is one of them.
type Rain struct {
	ID      int64 `json:"id"`
	Room    int64 `json:"room"`
	Host    int64 `json:"-"`
	Total   int64 `json:"total"` // fen
	Packets int   `json:"count"`
	Starts  int64 `json:"starts"` // ms; 0 before it is started, -1 if it never was
	Ends    int64 `json:"ends"`
	settled bool
}

// FrameID lets a rain that is announced twice be shown once.
func (r Rain) FrameID() string { return fmt.Sprintf("rain-%d", r.ID) }

func keys(id int64) []string {
	tag := fmt.Sprintf("liveshop:rain:{%d}:", id)
	return []string{tag + "window", tag + "amounts", tag + "grabbed"}
}

func onKey(room int64) string { return fmt.Sprintf("liveshop:rain:room:%d", room) }

const columns = "id, room, host, total, packets, starts_ms, ends_ms, settled"

func scan(row interface{ Scan(...any) error }) (v Rain, err error) {
	var settled int
	err = row.Scan(&v.ID, &v.Room, &v.Host, &v.Total, &v.Packets, &v.Starts, &v.Ends, &settled)
	v.settled = settled != 0
	if errors.Is(err, sql.ErrNoRows) {
		return v, api.NotFound("rain")
	}
	return v, err
}

func (r *Rains) get(ctx context.Context, id int64) (Rain, error) {
	return scan(r.env.DB.QueryRowContext(ctx, "SELECT "+columns+" FROM rains WHERE id = ?", id))
}

// list returns the rains of which a condition of SQL is true.
func (r *Rains) list(ctx context.Context, where string, args ...any) (rains []Rain, err error) {
	rows, err := r.env.DB.QueryContext(ctx, "SELECT "+columns+" FROM rains WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		rains = append(rains, v)
	}
	return rains, rows.Err()
}

// now is Redis's clock, by which grabs are judged.
func (r *Rains) now(ctx context.Context) (ms int64, err error) {
	t, err := r.env.Redis.Time(ctx).Result()
	return t.UnixMilli(), err
}

// ofHost returns the room of a call that its host alone may make, who was granted it.
func (r *Rains) ofHost(q *api.Request) (room.Room, error) {
	v, granted, err := r.hosting(q)
	if err == nil && !granted {
		err = &api.Error{Status: http.StatusForbidden, Code: "not_granted", Msg: "red-packet rain has to be granted to a host"}
	}
	return v, err
}

// prepare answers POST /rooms/{id}/rain/prepare {total,count,key}: the host pays, and
// the packets are made. With the same key it is the same rain.
func (r *Rains) prepare(q *api.Request) (any, error) {
	v, err := r.ofHost(q)
	if err != nil {
		return nil, err
	}
	var in struct {
		Total int64  `json:"total"`
		Count int    `json:"count"`
		Key   string `json:"key"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	if in.Count < 1 || in.Count > mostPackets || in.Total < int64(in.Count) || in.Total > 100_000_000 || len(in.Key) > 40 {
		return nil, api.Bad("want 1 to %d packets of at least 1 fen, up to 1,000,000 yuan, and a key of up to 40 characters", mostPackets)
	}
	ctx := q.Context()
	id, err := r.ids.Next(ctx)
	if err != nil {
		return nil, err
	}
	asked := fmt.Sprintf("%d:%s", v.Host, in.Key)
	if in.Key == "" {
		asked = fmt.Sprintf("#%d", id)
	}
	_, err = r.env.DB.ExecContext(ctx,
		r.env.InsertNew("rains", "id", "room", "host", "asked", "total", "packets", "starts_ms", "ends_ms", "settled", "created_ms"),
		id, v.ID, v.Host, asked, in.Total, in.Count, 0, 0, 0, time.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	out, err := scan(r.env.DB.QueryRowContext(ctx, "SELECT "+columns+" FROM rains WHERE asked = ?", asked))
	if err != nil {
		return nil, err
	}
	if out.Total != in.Total || out.Packets != in.Count || out.Room != v.ID {
		return nil, api.Conflict("key_used", "this key was another rain")
	}
	if out.Starts != 0 {
		return out, nil
	}
	balance, err := r.opts.Wallet.Pay(ctx, out.Host, account.Platform, out.Total, "prepare", out.FrameID())
	if errors.Is(err, account.ErrPoor) {
		return nil, &api.Error{Status: 402, Code: "poor", Msg: "the balance is too low"}
	}
	if err != nil {
		return nil, err
	}
	return struct {
		Rain
		Balance int64 `json:"balance"`
	}{out, balance}, r.fill(ctx, out)
}

// fill makes the packets, unless they are made.
func (r *Rains) fill(ctx context.Context, v Rain) error {
	args := make([]any, 0, v.Packets+1)
	args = append(args, kept.Milliseconds())
	for _, fen := range split(v.Total, v.Packets) {
		args = append(args, fen)
	}
	if err := fill.Run(ctx, r.env.Redis, keys(v.ID), args...).Err(); err != nil {
		return fmt.Errorf("packets of rain %d: %w", v.ID, err)
	}
	return nil
}

// start answers POST /rooms/{id}/rain/start {id}: in three seconds packets fall, for
// fifteen. It happens once: asked again it tells when it was.
func (r *Rains) start(q *api.Request) (any, error) {
	v, err := r.ofHost(q)
	if err != nil {
		return nil, err
	}
	rain, err := r.asked(q, v.ID)
	if err != nil {
		return nil, err
	}
	ctx := q.Context()
	if rain.Starts == 0 {
		if rain, err = r.schedule(ctx, rain); err != nil {
			return nil, err
		}
	}
	now, err := r.now(ctx)
	if err != nil {
		return nil, err
	}
	left := time.Duration(rain.Ends-now) * time.Millisecond
	if left <= 0 {
		return rain, nil // over, or given up
	}
	return rain, r.begin(ctx, rain, left)
}

// begin opens the window, and tells the room.
func (r *Rains) begin(ctx context.Context, rain Rain, left time.Duration) error {
	text, err := json.Marshal(rain)
	if err != nil {
		return err
	}
	window := keys(rain.ID)[0]
	_, err = r.env.Redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		// What is there stays: the room may have closed since.
		for field, v := range map[string]int64{"starts": rain.Starts, "ends": rain.Ends, "room": rain.Room} {
			p.HSetNX(ctx, window, field, v)
		}
		p.PExpire(ctx, window, kept)
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.env.Redis.Set(ctx, onKey(rain.Room), text, left).Err(); err != nil {
		return err
	}
	return r.opts.Announcer.Publish(ctx, rain.Room, "rain", rain, im.Reliable)
}

// schedule decides when a rain is, in SQL: what was decided there is settled there, also
// when Redis never heard of it.
func (r *Rains) schedule(ctx context.Context, v Rain) (Rain, error) {
	if ok, err := r.prepared(ctx, v); err != nil {
		return v, err
	} else if !ok {
		return v, api.Conflict("not_prepared", "the rain was not prepared to the end: prepare it again with its key")
	}
	now, err := r.now(ctx)
	if err != nil {
		return v, err
	}
	starts := now + r.countdown.Milliseconds()
	const set = "UPDATE rains SET starts_ms = ?, ends_ms = ? WHERE id = ? AND starts_ms = 0"
	if _, err := r.env.DB.ExecContext(ctx, set, starts, starts+r.falls.Milliseconds(), v.ID); err != nil {
		return v, err
	}
	return r.get(ctx, v.ID)
}

// asked returns the rain that a call names, which is one of the room.
func (r *Rains) asked(q *api.Request, room int64) (Rain, error) {
	var in struct {
		ID int64 `json:"id"`
	}
	if err := q.Decode(&in); err != nil {
		return Rain{}, err
	}
	v, err := r.get(q.Context(), in.ID)
	if err == nil && v.Room != room {
		err = api.NotFound("rain")
	}
	return v, err
}

// Part is the rain in the answer to entering a room; nil if none is on.
func (r *Rains) Part(ctx context.Context, v room.Room, _ int64) (any, error) {
	text, err := r.env.Redis.Get(ctx, onKey(v.ID)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return json.RawMessage(text), err
}

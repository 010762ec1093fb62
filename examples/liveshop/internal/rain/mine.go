package rain

import (
	"context"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/room"
)

// hosting returns the room of a call that its host alone may make, and whether the host
// was granted rain.
func (r *Rains) hosting(q *api.Request) (v room.Room, granted bool, err error) {
	id, err := q.ID("id")
	if err != nil {
		return v, false, err
	}
	if v, err = r.opts.Rooms.GetOpen(q.Context(), id); err != nil {
		return v, false, err
	}
	if v.Host != q.UID {
		return v, false, api.Forbidden("only the host makes it rain")
	}
	granted, err = r.opts.Rooms.Granted(q.Context(), q.UID, room.Rain)
	return v, granted, err
}

// mine answers GET /rooms/{id}/rain, to the host: whether rain was granted, and the rain
// that is paid for and waits to be started, if there is one. A page that was reloaded in
// between finds it again.
func (r *Rains) mine(q *api.Request) (any, error) {
	v, granted, err := r.hosting(q)
	if err != nil {
		return nil, err
	}
	out := struct {
		Granted bool  `json:"granted"`
		Ready   *Rain `json:"ready"`
	}{Granted: granted}
	ctx := q.Context()
	waiting, err := r.list(ctx, "room = ? AND host = ? AND starts_ms = 0 AND settled = 0 ORDER BY id DESC LIMIT 5", v.ID, v.Host)
	if err != nil {
		return nil, err
	}
	for _, rain := range waiting {
		ok, err := r.prepared(ctx, rain)
		if err != nil {
			return nil, err
		}
		if ok {
			out.Ready = &rain
			break
		}
	}
	return out, nil
}

// prepared reports whether a rain that was not started is paid for and has its packets.
func (r *Rains) prepared(ctx context.Context, v Rain) (bool, error) {
	var paid int
	const ask = "SELECT COUNT(*) FROM wallet_log WHERE kind = 'prepare' AND ref = ? AND uid = ?"
	if err := r.env.DB.QueryRowContext(ctx, ask, v.FrameID(), account.Platform).Scan(&paid); err != nil {
		return false, err
	}
	n, err := r.env.Redis.LLen(ctx, keys(v.ID)[1]).Result()
	return paid > 0 && n == int64(v.Packets), err
}

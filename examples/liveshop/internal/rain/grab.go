package rain

import (
	"context"
	"fmt"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
)

// A packet is a frame: somebody was lucky.
type packet struct {
	UID  int64  `json:"uid"`
	Name string `json:"name"`
	Fen  int64  `json:"fen"`

	rain int64
}

func (p packet) FrameID() string { return fmt.Sprintf("packet-%d-%d", p.rain, p.UID) }

// grab answers POST /rooms/{id}/rain/grab {id}. It asks SQL nothing before there is a
// packet: most who grab come too late.
func (r *Rains) grab(q *api.Request) (any, error) {
	inRoom, err := q.ID("id")
	if err != nil {
		return nil, err
	}
	var in struct {
		ID int64 `json:"id"`
	}
	if err := q.Decode(&in); err != nil {
		return nil, err
	}
	ctx := q.Context()
	v, err := grab.Run(ctx, r.env.Redis, keys(in.ID), q.UID, kept.Milliseconds()).Slice()
	if err != nil {
		return nil, fmt.Errorf("grab of rain %d: %w", in.ID, err)
	}
	what, _ := v[0].(string)
	fen, _ := v[1].(int64)
	room, _ := v[2].(int64)
	switch {
	case what == "none", room != inRoom:
		return nil, api.NotFound("rain")
	case what == "early", what == "late", what == "empty":
		return nil, api.Conflict(what, "no packet: "+what)
	}
	out := struct {
		Fen     int64 `json:"fen"`
		Balance int64 `json:"balance,omitempty"`
		Booked  bool  `json:"booked"` // else within seconds of the end of the rain
	}{Fen: fen}
	if err := r.book(ctx, in.ID, q.UID, fen); err != nil {
		r.env.Log.Warn("packet is booked later", "rain", in.ID, "uid", q.UID, "err", err)
		return out, nil
	}
	out.Booked = true
	r.show(ctx, room, packet{UID: q.UID, Fen: fen, rain: in.ID})
	return out, nil
}

// book pays a packet, once.
func (r *Rains) book(ctx context.Context, rain, uid, fen int64) error {
	_, err := r.opts.Wallet.Pay(ctx, account.Platform, uid, fen, "packet", fmt.Sprintf("rain-%d-%d", rain, uid))
	return err
}

// show tells the room, which may miss it.
func (r *Rains) show(ctx context.Context, room int64, p packet) {
	name, err := r.opts.Name(ctx, p.UID)
	if err == nil {
		p.Name = name
		err = r.opts.Announcer.Publish(ctx, room, "packet", p, im.Sampled)
	}
	if err != nil {
		r.env.Log.Warn("packet is not shown", "rain", p.rain, "uid", p.UID, "err", err)
	}
}

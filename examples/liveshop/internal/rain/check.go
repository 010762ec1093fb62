package rain

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Check returns what contradicts "packets granted + left = prepared", of every rain, and
// what it has looked at.
func Check(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	r := &Rains{env: env}
	rains, err := r.list(ctx, "1 = 1")
	if err != nil {
		return nil, "", fmt.Errorf("rain: %w", err)
	}
	packets, fen := 0, int64(0)
	for _, v := range rains {
		texts, granted, err := r.look(ctx, v)
		if err != nil {
			return nil, "", fmt.Errorf("rain %d: %w", v.ID, err)
		}
		for _, s := range texts {
			wrong = append(wrong, fmt.Sprintf("rain %d: %s", v.ID, s))
		}
		packets, fen = packets+len(granted), fen+sum(granted)
	}
	return wrong, fmt.Sprintf("%d rains, %d packets of %d fen", len(rains), packets, fen), nil
}

// look holds the books of a rain against its packets in Redis, if they are still there.
func (r *Rains) look(ctx context.Context, v Rain) (wrong []string, granted map[int64]int64, err error) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	k := keys(v.ID)
	p := r.env.Redis.TxPipeline()
	list, hash := p.LRange(ctx, k[1], 0, -1), p.HGetAll(ctx, k[2])
	if _, err := p.Exec(ctx); err != nil {
		return nil, nil, err
	}
	b, err := r.books(ctx, v.ID) // after the grabs: what is booked was grabbed before
	if err != nil {
		return nil, nil, err
	}
	if b.prepared != 0 && b.prepared != v.Total {
		fail("%d fen were prepared for %d", b.prepared, v.Total)
	}
	if b.left() < 0 {
		fail("%d fen granted and %d given back of %d prepared", b.granted(), b.rest, b.prepared)
	}
	if v.settled && b.left() != 0 {
		fail("settled, and %d fen are left of %d", b.left(), b.prepared)
	}
	if len(list.Val())+len(hash.Val()) == 0 {
		return wrong, b.packets, nil // not filled, or long ago
	}
	inRedis, grabbed := int64(0), map[int64]int64{}
	for _, s := range list.Val() {
		fen, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, nil, err
		}
		if fen < 1 {
			fail("a packet of %d fen", fen)
		}
		inRedis += fen
	}
	for user, s := range hash.Val() {
		uid, err1 := strconv.ParseInt(user, 10, 64)
		fen, err2 := strconv.ParseInt(s, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, nil, err
		}
		inRedis += fen
		grabbed[uid] = fen
	}
	if inRedis != v.Total {
		fail("packets left and grabbed are %d fen of %d", inRedis, v.Total)
	}
	for uid, fen := range grabbed {
		if booked, ok := b.packets[uid]; ok && booked != fen || !ok && v.settled {
			fail("user %d grabbed %d fen and has %d", uid, fen, booked)
		}
	}
	return wrong, b.packets, nil
}

func sum(packets map[int64]int64) (fen int64) {
	for _, n := range packets {
		fen += n
	}
	return fen
}

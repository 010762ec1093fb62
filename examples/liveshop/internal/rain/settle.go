package rain

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/account"
	"github.com/spillway-go/spillway/lock"
)

const (
	settleEvery = 2 * time.Second
	// settleAfter is how long after its end a rain is settled. Redis's clock decides of
	// both, so that no grab can come later; it leaves those of the last moment the time to
	// be booked by their own server.
	settleAfter = time.Second
)

// Run settles rains that are over, in one process of the fleet at a time.
func (r *Rains) Run(ctx context.Context) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		held, lease, err := r.locks.TryLock(ctx, "rain-settle")
		if errors.Is(err, lock.ErrNotAcquired) {
			continue
		}
		if err == nil {
			err = errors.Join(r.settleAll(held), lease.Unlock(ctx))
		}
		if err != nil && ctx.Err() == nil {
			r.env.Log.Warn("rain is not settled yet", "err", err)
		}
	}
}

// settleAll settles all rains that are over, and gives up those that nobody started.
func (r *Rains) settleAll(ctx context.Context) error {
	now, err := r.now(ctx)
	if err != nil {
		return err
	}
	const giveUp = "UPDATE rains SET starts_ms = -1, ends_ms = -1 WHERE starts_ms = 0 AND created_ms < ?"
	if _, err := r.env.DB.ExecContext(ctx, giveUp, now-unstarted.Milliseconds()); err != nil {
		return err
	}
	over, err := r.list(ctx, "settled = 0 AND ends_ms <> 0 AND ends_ms < ?", now-settleAfter.Milliseconds())
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range over {
		if err := r.settle(ctx, v); err != nil {
			errs = append(errs, fmt.Errorf("rain %d: %w", v.ID, err))
		}
	}
	return errors.Join(errs...)
}

// CloseRoom ends the rains of a room: what falls is over, and what was paid for never
// begins. Settled as any other, they give the host back what nobody caught. SQL hears of
// it first: a window that is open in Redis ends with the settlement at the latest.
func (r *Rains) CloseRoom(ctx context.Context, room int64) error {
	waiting, err := r.list(ctx, "room = ? AND starts_ms = 0", room)
	if err != nil {
		return err
	}
	for _, v := range waiting {
		if err := r.giveUp(ctx, v); err != nil {
			return fmt.Errorf("rain %d of a closed room: %w", v.ID, err)
		}
	}
	now, err := r.now(ctx)
	if err != nil {
		return err
	}
	const end = "UPDATE rains SET ends_ms = ? WHERE room = ? AND ends_ms > ?"
	if _, err := r.env.DB.ExecContext(ctx, end, now, room, now); err != nil {
		return err
	}
	over, err := r.list(ctx, "room = ? AND settled = 0 AND starts_ms > 0", room)
	if err != nil {
		return err
	}
	for _, v := range over {
		if err := r.env.Redis.HSet(ctx, keys(v.ID)[0], "ends", v.Ends).Err(); err != nil {
			return fmt.Errorf("rain %d of a closed room: %w", v.ID, err)
		}
	}
	return r.env.Redis.Del(ctx, onKey(room)).Err()
}

// giveUp ends a rain that was paid for and not started. One that is not paid for may be
// on its way to be: its money would come after the settlement.
func (r *Rains) giveUp(ctx context.Context, v Rain) error {
	b, err := r.books(ctx, v.ID)
	if err != nil || b.prepared == 0 {
		return err
	}
	_, err = r.env.DB.ExecContext(ctx, "UPDATE rains SET starts_ms = -1, ends_ms = -1 WHERE id = ? AND starts_ms = 0", v.ID)
	return err
}

// settle books the packets that were grabbed and are not booked, and then gives the
// host what is left of the money. It may be done twice, or by two at once: each
// booking happens once.
func (r *Rains) settle(ctx context.Context, v Rain) error {
	k := keys(v.ID)
	var grabs *redis.MapStringStringCmd
	_, err := r.env.Redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		// It is over for good, also by the clock of a server that takes over.
		p.HSet(ctx, k[0], "ends", 0)
		p.PExpire(ctx, k[0], kept)
		grabs = p.HGetAll(ctx, k[2])
		return nil
	})
	if err != nil {
		return err
	}
	b, err := r.books(ctx, v.ID)
	if err != nil {
		return err
	}
	for user, amount := range grabs.Val() {
		uid, err1 := strconv.ParseInt(user, 10, 64)
		fen, err2 := strconv.ParseInt(amount, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if _, ok := b.packets[uid]; ok {
			continue
		}
		if err := r.book(ctx, v.ID, uid, fen); err != nil {
			return err
		}
		r.show(ctx, v.Room, packet{UID: uid, Fen: fen, rain: v.ID})
	}
	// Read again: what others booked meanwhile is in it.
	if b, err = r.books(ctx, v.ID); err != nil {
		return err
	}
	if left := b.left(); left > 0 {
		ref := v.FrameID() + "-rest"
		if _, err := r.opts.Wallet.Pay(ctx, account.Platform, v.Host, left, "packet", ref); err != nil {
			return err
		}
	}
	_, err = r.env.DB.ExecContext(ctx, "UPDATE rains SET settled = 1 WHERE id = ?", v.ID)
	return err
}

// books are what SQL says of the money of a rain.
type books struct {
	prepared int64
	packets  map[int64]int64 // by uid
	rest     int64
}

func (b books) granted() (sum int64) {
	for _, fen := range b.packets {
		sum += fen
	}
	return sum
}

func (b books) left() int64 { return b.prepared - b.granted() - b.rest }

func (r *Rains) books(ctx context.Context, id int64) (b books, err error) {
	b.packets = map[int64]int64{}
	const ask = `SELECT kind, ref, uid, fen FROM wallet_log
		WHERE (kind = 'prepare' AND ref = ? OR kind = 'packet' AND ref > ? AND ref < ?) AND (kind = 'packet') = (uid <> ?)`
	name := fmt.Sprintf("rain-%d", id)
	rows, err := r.env.DB.QueryContext(ctx, ask, name, name+"-", name+".", account.Platform)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var kind, ref string
		var uid, fen int64
		if err := rows.Scan(&kind, &ref, &uid, &fen); err != nil {
			return b, err
		}
		switch {
		case kind == "prepare":
			b.prepared += fen
		case ref == name+"-rest":
			b.rest += fen
		default:
			b.packets[uid] += fen
		}
	}
	return b, rows.Err()
}

package sale

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// The states of a room's sale.
const (
	stateOpen    = "open"
	stateClosing = "closing" // no more orders; those there are meet their end
	stateEnded   = "ended"   // SQL has everything, and nothing changes any more
	stateGone    = "gone"    // dropped from Redis
)

// keepEnded is how long a sale that ended stays in Redis: long enough for every server
// to have let go of it.
const keepEnded = time.Hour

// activityOf returns the name of a room's sale in Redis; see journalsOf for the ledger.
func activityOf(room int64) string { return "room-" + strconv.FormatInt(room, 10) }

// Open begins the sale of a room with all that its host has to sell; that of a star in
// buckets, where there are several masters. Again, it makes sure that this is so.
func (s *Sale) Open(ctx context.Context, room, host int64, star bool) error {
	buckets, err := s.buckets(ctx, star)
	if err != nil {
		return fmt.Errorf("open sale of room %d: %w", room, err)
	}
	return s.open(ctx, room, host, buckets)
}

func (s *Sale) open(ctx context.Context, room, host int64, buckets int) error {
	err := s.env.Tx(ctx, func(tx *sql.Tx) error {
		if err := lockHost(ctx, tx, host); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, s.env.InsertNew("sales", "room", "host", "per_user", "buckets", "state", "since_ms"),
			room, host, 0, buckets, stateOpen, s.now())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // it is open already, or was
		}
		skus, err := column[string](tx.QueryContext(ctx, "SELECT sku FROM products WHERE host = ? ORDER BY sku", host))
		if err != nil {
			return err
		}
		for _, sku := range skus {
			if err := s.show(ctx, tx, room, sku); err != nil {
				return err
			}
		}
		for _, journal := range journalsOf(room, buckets) {
			if _, err := tx.ExecContext(ctx, "INSERT INTO order_positions (journal, entry_ms, entry_seq) VALUES (?, 0, 0)", journal); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("open sale of room %d: %w", room, err)
	}
	return s.shown(ctx, room)
}

// show puts a product on the shelf of a room, with all units of it that are free.
func (s *Sale) show(ctx context.Context, tx *sql.Tx, room int64, sku string) error {
	p, err := product(ctx, tx, sku)
	if err != nil {
		return err
	}
	units := int64(0)
	if !p.Elsewhere {
		if units, err = unloaded(ctx, tx, sku); err != nil {
			return err
		}
	}
	_, err1 := tx.ExecContext(ctx, s.env.InsertNew("sale_items", "room", "sku", "fen", "loaded", "units", "returned"),
		room, sku, p.Fen, units, units, 0)
	_, err2 := tx.ExecContext(ctx, "UPDATE sales SET per_user = ? WHERE room = ?", p.PerUser, room)
	return errors.Join(err1, err2)
}

// Show puts a product that was registered later on the shelf of its host's open room.
func (s *Sale) Show(ctx context.Context, uid, room int64, sku string) error {
	err := s.env.Tx(ctx, func(tx *sql.Tx) error {
		if err := lockHost(ctx, tx, uid); err != nil {
			return err
		}
		var host int64
		var state string
		err := tx.QueryRowContext(ctx, "SELECT host, state FROM sales WHERE room = ?", room).Scan(&host, &state)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return api.NotFound("sale")
		case err != nil:
			return err
		case host != uid:
			return api.Forbidden("the room is not yours")
		case state != stateOpen:
			return errClosed
		}
		if p, err := product(ctx, tx, sku); err != nil {
			return err
		} else if p.Host != host {
			return api.Forbidden("the product is not yours")
		}
		return s.show(ctx, tx, room, sku)
	})
	if err != nil {
		return err
	}
	return s.shown(ctx, room)
}

// shown brings what was put on a shelf to Redis and to the pages.
func (s *Sale) shown(ctx context.Context, room int64) error {
	if err := s.shelves.Delete(ctx, room); err != nil {
		return err
	}
	return errors.Join(s.load(ctx, room), s.levels.Delete(ctx, room))
}

// load gives Redis the stock that it does not have yet.
func (s *Sale) load(ctx context.Context, room int64) error {
	l, err := s.of(ctx, room)
	if err != nil {
		return err
	}
	v, err := s.shelf(ctx, room)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(v.Items, func(it item) bool { return it.Elsewhere }) {
		if err := s.watch(ctx, room); err != nil {
			return err
		}
	}
	units, err := s.missing(ctx, l, v)
	if err != nil {
		return err
	}
	if len(units) > 0 {
		if err := l.stock.Load(ctx, units); err != nil {
			return err
		}
	}
	return s.restock(ctx, room)
}

// CloseRoom ends a room's sale: no more orders. Those that are not paid for yet may be
// until their time is over.
func (s *Sale) CloseRoom(ctx context.Context, room int64) error {
	_, err := s.env.DB.ExecContext(ctx, "UPDATE sales SET state = ?, since_ms = ? WHERE room = ? AND state = ?",
		stateClosing, s.now(), room, stateOpen)
	if err != nil {
		return err
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return err
	}
	return errors.Join(s.shelves.DeleteTwice(ctx, time.Second, room), l.stock.Halt(ctx, "the room is closed"))
}

// abandonedAfter is how old a sale is before it has to have an open room: that becomes
// one when its sale is there.
const abandonedAfter = time.Minute

// closeAbandoned closes the sales without an open room, which keep what their host has to
// sell: a server was killed, or SQL did not answer, between opening or closing the one and
// the other.
func (s *Sale) closeAbandoned(ctx context.Context) error {
	rooms, err := column[int64](s.env.DB.QueryContext(ctx, `SELECT s.room FROM sales s WHERE s.state = ? AND s.since_ms < ?
		AND NOT EXISTS (SELECT 1 FROM rooms r WHERE r.id = s.room AND r.live IS NOT NULL)`, stateOpen, s.now()-abandonedAfter.Milliseconds()))
	errs := []error{err}
	for _, room := range rooms {
		s.env.Log.Warn("sale without an open room is closed", "room", room)
		errs = append(errs, s.CloseRoom(ctx, room))
	}
	return errors.Join(errs...)
}

// closeAgain closes what SQL has as closing and the cache as open: whoever closed it was
// killed in between, and it would sell on until its entry ends.
func (s *Sale) closeAgain(ctx context.Context) error {
	rooms, err := column[int64](s.env.DB.QueryContext(ctx, "SELECT room FROM sales WHERE state = ?", stateClosing))
	errs := []error{err}
	for _, room := range rooms {
		v, err := s.shelf(ctx, room)
		if err == nil && v.State == stateOpen {
			err = s.CloseRoom(ctx, room)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// wind ends a sale that is closing, if nothing is on its way in it any more.
func (s *Sale) wind(ctx context.Context, room int64) error {
	v, err := s.shelf(ctx, room)
	if err != nil || v.State != stateClosing {
		return err
	}
	l, err := s.of(ctx, room)
	if err != nil {
		return err
	}
	// Again and again: the switch is in Redis, and a Rebuild does not know of it.
	if err := l.stock.Halt(ctx, "the room is closed"); err != nil {
		return err
	}
	if err := s.restock(ctx, room); err != nil {
		return err
	}
	if over, err := s.drained(ctx, l); err != nil || !over {
		return err
	}
	levels, err := s.ledgerLevels(ctx, l)
	if err != nil {
		return err
	}
	for sku := range v.loaded() {
		if levels[sku].journals < len(l.journals()) {
			return s.load(ctx, room) // it never came to Redis, or Redis lost it before SQL had it
		}
	}
	if err := s.projectAll(ctx, room); err != nil {
		return err
	}
	var next []int64
	err = s.env.Tx(ctx, func(tx *sql.Tx) (err error) {
		next, err = s.end(ctx, tx, l, levels)
		return err
	})
	for _, room := range next {
		err = errors.Join(err, s.shown(ctx, room))
	}
	return err
}

// end writes down the last figures of a sale. What was not sold goes to the open room
// that its host has by now, or waits for the next one. It returns the rooms that got some.
func (s *Sale) end(ctx context.Context, tx *sql.Tx, l *live, levels map[string]ledgerLevel) (rooms []int64, err error) {
	if err := lockHost(ctx, tx, l.host); err != nil {
		return nil, err
	}
	res, err := tx.ExecContext(ctx, `UPDATE sales SET state = ?, since_ms = ? WHERE room = ? AND state = ?
		AND NOT EXISTS (SELECT 1 FROM restocks r WHERE r.room = sales.room AND r.done = 0)`, stateEnded, s.now(), l.room, stateClosing)
	if err != nil {
		return nil, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return nil, err // another server has done it, or units are still to come
	}
	for sku, level := range levels {
		if _, err := tx.ExecContext(ctx, "UPDATE sale_items SET returned = ? WHERE room = ? AND sku = ?", level.Left, l.room, sku); err != nil {
			return nil, err
		}
		open, err := onSale(ctx, tx, sku)
		if err != nil {
			return nil, err
		}
		if len(open) > 0 && level.Left > 0 {
			if err := grow(ctx, tx, open[0], sku, -l.room, level.Left); err != nil {
				return nil, err
			}
			rooms = append(rooms, open[0])
		}
	}
	slices.Sort(rooms)
	return slices.Compact(rooms), nil
}

// sweepEnded drops from Redis what ended long ago.
func (s *Sale) sweepEnded(ctx context.Context) error {
	rooms, err := column[int64](s.env.DB.QueryContext(ctx, "SELECT room FROM sales WHERE state = ? AND since_ms < ?",
		stateEnded, s.now()-keepEnded.Milliseconds()))
	if err != nil {
		return err
	}
	for _, room := range rooms {
		l, err := s.of(ctx, room)
		if err != nil {
			return err
		}
		if err := l.stock.Drop(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.lives, room)
		s.mu.Unlock()
		if _, err := s.env.DB.ExecContext(ctx, "UPDATE sales SET state = ? WHERE room = ?", stateGone, room); err != nil {
			return err
		}
	}
	return nil
}

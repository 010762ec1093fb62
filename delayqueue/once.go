package delayqueue

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

//go:embed once.lua
var onceLua string

var onceScript = script.New(script.Token, onceLua)

// Once tells whether this is the first run of the job that asks about effect, by a
// marker in Redis that lasts for Options.DeadRetention: do the effect if it is. The
// effect then happens at most once: a worker that dies between the marker and the
// effect leaves it undone. The marker is of the Add that stored the job, or replaced or
// extended it last: a later job of the same id has markers of its own. An effect in a
// database is better guarded by OnceSQL. One round trip.
func (d *Delivery) Once(ctx context.Context, effect string) (first bool, err error) {
	if effect == "" || len(effect) > maxID {
		return false, d.q.wrap(d.ID, fmt.Errorf("%w: effect of %d bytes, want 1 to %d", ErrInvalid, len(effect), maxID))
	}
	// The length keeps ids and effects apart, whatever colons they have.
	marker := d.shard.space.Key("once:" + strconv.Itoa(len(d.ID)) + ":" + key.Escape(d.ID) + ":" + d.add + ":" + key.Escape(effect))
	reply, err := d.q.run(ctx, onceScript, []string{marker}, 0, newToken(), d.q.opts.DeadRetention.Milliseconds())
	if err != nil {
		return false, d.q.wrap(d.ID, err)
	}
	return reply == int64(1), nil
}

// OnceSQL tells whether this is the first run of the job whose transaction commits:
// do the effect in the same transaction if it is, and commit. insert adds the job's id,
// its only argument, to a table in which the id is unique, and adds nothing if it is
// there:
//
//	INSERT INTO jobs_done (id) VALUES ($1) ON CONFLICT DO NOTHING   -- PostgreSQL, SQLite
//	INSERT IGNORE INTO jobs_done (id) VALUES (?)                    -- MySQL
//
// The effect then happens exactly once, whatever happens to workers and Redis. A job
// whose id an earlier one had is taken for that one, for as long as the table has it:
// leave Job.ID empty, or use an id once.
func (d *Delivery) OnceSQL(ctx context.Context, tx *sql.Tx, insert string) (first bool, err error) {
	if tx == nil {
		return false, d.q.wrap(d.ID, fmt.Errorf("%w: tx is nil", ErrInvalid))
	}
	res, err := tx.ExecContext(ctx, insert, d.ID)
	if err != nil {
		return false, d.q.wrap(d.ID, fmt.Errorf("insert the marker: %w", err))
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, d.q.wrap(d.ID, fmt.Errorf("count the markers inserted: %w", err))
	}
	return n == 1, nil
}

package stocksql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/stock"
)

// Levels returns the checkpoint and the levels of the journal in one snapshot: as the
// level table keeps them, and as the rows add up. O(rows).
func (s *Store) Levels(ctx context.Context, journal string) (at string, kept, counted map[string]stock.Level, err error) {
	fail := func(err error) (string, map[string]stock.Level, map[string]stock.Level, error) {
		return "", nil, nil, fmt.Errorf("stocksql: levels of %q: %w", journal, err)
	}
	if err := checkJournal(journal); err != nil {
		return fail(err)
	}
	tx, err := s.db.BeginTx(ctx, s.isolation(sql.LevelRepeatableRead))
	if err != nil {
		return fail(err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	if at, err = s.position(ctx, tx, journal); err != nil {
		return fail(err)
	}
	kept, err = s.levels(ctx, tx, journal,
		`SELECT sku, left_units, held_units, sold_units FROM spillway_stock_level WHERE journal = ?`)
	if err != nil {
		return fail(err)
	}
	counted, err = s.levels(ctx, tx, journal,
		`SELECT sku, SUM(left_diff), SUM(held_diff), SUM(sold_diff) FROM spillway_stock_row WHERE journal = ? GROUP BY sku`)
	if err != nil {
		return fail(err)
	}
	return at, kept, counted, nil
}

func (s *Store) levels(ctx context.Context, tx *sql.Tx, journal, query string) (levels map[string]stock.Level, err error) {
	rows, err := tx.QueryContext(ctx, s.dialect.Rebind(query), []byte(journal))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	levels = map[string]stock.Level{}
	for rows.Next() {
		var sku []byte
		var l stock.Level
		if err := rows.Scan(&sku, &l.Left, &l.Reserved, &l.Sold); err != nil {
			return nil, err
		}
		levels[string(sku)] = l
	}
	return levels, rows.Err()
}

var kinds = func() map[string]stock.OpKind {
	m := map[string]stock.OpKind{}
	for _, k := range []stock.OpKind{
		stock.OpLoad, stock.OpRestock, stock.OpDeduct, stock.OpReserve, stock.OpConfirm, stock.OpCancel, stock.OpExpire,
		stock.OpGive, stock.OpTake,
	} {
		m[k.String()] = k
	}
	return m
}()

// Entries returns the entries that were applied, oldest first, without Prev and
// without crossings, in one query. An error ends the sequence.
func (s *Store) Entries(ctx context.Context, journal string) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		fail := func(err error) { yield(stock.Entry{}, fmt.Errorf("stocksql: entries of %q: %w", journal, err)) }
		rows, err := s.db.QueryContext(ctx, s.dialect.Rebind(
			`SELECT entry_ms, entry_seq, op, kind, order_id, user_id, sku, qty, held_diff, partial, reason, at_ms, hold_ms
			FROM spillway_stock_row WHERE journal = ? ORDER BY entry_ms, entry_seq, op, item`), []byte(journal))
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = rows.Close() }() // rows.Err has told
		var e stock.Entry
		op := -1
		for rows.Next() {
			var (
				ms, seq, held, at, hold int64
				n, partial              int
				kind                    string
				id, user, sku, reason   []byte
				item                    stock.Item
			)
			if err := rows.Scan(&ms, &seq, &n, &kind, &id, &user, &sku, &item.Qty, &held, &partial, &reason, &at, &hold); err != nil {
				fail(err)
				return
			}
			item.SKU = string(sku)
			entry := strconv.FormatInt(ms, 10) + "-" + strconv.FormatInt(seq, 10)
			if entry != e.ID {
				if e.ID != "" && !yield(e, nil) {
					return
				}
				e = stock.Entry{ID: entry, At: time.UnixMilli(at), Hold: time.Duration(hold) * time.Millisecond}
				op = -1
			}
			if n != op {
				op = n
				o := stock.Op{Kind: kinds[kind], ID: string(id), User: string(user), Reason: string(reason), Partial: partial == 1}
				if o.Kind == 0 {
					fail(fmt.Errorf("kind %q, written by another version?", kind))
					return
				}
				if o.Kind == stock.OpLoad {
					o.ID = ""
				}
				// Only the end of a reservation takes units out of what is held.
				o.Held = held != 0 && (o.Kind == stock.OpConfirm || o.Kind == stock.OpCancel)
				e.Ops = append(e.Ops, o)
			}
			last := &e.Ops[len(e.Ops)-1]
			last.Items = append(last.Items, item)
		}
		if err := rows.Err(); err != nil {
			fail(err)
			return
		}
		if e.ID != "" {
			yield(e, nil)
		}
	}
}

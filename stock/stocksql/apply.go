package stocksql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-go/spillway/stock"
)

var rowColumns = []string{
	"journal", "entry_ms", "entry_seq", "op", "item", "kind", "order_id", "user_id", "sku", "qty",
	"left_diff", "held_diff", "sold_diff", "partial", "reason", "at_ms", "hold_ms",
}

// rowsPerInsert keeps a statement below the 32,766 arguments of SQLite.
const rowsPerInsert = 250

// A row is what happened to the units of one SKU in one op.
type row struct {
	sku              string
	left, held, sold int64
	args             []any
}

// errKnown says that some of the rows were there before.
var errKnown = errors.New("stocksql: row there already")

// Apply writes batch in one transaction: the checkpoint by compare-and-swap, the rows,
// and one UPDATE per SKU. An UPDATE that would leave less than nothing of a SKU undoes
// all and is stock.ErrForked: the last guard against overselling.
//
// A row whose order, kind and SKU are there already is left out, and its units with it:
// an id is one order for ever, also after Redis forgot it.
func (s *Store) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if err := checkJournal(journal); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	rows, err := flatten(journal, batch)
	if err != nil {
		return fmt.Errorf("stocksql: apply to %q: %w", journal, err)
	}
	to := batch[len(batch)-1].ID
	// All rows are new, as good as always; which ones are not, only one at a time tells.
	err = s.apply(ctx, journal, from, to, rows, s.insertAll)
	if errors.Is(err, errKnown) {
		err = s.apply(ctx, journal, from, to, rows, s.insertEach)
	}
	if err != nil {
		return fmt.Errorf("stocksql: apply %s to %s of %q: %w", batch[0].ID, to, journal, err)
	}
	return nil
}

// flatten returns the rows of batch.
func flatten(journal string, batch []stock.Entry) ([]row, error) {
	var rows []row
	for _, e := range batch {
		ms, seq, err := splitID(e.ID)
		if err != nil {
			return nil, err
		}
		for i, o := range e.Ops {
			id := o.ID
			if o.Kind == stock.OpLoad {
				id = e.ID // a load has none of its own, and one SKU is loaded once
			}
			left, held, sold := o.Move()
			partial := 0
			if o.Partial {
				partial = 1
			}
			for k, it := range o.Items {
				r := row{sku: it.SKU, left: left * it.Qty, held: held * it.Qty, sold: sold * it.Qty}
				r.args = []any{
					[]byte(journal), ms, seq, i, k, o.Kind.String(), []byte(id), []byte(o.User), []byte(it.SKU), it.Qty,
					r.left, r.held, r.sold, partial, []byte(o.Reason), e.At.UnixMilli(), e.Hold.Milliseconds(),
				}
				rows = append(rows, r)
			}
		}
	}
	return rows, nil
}

func splitID(id string) (ms, seq int64, err error) {
	a, b, _ := strings.Cut(id, "-")
	ms, err1 := strconv.ParseInt(a, 10, 64)
	seq, err2 := strconv.ParseInt(b, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("%w: entry %q: %w", stock.ErrInvalid, id, err)
	}
	return ms, seq, nil
}

// An insert writes rows and returns those that were not there.
type insert func(ctx context.Context, tx *sql.Tx, rows []row) ([]row, error)

func (s *Store) apply(ctx context.Context, journal, from, to string, rows []row, put insert) (err error) {
	tx, err := s.db.BeginTx(ctx, s.isolation(sql.LevelReadCommitted))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback() // the error that led here says more
		}
	}()
	if err := s.move(ctx, tx, journal, from, to); err != nil {
		return err
	}
	rows, err = put(ctx, tx, rows)
	if err != nil {
		return err
	}
	if err := s.add(ctx, tx, journal, rows); err != nil {
		return err
	}
	return tx.Commit()
}

// isolation returns the options of a transaction. SQLite has one level, which is the
// strictest, and its driver takes no other word for it.
func (s *Store) isolation(level sql.IsolationLevel) *sql.TxOptions {
	if s.dialect == SQLite {
		return nil
	}
	return &sql.TxOptions{Isolation: level}
}

// move moves the checkpoint, which also keeps every other process from applying until
// the transaction ends.
func (s *Store) move(ctx context.Context, tx *sql.Tx, journal, from, to string) error {
	if from == "" || from == "0-0" {
		from = "0-0"
		if _, err := tx.ExecContext(ctx, s.dialect.InsertNew("spillway_stock_journal", "journal", "position"), []byte(journal), from); err != nil {
			return err
		}
	}
	n, err := s.exec(ctx, tx, `UPDATE spillway_stock_journal SET position = ? WHERE journal = ? AND position = ?`, to, []byte(journal), from)
	if err == nil && n == 0 {
		err = stock.ErrMoved
	}
	return err
}

func (s *Store) insertAll(ctx context.Context, tx *sql.Tx, rows []row) ([]row, error) {
	for part := range slices.Chunk(rows, rowsPerInsert) {
		args := make([]any, 0, len(part)*len(rowColumns))
		for _, r := range part {
			args = append(args, r.args...)
		}
		res, err := tx.ExecContext(ctx, s.dialect.InsertNewRows(len(part), "spillway_stock_row", rowColumns...), args...)
		if err != nil {
			return nil, err
		}
		if n, err := res.RowsAffected(); err != nil || n < int64(len(part)) {
			return nil, errors.Join(err, errKnown)
		}
	}
	return rows, nil
}

func (s *Store) insertEach(ctx context.Context, tx *sql.Tx, rows []row) ([]row, error) {
	var inserted []row
	for _, r := range rows {
		res, err := tx.ExecContext(ctx, s.dialect.InsertNew("spillway_stock_row", rowColumns...), r.args...)
		if err != nil {
			return nil, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return nil, err
		}
		if n > 0 {
			inserted = append(inserted, r)
		}
	}
	return inserted, nil
}

// add brings the levels up to date, one statement per SKU.
func (s *Store) add(ctx context.Context, tx *sql.Tx, journal string, rows []row) error {
	sums := map[string]*row{}
	for _, r := range rows {
		sum := sums[r.sku]
		if sum == nil {
			sum = &row{}
			sums[r.sku] = sum
		}
		sum.left, sum.held, sum.sold = sum.left+r.left, sum.held+r.held, sum.sold+r.sold
	}
	for _, r := range rows {
		if r.args[5] == stock.OpLoad.String() {
			if _, err := tx.ExecContext(ctx, s.dialect.InsertNew("spillway_stock_level", "journal", "sku", "left_units", "held_units", "sold_units"),
				[]byte(journal), []byte(r.sku), 0, 0, 0); err != nil {
				return err
			}
		}
	}
	for _, sku := range slices.Sorted(maps.Keys(sums)) {
		d := sums[sku]
		if d.left == 0 && d.held == 0 && d.sold == 0 {
			continue // MySQL counts rows that change
		}
		n, err := s.exec(ctx, tx, `UPDATE spillway_stock_level
			SET left_units = left_units + ?, held_units = held_units + ?, sold_units = sold_units + ?
			WHERE journal = ? AND sku = ? AND left_units + ? >= 0 AND held_units + ? >= 0 AND sold_units + ? >= 0`,
			d.left, d.held, d.sold, []byte(journal), []byte(sku), d.left, d.held, d.sold)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: there is not enough of sku %q for %+d left, %+d reserved, %+d sold", stock.ErrForked, sku, d.left, d.held, d.sold)
		}
	}
	return nil
}

func (s *Store) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	res, err := tx.ExecContext(ctx, s.dialect.Rebind(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

package sale

import (
	"context"
	"errors"
	"strconv"

	"github.com/spillway-go/spillway/stock"
)

// A note is units that are to be added to an open sale; see grow.
type note struct {
	sku          string
	version, qty int64
}

// op is what Redis and the ledger call it.
func (n note) op() string { return n.sku + "@" + strconv.FormatInt(n.version, 10) }

// restock adds the units that were noted. Each note has a name, under which a second
// server that does the same changes nothing; so it is made again and again until the
// ledger has it. What only Redis has it may lose, and the sale is rebuilt without it.
func (s *Sale) restock(ctx context.Context, room int64) error {
	l, err := s.of(ctx, room)
	if err != nil {
		return err
	}
	notes, err := s.notes(ctx, room)
	if err != nil {
		return err
	}
	for _, n := range notes {
		kept, err := s.inLedger(ctx, l, n)
		if err != nil {
			return err
		}
		if !kept {
			_, err = l.stock.Restock(ctx, n.op(), stock.Item{SKU: n.sku, Qty: n.qty})
		} else {
			_, err = s.env.DB.ExecContext(ctx, "UPDATE restocks SET done = 1 WHERE room = ? AND sku = ? AND version = ?", room, n.sku, n.version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// notes returns the restocks of a room that the ledger is not known to have.
func (s *Sale) notes(ctx context.Context, room int64) (notes []note, err error) {
	rows, err := s.env.DB.QueryContext(ctx, "SELECT sku, version, qty FROM restocks WHERE room = ? AND done = 0 ORDER BY version", room)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n note
		if err := rows.Scan(&n.sku, &n.version, &n.qty); err != nil {
			return nil, err
		}
		notes = append(notes, n)
	}
	return notes, rows.Err()
}

// inLedger reports whether SQL has a restock: from there a sale is rebuilt.
func (s *Sale) inLedger(ctx context.Context, l *live, n note) (bool, error) {
	marks, args := among(l.journals())
	var rows int
	err := s.env.DB.QueryRowContext(ctx, "SELECT COUNT(*) FROM spillway_stock_row WHERE kind = ? AND journal IN "+marks+" AND order_id = ?",
		append(append([]any{stock.OpRestock.String()}, args...), []byte(n.op()))...).Scan(&rows)
	return rows > 0, err
}

package sale

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// The states of an order.
const (
	Pending   = "pending"
	Paid      = "paid"
	Cancelled = "cancelled"
	Refunded  = "refunded" // cancelled, and the money that came too late went back
)

// A sink is where the journals of a room go: the ledger, and from there at once into
// orders.
type sink struct {
	*stocksql.Store
	s    *Sale
	room int64
}

func (k sink) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if err := k.Store.Apply(ctx, journal, from, batch); err != nil {
		return err
	}
	// The ledger has it; that orders does not yet is not the journal's trouble. The
	// next batch, or the next chores, bring it there.
	if err := k.s.project(ctx, k.room, journal); err != nil {
		k.s.troubled(ctx, "write orders", k.room, err)
	}
	return nil
}

// A Line is a quantity of a product.
type Line struct {
	SKU string `json:"sku"`
	Qty int64  `json:"qty"`
}

// A Priced is a Line as the shop sees it.
type Priced struct {
	Line
	goods
}

type goods struct {
	Title string `json:"title"`
	Fen   int64  `json:"fen"` // the price of one
}

// A change is what an entry of the ledger does to an order.
type change struct {
	ms, seq, at, hold int64
	kind              string
	order, uid        int64
	lines             []Line
}

// pageRows is how many rows of the ledger one transaction brings to orders, about.
const pageRows = 1000

// errMoved says that another server has projected the same rows.
var errMoved = errors.New("sale: orders are ahead")

// projectAll brings the table orders up to date with the ledger. The journals of buckets
// do not wait for each other: all that happens to an order is in one, that of its buyer's
// bucket.
func (s *Sale) projectAll(ctx context.Context, room int64) error {
	v, err := s.shelf(ctx, room)
	if err != nil {
		return err
	}
	var errs []error
	for _, journal := range journalsOf(room, v.Buckets) {
		errs = append(errs, s.project(ctx, room, journal))
	}
	return errors.Join(errs...)
}

// project is projectAll for one journal. It reads the ledger rather than the batch that
// was just written, so that nothing is missing after a server died between the two; and
// it needs nothing but SQL.
func (s *Sale) project(ctx context.Context, room int64, journal string) error {
	for {
		more, err := s.projectPage(ctx, room, journal)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil || !more {
			return err
		}
	}
}

func (s *Sale) projectPage(ctx context.Context, room int64, journal string) (more bool, err error) {
	var ms, seq int64
	if err := s.env.DB.QueryRowContext(ctx, "SELECT entry_ms, entry_seq FROM order_positions WHERE journal = ?", journal).Scan(&ms, &seq); err != nil {
		return false, err
	}
	changes, more, err := s.readLedger(ctx, journal, ms, seq)
	if err != nil || len(changes) == 0 {
		return false, err
	}
	all, err := s.goods(ctx, room)
	if err != nil {
		return false, err
	}
	last := changes[len(changes)-1]
	err = s.env.Tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE order_positions SET entry_ms = ?, entry_seq = ? WHERE journal = ? AND entry_ms = ? AND entry_seq = ?",
			last.ms, last.seq, journal, ms, seq)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, errMoved)
		}
		if err := s.putNew(ctx, tx, room, changes, all); err != nil {
			return err
		}
		return s.putEnds(ctx, tx, changes)
	})
	if err != nil {
		return false, err
	}
	for _, c := range changes {
		if state := endState(c.kind); state != "" {
			// A page that does not listen asks when its countdown is over.
			if err := s.announcer.Tell(ctx, c.uid, "order", OrderFrame{c.order, state}); err != nil {
				s.troubled(ctx, "tell", room, err)
			}
		}
	}
	return more, nil
}

// readLedger returns what a journal in the ledger has of orders after an entry, whole
// entries only, and whether there may be more.
func (s *Sale) readLedger(ctx context.Context, journal string, ms, seq int64) (changes []change, more bool, err error) {
	for limit := pageRows; ; limit *= 4 {
		changes, n, err := s.readRows(ctx, journal, ms, seq, limit)
		if err != nil || n < limit {
			return changes, false, err
		}
		// The last entry may have been cut.
		last := changes[len(changes)-1]
		for i, c := range changes {
			if c.ms == last.ms && c.seq == last.seq {
				changes = changes[:i]
				break
			}
		}
		if len(changes) > 0 {
			return changes, true, nil
		}
	}
}

func (s *Sale) readRows(ctx context.Context, journal string, ms, seq int64, limit int) (changes []change, n int, err error) {
	rows, err := s.env.DB.QueryContext(ctx, `SELECT entry_ms, entry_seq, op, kind, order_id, user_id, sku, qty, at_ms, hold_ms
		FROM spillway_stock_row WHERE journal = ? AND (entry_ms > ? OR entry_ms = ? AND entry_seq > ?)
		ORDER BY entry_ms, entry_seq, op, item LIMIT ?`, []byte(journal), ms, ms, seq, limit)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	op := int64(-1)
	for ; rows.Next(); n++ {
		var c change
		var at int64
		var id, uid, sku []byte
		var line Line
		if err := rows.Scan(&c.ms, &c.seq, &at, &c.kind, &id, &uid, &sku, &line.Qty, &c.at, &c.hold); err != nil {
			return nil, 0, err
		}
		line.SKU = string(sku)
		if k := len(changes) - 1; k >= 0 && changes[k].ms == c.ms && changes[k].seq == c.seq && op == at {
			changes[k].lines = append(changes[k].lines, line)
			continue
		}
		op = at
		c.lines = []Line{line}
		// A load, a restock or a transfer belongs to no order, and is left out.
		c.order, _ = strconv.ParseInt(string(id), 10, 64)
		c.uid, _ = strconv.ParseInt(string(uid), 10, 64)
		changes = append(changes, c)
	}
	return changes, n, rows.Err()
}

// goods returns what things are called and cost in a room, by SKU.
func (s *Sale) goods(ctx context.Context, room int64) (map[string]goods, error) {
	rows, err := s.env.DB.QueryContext(ctx, "SELECT i.sku, i.fen, p.title FROM sale_items i JOIN products p ON p.sku = i.sku WHERE i.room = ?", room)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	all := map[string]goods{}
	for rows.Next() {
		var sku string
		var g goods
		if err := rows.Scan(&sku, &g.Fen, &g.Title); err != nil {
			return nil, err
		}
		all[sku] = g
	}
	return all, rows.Err()
}

// price adds titles and prices to lines, and returns the sum.
func price(lines []Line, all map[string]goods) (priced []Priced, fen int64) {
	priced = make([]Priced, len(lines))
	for i, line := range lines {
		priced[i] = Priced{line, all[line.SKU]}
		fen += line.Qty * priced[i].Fen
	}
	return priced, fen
}

func endState(kind string) string {
	switch kind {
	case stock.OpConfirm.String():
		return Paid
	case stock.OpCancel.String(), stock.OpExpire.String():
		return Cancelled
	}
	return ""
}

// putRows is how many orders one statement is about.
const putRows = 100

// putNew writes the orders that were placed.
func (s *Sale) putNew(ctx context.Context, tx *sql.Tx, room int64, changes []change, all map[string]goods) error {
	placed := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.kind != stock.OpReserve.String() })
	for some := range slices.Chunk(placed, putRows) {
		var args []any
		for _, c := range some {
			priced, fen := price(c.lines, all)
			items, err := json.Marshal(priced)
			if err != nil {
				return err
			}
			args = append(args, c.order, c.uid, room, string(items), fen, Pending, c.at, c.at+c.hold, 0, 1)
		}
		_, err := tx.ExecContext(ctx, s.env.InsertAll(len(some), "orders",
			"order_id", "uid", "room", "items", "fen", "state", "created_ms", "expires_ms", "paid_ms", "version"), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// These go on with the orders that they are about. By the one state that counts SQLite
// would look for payments among all that have begun.
const (
	takePayments = "UPDATE payments SET state = 'taken' WHERE state NOT IN ('taken', 'refunded', 'void') AND order_id IN "
	endOrders    = "UPDATE orders SET state = ?, paid_ms = ?, version = version + 1 WHERE state = 'pending' AND order_id IN "
)

// putEnds writes the ends of orders, of which the first counts, and into payments that an
// order is paid for: from now on no loss of Redis's data can undo that.
func (s *Sale) putEnds(ctx context.Context, tx *sql.Tx, changes []change) error {
	type end struct {
		state  string
		paidAt int64
	}
	together := map[end][]any{} // in a rush hundreds are paid within a millisecond
	ended := map[int64]bool{}
	for _, c := range changes {
		e := end{state: endState(c.kind)}
		if e.state == "" || ended[c.order] {
			continue
		}
		if e.state == Paid {
			e.paidAt = c.at
		}
		ended[c.order] = true
		together[e] = append(together[e], c.order)
	}
	for e, orders := range together {
		for some := range slices.Chunk(orders, putRows) {
			these := "(?" + strings.Repeat(", ?", len(some)-1) + ")"
			if e.state == Paid {
				if _, err := tx.ExecContext(ctx, takePayments+these, some...); err != nil {
					return err
				}
			}
			_, err := tx.ExecContext(ctx, endOrders+these, append([]any{e.state, e.paidAt}, some...)...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

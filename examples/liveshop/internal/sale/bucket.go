package sale

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/stock"
)

// starBuckets is into how many parts the stock of a star's sale is divided, at most.
//
// The stock of a room is under one hash tag, and so on one Redis server, which settles
// one order after the other: of all load it is the one that a Cluster does not share.
// Divided, it does. Three, since that is the smallest Cluster, and since each bucket
// more is one more to be looked at by every order when the sale runs out. (And more than
// five would take versions, which are sums of microseconds, beyond 2^53, where JSON
// numbers end in browsers.)
const starBuckets = 3

// buckets returns into how many parts the stock of a room is divided that opens now: not
// more than there are masters to share it. On one server nothing would be gained; and a
// crowd that is told "sold out" by three buckets costs it several times as much.
func (s *Sale) buckets(ctx context.Context, star bool) (int, error) {
	cluster, ok := s.env.Redis.(*redis.ClusterClient)
	if !star || !ok {
		return 1, nil
	}
	var masters atomic.Int32
	err := cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error {
		masters.Add(1)
		return nil
	})
	return max(1, min(starBuckets, int(masters.Load()))), down(err)
}

// journalsOf returns what the ledger calls the journals of a room's sale.
func journalsOf(room int64, buckets int) []string {
	return stock.Options{Buckets: buckets}.Journals(activityOf(room))
}

func (l *live) journals() []string { return journalsOf(l.room, l.buckets) }

// among returns a list of placeholders for names, and the names as the ledger has them.
func among(names []string) (marks string, args []any) {
	for _, name := range names {
		args = append(args, []byte(name))
	}
	return "(?" + strings.Repeat(", ?", len(names)-1) + ")", args
}

// A ledgerLevel is what SQL has of the stock of a product, in so many journals.
type ledgerLevel struct {
	stock.Level
	journals int
}

// ledgerLevels returns what SQL has of a room's stock. What is on its way between buckets
// is not in it.
func (s *Sale) ledgerLevels(ctx context.Context, l *live) (levels map[string]ledgerLevel, err error) {
	marks, journals := among(l.journals())
	rows, err := s.env.DB.QueryContext(ctx, `SELECT sku, COUNT(*), SUM(left_units), SUM(held_units), SUM(sold_units)
		FROM spillway_stock_level WHERE journal IN `+marks+" GROUP BY sku", journals...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has told
	levels = map[string]ledgerLevel{}
	for rows.Next() {
		var sku []byte
		var l ledgerLevel
		if err := rows.Scan(&sku, &l.journals, &l.Left, &l.Reserved, &l.Sold); err != nil {
			return nil, err
		}
		levels[string(sku)] = l
	}
	return levels, rows.Err()
}

// missing returns which products are to be loaded, with how many units: those that the
// ledger does not know. What it knows is not loaded: should Redis have lost it, the sale
// is rebuilt from there, with what was sold.
//
// A product that it knows in some buckets only is loaded, which changes nothing where it
// was: a server may have died half-way. But not if one of those buckets is gone from
// Redis, and nobody has noticed: it would sell again what it had sold.
func (s *Sale) missing(ctx context.Context, l *live, v shelf) (map[string]int64, error) {
	known, err := s.ledgerLevels(ctx, l)
	if err != nil {
		return nil, err
	}
	units, rest := map[string]int64{}, map[string]int64{}
	for sku, n := range v.loaded() {
		switch known[sku].journals {
		case len(l.journals()):
		case 0:
			units[sku] = n
		default:
			rest[sku] = n
		}
	}
	if len(rest) == 0 {
		return units, nil
	}
	info, err := l.stock.Inspect(ctx)
	if err != nil {
		return nil, err
	}
	for _, journal := range l.journals() {
		at, err := s.store.Checkpoint(ctx, journal)
		if err != nil {
			return nil, err
		}
		if at != "" && info.LastEntries[journal] == "" {
			return units, nil
		}
	}
	maps.Copy(units, rest)
	return units, nil
}

// rebuild makes the stock anew from SQL, after stock.ErrForked.
func (s *Sale) rebuild(ctx context.Context, l *live) error {
	if l.buckets > 1 {
		// A bucket may have been loaded, and been given units by another one, before SQL had
		// its first entry. What it was loaded with is to be had only here; orders are refused
		// by now, and those that have their stock keep it.
		v, err := s.shelf(ctx, l.room)
		if err == nil {
			err = l.stock.Load(ctx, v.loaded())
		}
		if err != nil {
			return fmt.Errorf("load what SQL does not know: %w", err)
		}
	}
	lost, err := l.stock.Rebuild(ctx, s.store)
	for _, op := range lost {
		s.env.Log.Warn("undone by the rebuild", "room", l.room, "order", op.ID, "uid", op.User, "what", op.Kind.String())
	}
	return err
}

// drained reports whether a halted sale is at its end: nothing can happen in it any
// more, and SQL has all that did.
func (s *Sale) drained(ctx context.Context, l *live) (bool, error) {
	info, err := l.stock.Inspect(ctx)
	if err != nil || info.Forked != "" || info.OpenHolds > 0 {
		return false, err
	}
	for _, journal := range l.journals() {
		at, err := s.store.Checkpoint(ctx, journal)
		if err != nil || at != info.LastEntries[journal] {
			return false, err
		}
	}
	// Units that one bucket gave and the other has not taken are in neither. Run brings
	// them there.
	marks, journals := among(l.journals())
	moving, err := column[string](s.env.DB.QueryContext(ctx, `SELECT sku FROM spillway_stock_row
		WHERE journal IN `+marks+" AND kind IN ('give', 'take') GROUP BY sku HAVING SUM(left_diff) <> 0", journals...))
	return len(moving) == 0, err
}

package stock

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// loadChunk is how many SKUs one script call loads.
const loadChunk = 500

// A Level is the stock of one SKU, in units. Left + Reserved + Sold is what was
// loaded and restocked; Sold counts deducted and confirmed orders. Holds that are
// over count as reserved until they are released, by Run or by the next order.
type Level struct {
	Left, Reserved, Sold int64
	// Version grows whenever the SKU sells out or comes back: the largest of the
	// version before plus one, and the server's time in microseconds.
	Version int64
}

// Load gives SKUs their initial stock, 0 to 2^52 units each. Loading the same
// figures again changes nothing, whatever was sold since; another figure for a SKU
// that was loaded is ErrConflict, and then nothing is loaded at all. SKUs may be
// added by a later Load; to add units to one there is Restock.
//
// One round trip per 500 SKUs, and as many before that where there are more.
func (a *Activity) Load(ctx context.Context, stock map[string]int64) error {
	if len(stock) == 0 {
		return fmt.Errorf("%w: no stock to load", ErrInvalid)
	}
	items := make([]Item, 0, len(stock))
	for _, sku := range slices.Sorted(maps.Keys(stock)) {
		if sku == "" || len(sku) > maxSKU {
			return fmt.Errorf("%w: sku of %d bytes, want 1 to %d", ErrInvalid, len(sku), maxSKU)
		}
		if q := stock[sku]; q < 0 || q > maxQty {
			return fmt.Errorf("%w: %d units of sku %q, want 0 to 2^52", ErrInvalid, q, sku)
		}
		items = append(items, Item{SKU: sku, Qty: stock[sku]})
	}
	if a.buckets != nil {
		return a.loadBuckets(ctx, items)
	}
	if len(items) > loadChunk {
		if err := a.checkLoaded(ctx, items); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(items, loadChunk) {
		if _, err := a.do(ctx, newOp('L', '+', "load", "", part)); err != nil {
			return err
		}
	}
	return nil
}

// checkLoaded finds a conflict before the first of several calls loads anything.
func (a *Activity) checkLoaded(ctx context.Context, items []Item) error {
	for part := range slices.Chunk(items, loadChunk) {
		fields := make([]string, len(part))
		for i := range part {
			fields[i] = ":" + part[i].SKU
		}
		values, err := a.rdb.HMGet(ctx, a.keys.levels, fields...).Result()
		if err != nil {
			return a.readError(err)
		}
		for i, v := range values {
			_, initial, ok := parseLevel(v)
			if ok && initial != part[i].Qty {
				return fmt.Errorf("stock: activity %q: %w: sku %q was loaded with %d units; Restock adds to it", a.name, ErrConflict, part[i].SKU, initial)
			}
		}
	}
	return nil
}

// Restock adds units to SKUs that were loaded, once per opID (1 to 256 bytes,
// apart from order ids): the same again within Options.Retention is a replay,
// other items under the same opID are ErrConflict. One shared round trip.
func (a *Activity) Restock(ctx context.Context, opID string, items ...Item) (Result, error) {
	if err := checkID("opID", opID); err != nil {
		return Result{}, err
	}
	if err := checkItems("items", items); err != nil {
		return Result{}, err
	}
	if a.buckets != nil {
		return a.restockBucket(ctx, opID, items)
	}
	return a.do(ctx, newOp('A', '+', opID, "", items))
}

// Stock returns the levels of the SKUs named, or of all if none is. SKUs that were
// not loaded are not in the map. One round trip for up to 500 SKUs named; all are
// read in steps, each of which is exact but not all at one moment.
func (a *Activity) Stock(ctx context.Context, skus ...string) (map[string]Level, error) {
	if a.buckets != nil {
		return a.stockOfBuckets(ctx, skus)
	}
	levels := make(map[string]Level)
	if len(skus) > 0 {
		for part := range slices.Chunk(skus, loadChunk) {
			fields := make([]string, len(part))
			for i := range part {
				fields[i] = ":" + part[i]
			}
			values, err := a.rdb.HMGet(ctx, a.keys.levels, fields...).Result()
			if err != nil {
				return nil, a.readError(err)
			}
			for i, v := range values {
				if l, _, ok := parseLevel(v); ok {
					levels[part[i]] = l
				}
			}
		}
		return levels, nil
	}
	cursor := uint64(0)
	for {
		fields, next, err := a.rdb.HScan(ctx, a.keys.levels, cursor, ":*", loadChunk).Result()
		if err != nil {
			return nil, a.readError(err)
		}
		for i := 0; i+1 < len(fields); i += 2 {
			if l, _, ok := parseLevel(fields[i+1]); ok {
				levels[fields[i][1:]] = l
			}
		}
		if next == 0 {
			return levels, nil
		}
		cursor = next
	}
}

// parseLevel reads "left held sold initial version".
func parseLevel(v any) (l Level, initial int64, ok bool) {
	s, ok := v.(string)
	if !ok {
		return l, 0, false
	}
	parts := strings.Fields(s)
	if len(parts) != 5 {
		return l, 0, false
	}
	for i, to := range []*int64{&l.Left, &l.Reserved, &l.Sold, &initial, &l.Version} {
		n, err := strconv.ParseInt(parts[i], 10, 64)
		if err != nil {
			return l, 0, false
		}
		*to = n
	}
	return l, initial, true
}

// readError names what failed in a read that changes nothing.
func (a *Activity) readError(err error) error {
	return fmt.Errorf("stock: activity %q: %w: %w", a.name, ErrUnavailable, err)
}

package stock

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// A Ledger is a sink that can be read: the truth after a failover that lost writes.
type Ledger interface {
	// Levels returns, as of one moment, the checkpoint of the journal ("" or "0-0" if
	// there is none) and the levels of its SKUs, twice: as they are kept, and as the ops
	// that were taken in add up. Versions are ignored.
	Levels(ctx context.Context, journal string) (at string, kept, counted map[string]Level, err error)
	// Entries returns the entries that were taken in, oldest first. Prev and the
	// crossings may be missing.
	Entries(ctx context.Context, journal string) iter.Seq2[Entry, error]
}

// A Diff is what Reconcile found: the SKUs on which not all agree, as each side has
// them. A SKU that a side lacks is missing there.
type Diff struct {
	At      string           // the journal position that was compared
	Redis   map[string]Level // as the activity has it
	Kept    map[string]Level // as the ledger keeps it, with the journal's entries from there to At
	Counted map[string]Level // as the ledger's ops add up, with the same entries
}

// None reports whether all agree.
func (d Diff) None() bool { return len(d.Redis)+len(d.Kept)+len(d.Counted) == 0 }

// reconcileTries bounds how often a ledger that moves on during the comparison is read.
const reconcileTries = 10

// Reconcile compares a ledger with Redis, SKU by SKU, at one position of the journal,
// while the sale goes on: the ledger's levels are brought to the position at which the
// levels were read in Redis by what the journal says of the time between.
//
// ErrForked says that Redis lost what the ledger has. One read of the ledger and two or
// more round trips, one of which returns all SKUs.
func (a *Activity) Reconcile(ctx context.Context, l Ledger) (Diff, error) {
	if err := a.undivided("Reconcile"); err != nil {
		return Diff{}, err
	}
	for range reconcileTries {
		at, kept, counted, err := l.Levels(ctx, a.name)
		if err != nil {
			return Diff{}, fmt.Errorf("stock: activity %q: levels of the ledger: %w", a.name, err)
		}
		if at == "" {
			at = "0-0"
		}
		// After the ledger: what is read now is not older. One command, one moment.
		fields, err := a.rdb.HGetAll(ctx, a.keys.levels).Result()
		if err != nil {
			return Diff{}, a.readError(err)
		}
		m, err := parseMeta(fields["@"])
		if err != nil {
			return Diff{}, fmt.Errorf("stock: activity %q: %w", a.name, err)
		}
		whole, err := a.addUp(ctx, at, m.last, kept, counted)
		if err != nil {
			return Diff{}, err
		}
		if !whole {
			info, err := a.Inspect(ctx)
			if err != nil {
				return Diff{}, err
			}
			if info.Forked != "" {
				return Diff{}, fmt.Errorf("stock: activity %q: %w at %s", a.name, ErrForked, info.Forked)
			}
			if idLess(info.LastEntry, at) {
				return Diff{}, fmt.Errorf("stock: activity %q: %w: the ledger has %s", a.name, ErrForked, at)
			}
			continue // trimmed meanwhile: the ledger has moved on
		}
		levels := make(map[string]Level)
		for field, v := range fields {
			if field[0] == ':' {
				if level, _, ok := parseLevel(v); ok {
					level.Version = 0
					levels[field[1:]] = level
				}
			}
		}
		return diff(m.last, levels, kept, counted), nil
	}
	return Diff{}, fmt.Errorf("stock: activity %q: %w: no unbroken way from the ledger's checkpoint to the newest entry", a.name, ErrForked)
}

// addUp applies the entries after from up to the one with the id to to each of levels.
// It returns false if they are not all there.
func (a *Activity) addUp(ctx context.Context, from, to string, levels ...map[string]Level) (bool, error) {
	at := from
	if at == to {
		return true, nil
	}
	for e, err := range a.Entries(ctx, from) {
		if err != nil {
			return false, err
		}
		if e.Prev != at {
			return false, nil
		}
		at = e.ID
		for _, o := range e.Ops {
			for _, of := range levels {
				o.addTo(of)
			}
		}
		if at == to {
			return true, nil
		}
	}
	return false, nil
}

// addTo brings levels to where they are after o.
func (o Op) addTo(levels map[string]Level) {
	left, reserved, sold := o.Move()
	for _, it := range o.Items {
		l := levels[it.SKU]
		l.Left, l.Reserved, l.Sold = l.Left+left*it.Qty, l.Reserved+reserved*it.Qty, l.Sold+sold*it.Qty
		levels[it.SKU] = l
	}
}

func diff(at string, redis, kept, counted map[string]Level) Diff {
	d := Diff{At: at, Redis: map[string]Level{}, Kept: map[string]Level{}, Counted: map[string]Level{}}
	sides := []struct{ from, to map[string]Level }{{redis, d.Redis}, {kept, d.Kept}, {counted, d.Counted}}
	for _, side := range sides {
		for sku := range side.from {
			if slices.IndexFunc(sides, func(s struct{ from, to map[string]Level }) bool {
				l, ok := s.from[sku]
				return !ok || l != side.from[sku]
			}) < 0 {
				continue
			}
			for _, s := range sides {
				if l, ok := s.from[sku]; ok {
					s.to[sku] = l
				}
			}
		}
	}
	return d
}

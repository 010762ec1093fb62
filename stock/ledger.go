package stock

import (
	"cmp"
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
	At      string           // the journal position that was compared, of each bucket in turn
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
// Buckets are compared one by one, each at its own position; a SKU that does not agree in
// one of them is there with its sums over all.
//
// ErrForked says that Redis lost what the ledger has. One read of the ledger and two or
// more round trips, one of which returns all SKUs.
func (a *Activity) Reconcile(ctx context.Context, l Ledger) (Diff, error) {
	if l == nil {
		return Diff{}, fmt.Errorf("%w: Reconcile of activity %q without a ledger", ErrInvalid, a.name)
	}
	if a.buckets != nil {
		return a.reconcileBuckets(ctx, l)
	}
	c, err := a.compare(ctx, l)
	if err != nil {
		return Diff{}, err
	}
	return c.diff(), nil
}

// A comparison is the levels at one position of a journal, as Redis has them, as a
// ledger keeps them, and as its ops add up.
type comparison struct {
	at    string
	sides [3]map[string]Level
}

func (a *Activity) compare(ctx context.Context, l Ledger) (comparison, error) {
	for range reconcileTries {
		at, kept, counted, err := l.Levels(ctx, a.journal)
		if err != nil {
			return comparison{}, fmt.Errorf("stock: activity %q: levels of the ledger: %w", a.name, err)
		}
		if at == "" {
			at = "0-0"
		}
		// After the ledger: what is read now is not older. One command, one moment.
		fields, err := a.rdb.HGetAll(ctx, a.keys.levels).Result()
		if err != nil {
			return comparison{}, a.readError(err)
		}
		m, err := parseMeta(fields["@"])
		if err != nil {
			return comparison{}, fmt.Errorf("stock: activity %q: %w", a.name, err)
		}
		m.last = cmp.Or(m.last, "0-0") // an activity that was never loaded
		whole, err := a.addUp(ctx, at, m.last, kept, counted)
		if err != nil {
			return comparison{}, err
		}
		if !whole {
			info, err := a.Inspect(ctx)
			if err != nil {
				return comparison{}, err
			}
			if info.Forked != "" {
				return comparison{}, fmt.Errorf("stock: activity %q: %w at %s", a.name, ErrForked, info.Forked)
			}
			if idLess(info.LastEntry, at) {
				return comparison{}, fmt.Errorf("stock: activity %q: %w: the ledger has %s", a.name, ErrForked, at)
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
		return comparison{m.last, [3]map[string]Level{levels, kept, counted}}, nil
	}
	return comparison{}, fmt.Errorf("stock: activity %q: %w: no unbroken way from the ledger's checkpoint to the newest entry", a.name, ErrForked)
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

// diff keeps the SKUs on which the sides do not agree.
func (c comparison) diff() Diff {
	d := Diff{At: c.at, Redis: map[string]Level{}, Kept: map[string]Level{}, Counted: map[string]Level{}}
	to := []map[string]Level{d.Redis, d.Kept, d.Counted}
	for _, side := range c.sides {
		for sku := range side {
			if slices.IndexFunc(c.sides[:], func(s map[string]Level) bool {
				l, ok := s[sku]
				return !ok || l != side[sku]
			}) < 0 {
				continue
			}
			for i, s := range c.sides {
				if l, ok := s[sku]; ok {
					to[i][sku] = l
				}
			}
		}
	}
	return d
}

package stock

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured.
func TestCostPerCall(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		var trips redistest.Trips
		rdb.AddHook(&trips)
		a := open(t, rdb, Options{SoldOutFor: -1})
		remembers := open(t, rdb, Options{Prefix: a.opts.Prefix, SoldOutFor: maxSleep})
		ctx := t.Context()
		stock := map[string]int64{"tea": 1 << 40, "none": 0}
		must := func(_ any, err error) { require.NoError(t, err) }
		id := 0
		next := func() string { id++; return fmt.Sprintf("order-%010d", id) }
		sold, ref := tea("sold", "u", 1), Ref{"sold", "u"}
		nothing := Order{ID: "late", User: "u", Items: []Item{{"none", 1}}}

		must(nil, a.Load(ctx, map[string]int64{"tea": 1 << 40})) // the script is known from here on
		must(a.Deduct(ctx, sold))
		measured := map[string]func(){
			"Deduct":  func() { must(a.Deduct(ctx, tea(next(), "user-1", 1))) },
			"Reserve": func() { must(a.Reserve(ctx, tea(next(), "user-1", 1))) },
			"Confirm": func() { must(a.Confirm(ctx, ref)) },
			"Lookup":  func() { must(a.Lookup(ctx, ref)) },
			"Cancel":  func() { must(a.Cancel(ctx, Ref{next(), "user-1"}, "")) },
			"Restock": func() { must(a.Restock(ctx, next(), Item{"tea", 1})) },
			"order sold out, in memory": func() {
				_, err := remembers.Deduct(ctx, nothing)
				require.ErrorIs(t, err, ErrInsufficient)
			},
			"Load, up to 500 SKUs": func() { must(nil, a.Load(ctx, stock)) },
			"Stock":                func() { must(a.Stock(ctx, "tea")) },
			"Inspect":              func() { must(a.Inspect(ctx)) },
			"RunJournal": func() {
				f := feed{a: a, sink: newShelf(), name: "shelf"}
				must(nil, f.step(ctx))
			},
			"Reconcile": func() { must(a.Reconcile(ctx, atEnd{newShelf(), a})) },
			"Entries": func() {
				for _, err := range a.Entries(ctx, "9999999999999-0") {
					require.NoError(t, err)
				}
			},
			"Holds": func() {
				for _, err := range a.Holds(ctx) {
					require.NoError(t, err)
					break
				}
			},
		}
		rows := redistest.Costs(t)
		for name, call := range measured {
			if name == "order sold out, in memory" {
				must(nil, a.Load(ctx, stock))
				call() // Redis says so, and from here on it is known
			}
			rows.HoldTrips(t, &trips, name, call)
			if _, local := rdb.(*redis.Client); local && !isMini(rdb) {
				rows.HoldAllocations(t, name, call)
			}
		}
	})
}

// atEnd is a ledger that has all of the journal.
type atEnd struct {
	*shelf
	a *Activity
}

func (l atEnd) Levels(ctx context.Context, _ string) (string, map[string]Level, map[string]Level, error) {
	packed, err := l.a.rdb.HGet(redistest.Uncounted(ctx), l.a.keys.levels, "@").Result()
	if err != nil {
		return "", nil, nil, err
	}
	m, err := parseMeta(packed)
	return m.last, nil, nil, err
}

// isMini tells whether the server shares this process, and its allocations.
func isMini(rdb redis.UniversalClient) bool {
	return !strings.Contains(rdb.Info(context.Background(), "server").Val(), "redis_version")
}

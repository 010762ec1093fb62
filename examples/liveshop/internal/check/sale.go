package check

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// overdue is how long after its time is over a pending order may be found.
const overdue = 10_000 // ms

// A soldItem is a product in a room's sale.
type soldItem struct {
	room           int64
	buckets        int
	sku, state     string
	units, restock int64 // of units, those that Redis may not have yet
	returned       int64
}

func activityOf(room int64) string { return "room-" + strconv.FormatInt(room, 10) }

// journalsOf returns what the ledger calls the journals of a room: one, or that of each
// bucket.
func journalsOf(room int64, buckets int) []string {
	return stock.Options{Buckets: buckets}.Journals(activityOf(room))
}

// soldItems returns what is and was sold in all rooms, without what others sell.
func soldItems(ctx context.Context, env *infra.Env) (items []soldItem, err error) {
	err = query(ctx, env, func(scan func(...any) error) error {
		var it soldItem
		err := scan(&it.room, &it.buckets, &it.state, &it.sku, &it.units, &it.returned, &it.restock)
		items = append(items, it)
		return err
	}, `SELECT i.room, s.buckets, s.state, i.sku, i.units, i.returned,
		COALESCE((SELECT SUM(r.qty) FROM restocks r WHERE r.room = i.room AND r.sku = i.sku AND r.done = 0), 0)
		FROM sale_items i JOIN sales s ON s.room = i.room JOIN products p ON p.sku = i.sku WHERE p.elsewhere = 0`)
	return items, err
}

// stockOf returns the stock of a room in Redis, to be read.
func stockOf(env *infra.Env, room int64, buckets int) (*stock.Activity, error) {
	return stock.New(env.Redis, activityOf(room), stock.Options{Prefix: "liveshop", Buckets: buckets})
}

// stockAddsUp: left + held + sold is what was put in, and none is negative: in Redis for
// each live room, in SQL for each that ended. No product went into rooms more often than
// there are units of it.
func stockAddsUp(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	items, err := soldItems(ctx, env)
	if err != nil {
		return nil, "", err
	}
	levels := map[int64]map[string]stock.Level{}
	for _, it := range items {
		of := levels[it.room]
		if of == nil {
			if of, err = levelsOf(ctx, env, it); err != nil {
				return nil, "", err
			}
			levels[it.room] = of
		}
		l, ok := of[it.sku]
		name := fmt.Sprintf("%s in room %d", it.sku, it.room)
		switch sum := l.Left + l.Reserved + l.Sold; {
		case !ok:
			wrong = append(wrong, name+" has no stock")
		case l.Left < 0 || l.Reserved < 0 || l.Sold < 0:
			wrong = append(wrong, fmt.Sprintf("%s: %d left, %d held, %d sold", name, l.Left, l.Reserved, l.Sold))
		case sum != it.units && sum != it.units-it.restock:
			wrong = append(wrong, fmt.Sprintf("%s: %d left + %d held + %d sold is not %d", name, l.Left, l.Reserved, l.Sold, it.units))
		case over(it.state) && (l.Reserved != 0 || l.Left != it.returned):
			wrong = append(wrong, fmt.Sprintf("%s ended with %d left and %d held, and %d came back", name, l.Left, l.Reserved, it.returned))
		}
	}
	err = query(ctx, env, func(scan func(...any) error) error {
		var sku string
		var total, used int64
		err := scan(&sku, &total, &used)
		wrong = append(wrong, fmt.Sprintf("%d of %s were given to rooms, of %d", used, sku, total))
		return err
	}, `SELECT p.sku, p.total, SUM(i.units - i.returned) FROM products p JOIN sale_items i ON i.sku = p.sku
		GROUP BY p.sku, p.total HAVING SUM(i.units - i.returned) > p.total`)
	return wrong, fmt.Sprintf("%d products in %d rooms", len(items), len(levels)), err
}

func over(state string) bool { return state == "ended" || state == "gone" }

func levelsOf(ctx context.Context, env *infra.Env, it soldItem) (map[string]stock.Level, error) {
	if over(it.state) {
		store, err := stocksql.New(env.DB, env.Dialect)
		if err != nil {
			return nil, err
		}
		all := map[string]stock.Level{}
		for _, journal := range journalsOf(it.room, it.buckets) {
			_, _, counted, err := store.Levels(ctx, journal)
			if err != nil {
				return nil, err
			}
			for sku, l := range counted {
				sum := all[sku]
				all[sku] = stock.Level{Left: sum.Left + l.Left, Reserved: sum.Reserved + l.Reserved, Sold: sum.Sold + l.Sold}
			}
		}
		return all, nil
	}
	a, err := stockOf(env, it.room, it.buckets)
	if err != nil {
		return nil, err
	}
	return a.Stock(ctx)
}

// A history is what the ledger has of an order.
type history struct {
	journal  string
	reserved map[string]int64            // units by SKU
	ends     map[string]map[string]int64 // likewise, by kind
	expires  int64                       // ms
}

// ordersEndOnce: an id is one order, in one room, and in one bucket of it; it holds units once, and meets at most
// one end, which gives back, or sells, exactly what was held; and none is overdue. The
// table orders says the same.
func ordersEndOnce(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	now, err := redisTime(ctx, env)
	if err != nil {
		return nil, "", err
	}
	states, err := orderStates(ctx, env)
	if err != nil {
		return nil, "", err
	}
	histories, twice, err := ledgerHistories(ctx, env)
	if err != nil {
		return nil, "", err
	}
	for _, id := range twice {
		wrong = append(wrong, "order "+id+" is in two journals")
	}
	ended := 0
	for id, h := range histories {
		want := "pending"
		for kind, items := range h.ends {
			ended++
			want = map[string]string{"confirm": "paid", "cancel": "cancelled", "expire": "cancelled"}[kind]
			if !same(items, h.reserved) {
				wrong = append(wrong, fmt.Sprintf("order %s held %v, and %s was of %v", id, h.reserved, kind, items))
			}
		}
		switch {
		case len(h.ends) > 1:
			wrong = append(wrong, fmt.Sprintf("order %s met %d ends", id, len(h.ends)))
		case len(h.reserved) == 0:
			if len(h.ends["cancel"]) > 0 || h.ends["confirm"] != nil {
				wrong = append(wrong, "order "+id+" ended without a beginning")
			}
		case len(h.ends) == 0 && now > h.expires+overdue:
			wrong = append(wrong, fmt.Sprintf("order %s is pending for %d s after its time", id, (now-h.expires)/1000))
		case states[id] != want:
			wrong = append(wrong, fmt.Sprintf("order %s is %s in the ledger and %q in orders", id, want, states[id]))
		}
	}
	for id := range states {
		if histories[id] == nil {
			wrong = append(wrong, "order "+id+" is not in the ledger")
		}
	}
	return wrong, fmt.Sprintf("%d orders, %d have met their end", len(histories), ended), nil
}

func redisTime(ctx context.Context, env *infra.Env) (ms int64, err error) {
	at, err := env.Redis.Time(ctx).Result()
	return at.UnixMilli(), err
}

func orderStates(ctx context.Context, env *infra.Env) (map[string]string, error) {
	states := map[string]string{}
	err := query(ctx, env, func(scan func(...any) error) error {
		var id int64
		var state string
		err := scan(&id, &state)
		states[strconv.FormatInt(id, 10)] = state
		return err
	}, "SELECT order_id, state FROM orders")
	return states, err
}

func ledgerHistories(ctx context.Context, env *infra.Env) (all map[string]*history, twice []string, err error) {
	all = map[string]*history{}
	err = query(ctx, env, func(scan func(...any) error) error {
		var name, id, sku []byte
		var kind string
		var qty, at, hold int64
		if err := scan(&name, &id, &kind, &sku, &qty, &at, &hold); err != nil {
			return err
		}
		journal := string(name)
		h := all[string(id)]
		if h == nil {
			h = &history{journal: journal, reserved: map[string]int64{}, ends: map[string]map[string]int64{}}
			all[string(id)] = h
		}
		if h.journal != journal {
			twice = append(twice, string(id))
		}
		if kind == stock.OpReserve.String() {
			h.reserved[string(sku)] += qty
			h.expires = at + hold
			return nil
		}
		if h.ends[kind] == nil {
			h.ends[kind] = map[string]int64{}
		}
		h.ends[kind][string(sku)] += qty
		return nil
	}, `SELECT journal, order_id, kind, sku, qty, at_ms, hold_ms FROM spillway_stock_row
		WHERE kind IN ('reserve', 'deduct', 'confirm', 'cancel', 'expire')`)
	return all, twice, err
}

func same(a, b map[string]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// sqlIsRedis: the ledger's figures and rows are the stock in Redis, at one place of the
// journal; so are what the orders hold and have bought.
func sqlIsRedis(ctx context.Context, env *infra.Env) (wrong []string, detail string, err error) {
	store, err := stocksql.New(env.DB, env.Dialect)
	if err != nil {
		return nil, "", err
	}
	type live struct {
		room    int64
		buckets int
	}
	var rooms []live
	err = query(ctx, env, func(scan func(...any) error) error {
		var r live
		err := scan(&r.room, &r.buckets)
		rooms = append(rooms, r)
		return err
	}, "SELECT DISTINCT s.room, s.buckets FROM sales s JOIN sale_items i ON i.room = s.room WHERE s.state IN ('open', 'closing')")
	if err != nil {
		return nil, "", err
	}
	for _, r := range rooms {
		a, err := stockOf(env, r.room, r.buckets)
		if err != nil {
			return nil, "", err
		}
		diff, err := a.Reconcile(ctx, store)
		if errors.Is(err, stock.ErrForked) {
			wrong = append(wrong, fmt.Sprintf("room %d: %v", r.room, err))
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if !diff.None() {
			wrong = append(wrong, fmt.Sprintf("room %d: Redis %+v, ledger %+v, its rows %+v", r.room, diff.Redis, diff.Kept, diff.Counted))
		}
	}
	return wrong, fmt.Sprintf("%d rooms", len(rooms)), nil
}

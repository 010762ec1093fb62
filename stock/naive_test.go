package stock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// naiveLua sells one order a call, without lost replies, limits per user, partial
// orders or batches in mind: what a careful team writes in an afternoon. The lines
// that a mutant replaces are marked.
const naiveLua = `
local c, t = cjson.decode(ARGV[1]), redis.call('TIME')
local us = t[1] * 1000000 + t[2]
local now = math.floor(us / 1000)
local log = {}
local function get(f)
  local v = redis.call('HGET', KEYS[1], f)
  return v and cjson.decode(v) or nil
end
local function set(f, v) redis.call('HSET', KEYS[1], f, cjson.encode(v)) end
local function move(sku, left, held, sold)
  local l = get('sku:' .. sku)
  local before = l.Left
  l.Left, l.Reserved, l.Sold = l.Left + left, l.Reserved + held, l.Sold + sold
  if (before == 0) ~= (l.Left == 0) then
    l.Version = l.Version + 1
    log[#log + 1] = { Kind = 86, Event = { SKU = sku, Version = l.Version, Left = l.Left } }
  end
  set('sku:' .. sku, l)
end
local function moves(r, left, held, sold)
  for _, it in ipairs(r.items) do move(it.SKU, left * it.Qty, held * it.Qty, sold * it.Qty) end
end
local function op(kind, id, r)
  table.insert(log, 1, { Kind = string.byte(kind), ID = id, User = r.user, Items = r.items })
  if #log > 0 then redis.call('XADD', KEYS[2], '*', 't', string.format('%d', now), 'o', cjson.encode(log)) end
  log = {}
end
local field = 'order:' .. c.ID
local function answer(code, r, sku, left)
  return { code, string.format('%d', us), r and cjson.encode(r) or '', sku or '', left or 0 }
end
if c.verb == 'A' then
  if get('restock:' .. c.ID) then return answer('replay') end
  local r = { user = '', items = c.Items }
  moves(r, 1, 0, 0)
  set('restock:' .. c.ID, r)
  op('A', c.ID, r)
  return answer('done')
end
local r = get(field)
if r and r.state == 'reserved' and r.due <= now then
  moves(r, 1, -1, 0)
  r.state = 'expired'
  set(field, r)
  op('E', c.ID, r)
end
local function known()
  if not r then return end
  if c.verb ~= r.verb or c.User ~= r.user or c.text ~= r.text then return answer('conflict') end
  return answer('replay', r)
end
if c.verb == 'D' or c.verb == 'R' then
  r = r and (r.early and { early = true, verb = c.verb, user = r.user, text = c.text, state = r.state } or r)
  --[[known]] local was = known() if was then return was end
  for _, it in ipairs(c.Items) do
    local l = get('sku:' .. it.SKU)
    if not l then return answer('nosku', nil, it.SKU) end
    --[[enough]] if l.Left < it.Qty then return answer('insufficient', nil, it.SKU, l.Left) end
  end
  local new = { verb = c.verb, user = c.User, text = c.text, items = c.Items, state = 'sold' }
  if c.verb == 'R' then
    new.state, new.due = 'reserved', now + tonumber(ARGV[2])
    moves(new, -1, 1, 0)
  else
    moves(new, -1, 0, 1)
  end
  --[[late]]
  set(field, new)
  op(c.verb, c.ID, new)
  return answer('done', new)
end
if not r then
  if c.verb ~= 'X' then return answer('notfound') end
  set(field, { early = true, user = c.User, state = 'cancelled' })
  return answer('done', { state = 'cancelled' })
end
if r.user ~= c.User then return answer('conflict') end
if c.verb == 'S' or r.state ~= 'reserved' and r.state ~= 'sold' then return answer('replay', r) end
if c.verb == 'C' then
  if r.state == 'reserved' then moves(r, 0, -1, 1) end
  r.state = 'confirmed'
else
  if r.state == 'reserved' then moves(r, 1, -1, 0) else moves(r, 1, 0, -1) end
  r.state = 'cancelled'
end
set(field, r)
op(c.verb, c.ID, r)
return answer('done', r)
`

// A naive is a seller that runs such a script, or a mutant of it.
type naive struct {
	rdb    redis.UniversalClient
	keys   []string
	hold   time.Duration
	lua    string
	getSet bool // an order reads the level, and later writes what it worked out
}

func newNaive(t testing.TB, rdb redis.UniversalClient, mutate ...string) *naive {
	tag := "{" + redistest.Prefix(t) + "}"
	lua := naiveLua
	for i := 0; i+1 < len(mutate); i += 2 {
		require.Contains(t, lua, mutate[i])
		lua = strings.Replace(lua, mutate[i], mutate[i+1], 1)
	}
	return &naive{rdb: rdb, keys: []string{tag + "all", tag + "journal"}, hold: 10 * time.Millisecond, lua: lua}
}

func (n *naive) Load(ctx context.Context, stock map[string]int64) error {
	for sku, q := range stock {
		b, err := json.Marshal(Level{Left: q, Version: 1})
		if err != nil {
			return err
		}
		if err := n.rdb.HSet(ctx, n.keys[0], "sku:"+sku, b).Err(); err != nil {
			return err
		}
	}
	return nil
}

var naiveErrors = map[string]error{"conflict": ErrConflict, "nosku": ErrNoSKU, "notfound": ErrNotFound}

func (n *naive) call(ctx context.Context, verb byte, o Order) (res Result, err error) {
	b, err := json.Marshal(map[string]any{
		"verb": string(verb), "ID": o.ID, "User": o.User, "Items": o.Items, "text": fmt.Sprint(o.Items),
	})
	if err != nil {
		return res, err
	}
	reply, err := n.rdb.Eval(ctx, n.lua, n.keys, b, n.hold.Milliseconds()).Slice()
	if err != nil {
		return res, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	code := reply[0].(string)
	us, err := strconv.ParseInt(reply[1].(string), 10, 64)
	if err != nil {
		return res, err
	}
	res.At, res.Replayed = time.UnixMicro(us), code == "replay"
	if code == "insufficient" {
		return res, &InsufficientError{SKU: reply[3].(string), Left: reply[4].(int64)}
	}
	if e := naiveErrors[code]; e != nil {
		return res, e
	}
	var r struct {
		State string
		Due   int64
		Items []Item
	}
	if text := reply[2].(string); text != "" {
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return res, err
		}
	}
	for s, name := range stateNames {
		if name == r.State {
			res.State = State(s)
		}
	}
	res.Items = r.Items
	if res.State == Reserved {
		res.Expires = time.UnixMilli(r.Due)
	}
	return res, ended(verb, res.State)
}

func (n *naive) order(ctx context.Context, verb byte, o Order) (Result, error) {
	if !n.getSet {
		return n.call(ctx, verb, o)
	}
	// GET, and while others do the same, SET.
	sku := "sku:" + o.Items[0].SKU
	text, err := n.rdb.HGet(ctx, n.keys[0], sku).Result()
	if err != nil {
		return n.call(ctx, verb, o)
	}
	res, err := n.call(ctx, verb, o)
	if err == nil && !res.Replayed {
		var before, after Level
		if err := json.Unmarshal([]byte(text), &before); err != nil {
			return res, err
		}
		after = before
		after.Left -= o.Items[0].Qty
		if verb == 'R' {
			after.Reserved += o.Items[0].Qty
		} else {
			after.Sold += o.Items[0].Qty
		}
		b, err := json.Marshal(after)
		if err != nil {
			return res, err
		}
		if err := n.rdb.HSet(ctx, n.keys[0], sku, b).Err(); err != nil {
			return res, err
		}
	}
	return res, err
}

func (n *naive) Deduct(ctx context.Context, o Order) (Result, error)  { return n.order(ctx, 'D', o) }
func (n *naive) Reserve(ctx context.Context, o Order) (Result, error) { return n.order(ctx, 'R', o) }
func (n *naive) Confirm(ctx context.Context, r Ref) (Result, error) {
	return n.call(ctx, 'C', Order{ID: r.ID, User: r.User})
}

func (n *naive) Cancel(ctx context.Context, r Ref, _ string) (Result, error) {
	return n.call(ctx, 'X', Order{ID: r.ID, User: r.User})
}

func (n *naive) Lookup(ctx context.Context, r Ref) (Result, error) {
	return n.call(ctx, 'S', Order{ID: r.ID, User: r.User})
}

func (n *naive) Restock(ctx context.Context, id string, items ...Item) (Result, error) {
	res, err := n.call(ctx, 'A', Order{ID: id, Items: items})
	res.Items = items
	return res, err
}

func (n *naive) Stock(ctx context.Context, _ ...string) (map[string]Level, error) {
	all, err := n.rdb.HGetAll(ctx, n.keys[0]).Result()
	if err != nil {
		return nil, err
	}
	levels := map[string]Level{}
	for f, text := range all {
		if sku, ok := strings.CutPrefix(f, "sku:"); ok {
			var l Level
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				return nil, err
			}
			levels[sku] = l
		}
	}
	return levels, nil
}

func (n *naive) Entries(ctx context.Context, from string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		entries, err := n.rdb.XRange(ctx, n.keys[1], "("+from, "+").Result()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, m := range entries {
			ms, err := strconv.ParseInt(m.Values["t"].(string), 10, 64)
			e := Entry{ID: m.ID, Prev: from, At: time.UnixMilli(ms)}
			if err := errors.Join(err, json.Unmarshal([]byte(m.Values["o"].(string)), &e.Ops)); err != nil {
				yield(e, err)
				return
			}
			if !yield(e, nil) {
				return
			}
			from = m.ID
		}
	}
}

func TestOracleCatchesNaiveSellers(t *testing.T) {
	s := seed(t)
	// A hundredth of what a soak runs.
	const within = 10_000
	rdb := redistest.Shared(t).Client()
	run := func(t *testing.T, n *naive) *oracle {
		h := newHistory(s, within)
		h.goroutines, h.perRound, h.simple = 16, 8, true
		h.opts.Hold, h.opts.UserLimit, h.opts.UserSKULimit = n.hold, 0, 0
		return h.run(t, n, n)
	}
	t.Run("careful", func(t *testing.T) { // what it catches below is the mutation
		run(t, newNaive(t, rdb)).require(t)
	})
	mutants := map[string][]string{
		"dedupe after deduct": {
			"--[[known]] local was = known() if was then return was end", "",
			"--[[late]]", "local was = known() if was then return was end",
		},
		"off by one": {"l.Left < it.Qty then", "not (l.Left + 1 >= it.Qty) then"},
		"> for >=":   {"l.Left < it.Qty then", "not (l.Left > it.Qty) then"},
		"stock before idempotency": {
			"--[[known]] local was = known() if was then return was end", "",
			"local new = {", "local was = known() if was then return was end local new = {",
		},
		"no idempotency":    {"if not r then return end\n  if c.verb", "if true then return end\n  if c.verb"},
		"an event too many": {"if (before == 0) ~= (l.Left == 0) then", "if (before <= 1) ~= (l.Left <= 1) then"},
		"a late confirm":    {"r.due <= now", "r.due <= now - 1000"},
	}
	for name, mutate := range mutants {
		t.Run(name, func(t *testing.T) {
			o := run(t, newNaive(t, rdb, mutate...))
			require.NotEmpty(t, o.faults, "the oracle saw nothing")
			t.Logf("caught after %d journal ops: %s", o.steps, o.faults[0])
		})
	}
	t.Run("GET then SET", func(t *testing.T) {
		n := newNaive(t, rdb)
		n.getSet = true
		o := run(t, n)
		require.NotEmpty(t, o.faults, "the oracle saw nothing")
		t.Logf("caught after %d journal ops: %s", o.steps, o.faults[0])
	})
}

package stock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed freeze.lua
	freezeLua string
	//go:embed rebuild.lua
	rebuildLua string

	freezeScript  = script.New(script.State, freezeLua)
	rebuildScript = script.New(script.State, rebuildLua)
)

// Rebuild makes the activity anew after ErrForked, from a ledger, and lets the sale go
// on. What Redis was told since it lost something is kept as far as the ledger's stock
// goes: orders that the ledger does not know are granted again, in order, and their
// ends too. What could not be kept is returned: ops that were acknowledged and are
// undone, whose buyers the shop has to tell. Nobody knows of orders that were neither in
// the ledger nor in what Redis had left.
//
// Until it returns, calls wait, a second at most, and then get ErrUnavailable. A Rebuild
// that fails leaves the activity halted and can be made again, by any process; one whose
// process died leaves it unavailable until then. Of several at once one works and the
// others wait for it, a minute at most before they take it for dead. Where there is
// nothing to do, as then, it returns nil.
//
// Other sinks than the ledger have to be brought to its state before they go on. The
// limits per user are counted anew under these Options. A cancel that came before its
// order, and the rest of a partial order that got less than it asked for, are not in a
// ledger: the first is forgotten, a retry of the second is ErrConflict.
//
// It reads the ledger and the journal whole, and takes memory for every order.
func (a *Activity) Rebuild(ctx context.Context, l Ledger) (lost []Op, err error) {
	if err := a.undivided("Rebuild"); err != nil {
		return nil, err
	}
	token := a.nonce + strconv.FormatUint(a.seq.Add(1), 36)
	fail := func(err error) ([]Op, error) {
		return nil, fmt.Errorf("stock: activity %q: rebuild: %w", a.name, err)
	}
	var f frozen
	for {
		if f, err = a.freeze(ctx, token, true); err != nil {
			return fail(err)
		}
		if f.mine {
			break
		}
		if !f.other {
			return nil, nil
		}
		sleep(ctx, rebuildLook)
		if ctx.Err() != nil {
			return fail(ctx.Err())
		}
	}
	done := false
	defer func() {
		if !done {
			// Orders are refused still; confirms and cancels go on again.
			_, thawErr := a.freeze(context.WithoutCancel(ctx), token, false)
			err = errors.Join(err, thawErr)
		}
	}()
	at, r, err := readLedger(ctx, l, a.name)
	if err != nil {
		return fail(err)
	}
	if lost, err = a.mergeJournal(ctx, r, at); err != nil {
		return fail(err)
	}
	made, err := a.build(ctx, r, at, f, token)
	if err == nil {
		err = a.install(ctx, made, token)
	}
	if err != nil {
		return fail(err)
	}
	done = true
	a.opts.Logger.Warn("stock: the activity was rebuilt from a ledger", "activity", a.name,
		"orders", len(r.orders), "entries kept beyond the ledger", len(r.added), "ops undone", len(lost))
	return lost, nil
}

const (
	rebuildDead = time.Minute // a Rebuild without an end is taken for dead
	rebuildLook = 250 * time.Millisecond
)

// A frozen is what freeze found.
type frozen struct {
	mine  bool // it is frozen by this token
	other bool // it is frozen by another one
	now   time.Time
	meta  meta // as it stays
}

func (a *Activity) freeze(ctx context.Context, token string, freeze bool) (f frozen, err error) {
	flag := "0"
	if freeze {
		flag = "1"
	}
	reply, err := freezeScript.Run(ctx, a.rdb, script.Call{
		Keys: []string{a.keys.levels}, Args: []any{token, flag, int64(rebuildDead / time.Second)},
	})
	if err != nil {
		return f, err
	}
	r, _ := reply.([]any)
	if len(r) == 0 {
		return f, fmt.Errorf("%w: reply %v of freeze.lua", ErrUnknown, reply)
	}
	f.mine, f.other = r[0] == int64(2) && freeze, r[0] == int64(1)
	if f.mine {
		us, _ := r[1].(int64)
		packed, _ := r[2].(string)
		f.now = time.UnixMicro(us)
		f.meta, err = parseMeta(packed)
	}
	return f, err
}

// readLedger replays the ledger up to its checkpoint.
func readLedger(ctx context.Context, l Ledger, name string) (at string, r *replay, err error) {
	at, kept, _, err := l.Levels(ctx, name)
	if err != nil {
		return "", nil, fmt.Errorf("levels of the ledger: %w", err)
	}
	if !entryID.MatchString(at) {
		return "", nil, fmt.Errorf("%w: the ledger has nothing of this activity", ErrInvalid)
	}
	r = newReplay()
	for e, err := range l.Entries(ctx, name) {
		if err != nil {
			return "", nil, fmt.Errorf("entries of the ledger: %w", err)
		}
		if idLess(at, e.ID) {
			return "", nil, fmt.Errorf("%w: the ledger went on while it was read", ErrMoved)
		}
		held := Entry{ID: e.ID, At: e.At, Hold: e.Hold}
		for _, o := range e.Ops {
			r.apply(o, e)
			if o.Kind == OpReserve {
				held.Ops = append(held.Ops, o)
			}
		}
		if len(held.Ops) > 0 {
			r.holds = append(r.holds, held)
		}
	}
	for sku, l := range kept {
		got, ok := r.levels[sku]
		if l.Version = 0; !ok || got.Level != l {
			return "", nil, fmt.Errorf("%w: the ledger keeps %+v of sku %q, and its ops add up to something else", ErrInvalid, l, sku)
		}
	}
	return at, r, nil
}

// mergeJournal takes in what Redis has beyond the ledger, and returns what cannot be.
// The ops that can get entries of their own after at.
func (a *Activity) mergeJournal(ctx context.Context, r *replay, at string) (lost []Op, err error) {
	prev := at
	for e, err := range a.Entries(ctx, "") {
		if err != nil {
			return nil, err
		}
		kept := Entry{Prev: prev, At: e.At, Hold: e.Hold}
		for _, o := range e.Ops {
			switch fits, known := r.judge(&o); {
			case fits:
				r.apply(o, e)
				kept.Ops = append(kept.Ops, o)
			case !known:
				lost = append(lost, o)
			}
		}
		if len(kept.Ops) > 0 {
			kept.ID = nextID(prev)
			prev = kept.ID
			r.added = append(r.added, kept)
		}
	}
	return lost, nil
}

// A made is a new activity on its way.
type made struct {
	keys      []string // levels, journal, holds, limits, orders
	gen       int64
	sinks     string
	crossings []any
}

// buildKeep is how long the keys of a Rebuild stay that nobody finishes.
const buildKeep = time.Hour

// build writes r beside the activity.
func (a *Activity) build(ctx context.Context, r *replay, at string, f frozen, token string) (*made, error) {
	now := f.now
	m := &made{gen: f.meta.gen, sinks: at + " - "}
	for _, kind := range []string{"levels", "journal", "holds", "limits", "orders"} {
		m.keys = append(m.keys, a.keys.levels+":"+token+":"+kind)
	}
	before, err := a.Stock(ctx)
	if err != nil {
		return nil, err
	}
	var events []Op
	m.crossings, events = r.version(before, now.UnixMicro())
	if len(events) > 0 {
		prev := at
		if len(r.added) > 0 {
			prev = r.added[len(r.added)-1].ID
		}
		r.added = append(r.added, Entry{ID: nextID(prev), Prev: prev, At: now, Ops: events})
	}

	w := &writer{}
	due, last := writeJournal(w, m.keys[1], r, at)
	open := int64(0)
	for id, o := range r.orders {
		field := strconv.Itoa(len(id)) + ":" + id
		switch {
		case o.state == 'R':
			open++
			w.set(m.keys[2], field, o.record())
		case now.Sub(o.at) < a.opts.Retention:
			w.set(m.keys[4], field, o.record())
		}
	}
	for id, o := range r.restocks {
		if now.Sub(o.at) < a.opts.Retention {
			w.set(m.keys[4], strconv.Itoa(len(id))+"+"+id, o.record())
		}
	}
	for field, n := range r.uses(a.opts) {
		w.set(m.keys[3], field, strconv.FormatInt(n, 10))
	}
	for sku, l := range r.levels {
		w.set(m.keys[0], ":"+sku, fmt.Sprintf("%d %d %d %d %d", l.Left, l.Reserved, l.Sold, l.initial, l.Version))
	}
	w.set(m.keys[0], "@", fmt.Sprintf("%d %d %d %d %d 0-0 %s", m.gen, now.UnixMilli(), now.UnixMicro(), due, open, last))
	for _, k := range m.keys {
		w.commands = append(w.commands, []any{"pexpire", k, buildKeep.Milliseconds()})
	}
	if err := w.flush(ctx, a.rdb); err != nil {
		return nil, a.readError(err)
	}
	return m, nil
}

// writeJournal writes the stream: what the schedule of holds needs of the ledger's
// entries, the entry at, from which sinks go on, and what was added. It returns when
// the first hold is due, in ms, and the last entry.
func writeJournal(w *writer, key string, r *replay, at string) (due int64, last string) {
	last = "0-0"
	anchored := false
	add := func(e Entry, text []byte) {
		hold := e.Hold.Milliseconds()
		w.add(key, e.ID, last, e.At.UnixMilli(), hold, text)
		if hold > 0 && due == 0 {
			due = e.At.UnixMilli() + hold
		}
		last = e.ID
		anchored = anchored || e.ID == at
	}
	for _, e := range r.holds {
		var text []byte
		for _, o := range e.Ops {
			if r.orders[o.ID].state == 'R' {
				text = appendOp(text, o)
			}
		}
		if len(text) > 0 {
			add(e, text)
		}
	}
	if !anchored {
		add(Entry{ID: at, At: idTime(at)}, nil)
	}
	for _, e := range r.added {
		var text []byte
		reserves := false
		for _, o := range e.Ops {
			text = appendOp(text, o)
			reserves = reserves || o.Kind == OpReserve
		}
		if !reserves {
			e.Hold = 0
		}
		add(e, text)
	}
	return due, last
}

func (a *Activity) install(ctx context.Context, m *made, token string) error {
	args := append([]any{token, m.gen, m.sinks}, m.crossings...)
	reply, err := rebuildScript.Run(ctx, a.rdb, script.Call{Keys: slices.Concat(a.keys.all, m.keys), Args: args})
	if err != nil {
		return err
	}
	if reply != int64(1) {
		return fmt.Errorf("%w: another Rebuild was begun", ErrMoved)
	}
	return nil
}

// A writer collects writes and sends them in pipelines.
type writer struct{ commands [][]any }

func (w *writer) set(key, field, value string) {
	w.commands = append(w.commands, []any{"hset", key, field, value})
}

func (w *writer) add(key, id, prev string, at, hold int64, ops []byte) {
	w.commands = append(w.commands, []any{"xadd", key, id, "p", prev, "t", at, "h", hold, "o", ops})
}

func (w *writer) flush(ctx context.Context, rdb redis.UniversalClient) error {
	for part := range slices.Chunk(w.commands, 1000) {
		pipe := rdb.Pipeline()
		for _, c := range part {
			pipe.Do(ctx, c...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

package stock

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
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
// that fails leaves the activity halted, but for buckets that it was done with, and can be
// made again, by any process; one whose process died leaves it unavailable until then. What
// it may have undone before it failed it returns with the error: the next one may not know
// of it any more, or return some of it again. Of several at once one works and the others
// wait for it, until they have not heard of it for a minute and take it for dead. Where
// there is nothing to do, as then, it returns nil.
//
// Other sinks than the ledger have to be brought to its state before they go on. The
// limits per user are counted anew under these Options. A cancel that came before its
// order, and the rest of a partial order that got less than it asked for, are not in a
// ledger: the first is forgotten, a retry of the second is ErrConflict.
//
// It reads the ledger and the journal whole, and takes memory for every order.
func (a *Activity) Rebuild(ctx context.Context, l Ledger) (lost []Op, err error) {
	if l == nil {
		return nil, fmt.Errorf("%w: Rebuild of activity %q without a ledger", ErrInvalid, a.name)
	}
	token := a.nonce + strconv.FormatUint(a.seq.Add(1), 36)
	fail := func(err error) ([]Op, error) {
		return nil, fmt.Errorf("stock: activity %q: rebuild: %w", a.name, err)
	}
	done := false
	defer func() {
		if !done {
			// Orders are refused still; confirms and cancels go on again.
			err = errors.Join(err, together(a.wholes(), func(b *Activity) error {
				_, err := b.fork(context.WithoutCancel(ctx), token, "thaw")
				return err
			}))
		}
	}()
	parts, err := a.freezeAll(ctx, token)
	if err != nil {
		return fail(err)
	}
	if parts == nil {
		done = true
		return nil, nil
	}
	work, rest := a.stayFrozen(ctx, token)
	defer rest()
	for _, p := range parts {
		if err := p.read(work, l); err != nil {
			return fail(cmp.Or(context.Cause(work), err))
		}
	}
	undone, err := merge(parts)
	if err != nil {
		return fail(err)
	}
	for _, p := range parts {
		if err := p.build(work, parts, token); err != nil {
			return fail(cmp.Or(context.Cause(work), err))
		}
	}
	// The first bucket last: as long as it is frozen, other Rebuilds wait.
	for i, p := range slices.Backward(parts) {
		if i == 0 {
			rest()
		}
		if err := p.install(ctx, token); err != nil {
			_, err = fail(err)
			return undone, err
		}
		a.opts.Logger.Warn("stock: the activity was rebuilt from a ledger", "activity", a.name, "bucket", p.a.bucket,
			"orders", len(p.r.orders), "entries kept beyond the ledger", len(p.r.added))
	}
	done = true
	return undone, nil
}

// stayFrozen lets other Rebuilds hear of this one, until rest is called. The context it
// returns ends when one has taken over all the same.
func (a *Activity) stayFrozen(ctx context.Context, token string) (work context.Context, rest func()) {
	work, over := context.WithCancelCause(ctx)
	beat, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(beat, rebuildDead/6); beat.Err() == nil; sleep(beat, rebuildDead/6) {
			// An error may pass; if it does not, it is that of the work too.
			if f, err := a.wholes()[0].fork(beat, token, "stay"); err == nil && f.state != forkFrozen {
				over(errOvertaken)
			}
		}
	})
	return work, func() { stop(); wg.Wait(); over(nil) }
}

var errOvertaken = fmt.Errorf("%w: another Rebuild was begun", ErrMoved)

const (
	rebuildDead = time.Minute // a Rebuild that is not heard of is taken for dead
	rebuildLook = 250 * time.Millisecond
)

// What fork answers.
const (
	forkNone   = int64(0)
	forkOther  = int64(1) // another Rebuild is at work
	forkFrozen = int64(2) // by this one
	forkHalted = int64(3)
)

// A frozen is what fork found.
type frozen struct {
	state int64
	now   time.Time // where it is frozen by this token, as is
	meta  meta      // this, as it stays
	last  string    // and the journal's last entry, "0-0" if it has none
}

// fork does one of the things that freeze.lua can do.
func (a *Activity) fork(ctx context.Context, token, what string) (f frozen, err error) {
	reply, err := freezeScript.Run(ctx, a.rdb, script.Call{
		Keys: []string{a.keys.levels, a.keys.stream}, Args: []any{token, what, int64(rebuildDead / time.Second)},
	})
	if err != nil {
		return f, err
	}
	r, _ := reply.([]any)
	if len(r) == 0 {
		return f, fmt.Errorf("%w: reply %v of freeze.lua", ErrUnknown, reply)
	}
	f.state, _ = r[0].(int64)
	if f.state == forkFrozen && len(r) == 4 {
		us, _ := r[1].(int64)
		packed, _ := r[2].(string)
		f.now = time.UnixMicro(us)
		f.last, _ = r[3].(string)
		f.meta, err = parseMeta(packed)
	}
	return f, err
}

// freezeAll freezes the activity, or all its buckets if one forked. It returns nil if
// none did, and waits for another Rebuild.
func (a *Activity) freezeAll(ctx context.Context, token string) ([]*part, error) {
	for {
		parts, wait, err := a.tryFreeze(ctx, token)
		if err != nil || !wait {
			return parts, err
		}
		sleep(ctx, rebuildLook)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (a *Activity) tryFreeze(ctx context.Context, token string) (parts []*part, wait bool, err error) {
	if a.buckets != nil {
		forked := false
		for _, b := range a.buckets {
			f, err := b.fork(ctx, token, "look")
			if err != nil || f.state == forkOther {
				return nil, true, err
			}
			forked = forked || f.state == forkHalted
		}
		if !forked {
			return nil, false, nil
		}
		// A Rebuild that fails leaves them so.
		for _, b := range a.buckets {
			if _, err := b.fork(ctx, token, "halt"); err != nil {
				return nil, false, err
			}
		}
	}
	// In this order: whoever has the first gets them all.
	for _, b := range a.wholes() {
		f, err := b.fork(ctx, token, "freeze")
		if err != nil || f.state != forkFrozen {
			return nil, f.state == forkOther || a.buckets != nil, err
		}
		parts = append(parts, &part{a: b, f: f, peers: len(a.wholes())})
	}
	return parts, false, nil
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

// build writes the part beside what it replaces.
func (p *part) build(ctx context.Context, parts []*part, token string) error {
	a, r, now := p.a, p.r, p.f.now
	m := &p.made
	m.gen, m.sinks = p.f.meta.gen, p.at+" - "
	for _, kind := range []string{"levels", "journal", "holds", "limits", "orders"} {
		m.keys = append(m.keys, a.keys.levels+":"+token+":"+kind)
	}
	before, err := a.Stock(ctx)
	if err != nil {
		return err
	}
	var events []Op
	m.crossings, events = r.version(before, now.UnixMicro())
	if len(events) > 0 {
		p.add(now, 0, events...)
	}

	w := &writer{keep: buildKeep}
	due, last := writeJournal(w, m.keys[1], r, p.at)
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
	for i, other := range parts {
		if other != p {
			w.set(m.keys[0], ">"+strconv.Itoa(i), fmt.Sprintf("%d .", p.numbers[i]))
			w.set(m.keys[0], "<"+strconv.Itoa(i), fmt.Sprintf("%d ", other.numbers[a.bucket]))
		}
	}
	if err := w.flush(ctx, a.rdb); err != nil {
		return a.readError(err)
	}
	return nil
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
	if !anchored && at != "0-0" {
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

func (p *part) install(ctx context.Context, token string) error {
	m := &p.made
	args := append([]any{token, m.gen, m.sinks}, m.crossings...)
	reply, err := rebuildScript.Run(ctx, p.a.rdb, script.Call{Keys: slices.Concat(p.a.keys.all, m.keys), Args: args})
	if err != nil {
		return err
	}
	if reply != int64(1) {
		return errOvertaken
	}
	return nil
}

// A writer collects writes and sends them in pipelines. Keys are kept for a while from
// their first write on.
type writer struct {
	keep     time.Duration
	seen     map[string]bool
	commands [][]any
}

func (w *writer) write(key string, command ...any) {
	w.commands = append(w.commands, command)
	if !w.seen[key] {
		if w.seen == nil {
			w.seen = map[string]bool{}
		}
		w.seen[key] = true
		w.commands = append(w.commands, []any{"pexpire", key, w.keep.Milliseconds()})
	}
}

func (w *writer) set(key, field, value string) { w.write(key, "hset", key, field, value) }

func (w *writer) add(key, id, prev string, at, hold int64, ops []byte) {
	w.write(key, "xadd", key, id, "p", prev, "t", at, "h", hold, "o", ops)
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

package stock

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed read.lua
	readLua string
	//go:embed note.lua
	noteLua string
	//go:embed settled.lua
	settledLua string
	//go:embed moved.lua
	movedLua string
	//go:embed settle.lua
	settleLua string

	settleScript = script.New(script.Token, readLua, noteLua, settledLua, movedLua, settleLua)
)

// An op is one call as settle.lua takes it.
type op struct {
	verb   byte   // D R P Q orders, C confirm, X cancel, S status, A restock, L load; G T Z of moved.lua
	text   string // verb field body: equal for equal calls
	field  string // of the record; a part of text
	body   string // what the id stands for; a part of text
	id     string
	user   string
	items  []Item
	one    [1]Item // where the usual items are
	reason string
	move   *moving
}

// A moving is what an op of an activity with buckets has more; see moves.go. No op of
// another has one.
type moving struct {
	head  string // what stands in the shape of G T Z before the items
	must  []bool // by item: a partial order does not do without it
	first []*op  // settled just before this one, in the same call
	alone bool   // the answer to another call is no answer to this one
}

// newOp writes the call down once, as the journal will have it; field and body are
// parts of that string. The separator keeps order ids (':') and restock ids ('+')
// apart.
func newOp(verb, separator byte, id, user string, items []Item) *op {
	size := 16 + len(id) + len(user)
	for i := range items {
		size += len(items[i].SKU) + 12
	}
	var small [128]byte // the usual order makes no garbage but its text
	b := small[:0]
	if size > len(small) {
		b = make([]byte, 0, size)
	}
	b = append(b, verb)
	b = strconv.AppendInt(b, int64(len(id)), 10)
	b = append(b, separator)
	b = append(b, id...)
	body := len(b)
	if items == nil {
		b = append(b, '-')
	} else {
		b = append(b, verb)
	}
	b = appendNetstring(b, user)
	b = appendItems(b, items)
	text := string(b)
	o := &op{verb: verb, id: id, text: text, field: text[1:body], body: text[body:], user: user}
	// The caller may leave, and change its slice, while o is on its way.
	if len(items) == 1 {
		o.one[0] = items[0]
		o.items = o.one[:]
	} else {
		o.items = slices.Clone(items)
	}
	return o
}

// An outcome is the answer to one op.
type outcome struct {
	code   int64
	record string // of the id, where the script sent it
	sku    string
	a, b   int64 // figures of a refusal
	us     int64 // server time
	sent   time.Time
	// durable: replicas had it
	durable bool
	err     error // this op alone failed
}

// do settles o together with the calls of other goroutines.
func (a *Activity) do(ctx context.Context, o *op) (Result, error) {
	out, err := a.send(ctx, o)
	if err != nil {
		return Result{}, err
	}
	return a.result(o, out)
}

// send is do without telling what the outcome means.
func (a *Activity) send(ctx context.Context, o *op) (outcome, error) {
	id := o.text
	if o.reason != "" || o.move != nil && o.move.alone {
		id = "" // two reasons are two calls
	}
	size := len(o.text) + 24
	if o.move != nil {
		for _, f := range o.move.first {
			size += len(f.text) + 24
		}
	}
	out, err := a.group.Do(ctx, a.lane(o), id, o, size)
	if err == nil {
		err = out.err
	}
	if err != nil {
		return outcome{}, a.failure(o, err)
	}
	if out.code != codeNotFound { // an attempt that is still on its way may yet settle it
		a.doubts.clear(o.field)
	}
	return out, nil
}

// lane returns the queue that o waits in. Confirms and cancels do not stand behind
// thousands of orders: their holds might end meanwhile.
func (a *Activity) lane(o *op) string {
	switch {
	case a.opts.Unmerged:
		return o.text
	case o.verb == 'C' || o.verb == 'X' || o.verb == 'S':
		return "settled orders"
	case o.move != nil && o.move.alone:
		// It proves something only as long as little time passes between two looks.
		return "orders again"
	}
	return "orders"
}

// flush settles a batch with one script call.
func (a *Activity) flush(ctx context.Context, _ string, batch []*op) ([]outcome, error) {
	nonce := a.callNonce()
	out, err := a.settle(ctx, batch, nonce, 0)
	var reply redis.Error
	if err == nil || len(batch) == 1 || !errors.Is(err, ErrUnknown) || !errors.As(err, &reply) {
		return out, err
	}
	// The script failed on the way, over one of the calls perhaps: settled one by
	// one, under the same tokens, the others get their answers.
	out = make([]outcome, 0, len(batch))
	for i := range batch {
		one, err := a.settle(ctx, batch[i:i+1], nonce, i)
		if err != nil {
			one = []outcome{{err: err}}
		}
		out = append(out, one[0])
	}
	return out, nil
}

// sweep releases the holds that came due, a few hundred at most, and returns the
// server's time and when the next hold is due, zero if there is none.
func (a *Activity) sweep(ctx context.Context) (now, due time.Time, err error) {
	call := script.Call{Keys: a.keys.all, Args: a.arguments(nil, a.callNonce(), 0), Resend: 1}
	reply, err := settleScript.Run(ctx, a.rdb, call)
	if err != nil {
		return now, due, err
	}
	us, dueMS, _, err := a.unpack(reply, 0, time.Now())
	if dueMS > 0 {
		due = time.UnixMilli(dueMS)
	}
	return time.UnixMicro(us), due, err
}

func (a *Activity) settle(ctx context.Context, batch []*op, nonce string, before int) ([]outcome, error) {
	sent := time.Now()
	call := script.Call{Keys: a.keys.all, Args: a.arguments(batch, nonce, before), Resend: 1}
	// Who only looks would wait for replicas that are missing, and for nothing.
	if a.opts.WaitReplicas > 0 && slices.ContainsFunc(batch, func(o *op) bool { return o.verb != 'Z' && o.verb != 'S' }) {
		call.Wait = &script.Wait{Replicas: a.opts.WaitReplicas, Timeout: replicaPatience}
	}
	reply, err := settleScript.Run(ctx, a.rdb, call)
	if err != nil {
		return nil, err
	}
	us, _, verdicts, err := a.unpack(reply, len(batch), sent)
	if err != nil {
		return nil, err
	}
	out := make([]outcome, len(batch))
	for i, v := range verdicts {
		out[i] = parseVerdict(v)
		out[i].us, out[i].sent = us, sent
		// A replay wrote nothing: WAIT proves nothing of it.
		out[i].durable = call.Wait != nil && call.Wait.Met && out[i].code == codeDone
		if out[i].code == codeInsufficient && out[i].a == 0 {
			a.memory.seen(out[i].sku, out[i].b, 0, sent)
		}
	}
	return out, nil
}

// fixedArgs are the arguments 6 to 14 of settle.lua.
func (a *Activity) fixedArgs() []any {
	ms := func(t time.Time) string {
		if t.IsZero() {
			return "0"
		}
		return strconv.FormatInt(t.UnixMilli(), 10)
	}
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	o := a.opts
	return []any{
		strconv.FormatInt(o.Hold.Milliseconds(), 10), strconv.FormatInt(o.Retention.Milliseconds(), 10),
		ms(o.OpensAt), ms(o.ClosesAt),
		strconv.FormatInt(o.UserLimit, 10), strconv.FormatInt(o.UserSKULimit, 10),
		flag(o.EligibleOnly), flag(a.usersGiven()), strconv.FormatInt(o.MaxLag.Milliseconds(), 10),
	}
}

func (a *Activity) usersGiven() bool {
	return a.opts.EligibleOnly || a.opts.UserLimit > 0 || a.opts.UserSKULimit > 0
}

// arguments are ARGV of settle.lua for the ops of batch, which follow before
// others under the same nonce. Each SKU is named once. What an op has is passed
// by pointer: a string in an interface would be allocated once more.
func (a *Activity) arguments(batch []*op, nonce string, before int) []any {
	index := make(map[string]int, 4)
	skus := make([]any, 0, 4)
	shapes := make([]any, len(batch))
	var buf []byte
	shape := new(string) // of the op before: most of a batch are alike
	for i, o := range batch {
		buf = append(buf[:0], o.verb)
		if o.verb == 'X' {
			buf = append(buf, o.reason...)
		}
		var must []bool
		if o.move != nil {
			buf, must = append(buf, o.move.head...), o.move.must
		}
		for j, it := range o.items {
			k, ok := index[it.SKU]
			if !ok {
				k = len(skus) + 1
				index[it.SKU] = k
				skus = append(skus, ":"+it.SKU)
			}
			buf = strconv.AppendInt(buf, int64(k), 10)
			buf = append(buf, 'x')
			buf = strconv.AppendInt(buf, it.Qty, 10)
			buf = append(buf, ';')
			if must != nil && must[j] {
				buf = append(buf, '!')
			}
		}
		if string(buf) != *shape {
			s := string(buf)
			shape = &s
		}
		shapes[i] = shape
	}
	args := make([]any, 0, 5+len(a.args)+len(skus)+4*len(batch))
	args = append(args, "0", nonce, before, len(batch), len(skus))
	args = append(args, a.args...)
	args = append(args, skus...)
	for _, o := range batch {
		args = append(args, &o.field)
	}
	for _, o := range batch {
		args = append(args, &o.body)
	}
	args = append(args, shapes...)
	if a.usersGiven() {
		for _, o := range batch {
			args = append(args, &o.user)
		}
	}
	return args
}

// unpack takes settle.lua's reply apart and remembers the crossings it tells of.
func (a *Activity) unpack(reply any, n int, sent time.Time) (us, due int64, verdicts []any, err error) {
	r, ok := reply.([]any)
	if !ok || len(r) != 3+n {
		return 0, 0, nil, fmt.Errorf("%w: reply %v of settle.lua for %d ops", ErrUnknown, reply, n)
	}
	us, _ = r[0].(int64)
	due, _ = r[1].(int64)
	crossings, _ := r[2].([]any)
	for i := 0; i+2 < len(crossings); i += 3 {
		sku, _ := crossings[i].(string)
		version, _ := crossings[i+1].(int64)
		left, _ := crossings[i+2].(int64)
		a.memory.seen(sku, version, left, sent)
	}
	return us, due, r[3:], nil
}

func newNonce() string { return rand.Text()[:12] + "-" }

// callNonce returns what names a call of settle.lua: a random number below 2^24, which ids
// of the journal end in, and what no other call has.
func (a *Activity) callNonce() string {
	b := strconv.AppendUint(make([]byte, 0, 40), mathrand.Uint64N(1<<24), 10)
	b = append(append(b, '.'), a.nonce...)
	return string(strconv.AppendUint(b, a.seq.Add(1), 36))
}

func isOOM(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && redis.HasErrorPrefix(reply, "OOM")
}

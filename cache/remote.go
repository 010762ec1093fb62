package cache

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/breaker"
	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed read.lua
	readLua string
	//go:embed lease.lua
	leaseLua string
	//go:embed fill.lua
	fillLua string
	//go:embed write.lua
	writeLua string
	//go:embed drop.lua
	dropLua string
	//go:embed fail.lua
	failLua string

	readScript  = script.New(script.Read, readLua)
	leaseScript = script.New(script.Token, leaseLua)
	fillScript  = script.New(script.Token, fillLua)
	writeScript = script.New(script.Token, writeLua)
	dropScript  = script.New(script.State, dropLua)
	failScript  = script.New(script.Token, failLua)
)

// scripts are those that change something. Calls of one script that wait at the
// same time share a round trip, and each has a lane of that name.
var scripts = map[string]*script.Script{
	"lease": leaseScript, "fill": fillScript, "write": writeScript, "drop": dropScript, "fail": failScript,
}

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

// The cool-down after a load that failed.
const (
	firstCool = 100 * time.Millisecond
	maxCool   = 5 * time.Second
	maxText   = 200 // bytes of an error's text that other processes are told
)

// remote is the level in Redis.
type remote struct {
	rdb      redis.UniversalClient
	opts     Options
	name     string // of the cache, as it stands before the names of keys
	channel  string
	oneSlot  bool // keys of many slots may stand in one script
	reads    *coalesce.Group[string, entry]
	writes   *coalesce.Group[script.Call, result]
	nonce    [4]byte
	calls    atomic.Uint64
	sequence *invalidations
	health   health
}

// An entry is what Redis had under a key. raw is empty if there was nothing.
type entry struct {
	us  int64 // server time
	raw string
	err error
}

type result struct {
	reply any
	err   error
}

func newRemote(rdb redis.UniversalClient, opts Options, name string) *remote {
	r := &remote{rdb: rdb, opts: opts, health: health{breaker.New()}}
	_, r.oneSlot = rdb.(*redis.Client)
	// A colon in the cache's name would make "a:b" with key "c" and "a" with key
	// "b:c" one entry.
	r.name = strings.NewReplacer("%", "%25", ":", "%3A").Replace(name) + ":"
	r.channel = key.New(opts.Prefix, "cache", layout, name).Key("bus")
	_, _ = rand.Read(r.nonce[:]) // never fails
	r.reads = coalesce.New(r.flushReads, coalesce.Options{MaxItems: 64})
	r.writes = coalesce.New(r.flushWrites, coalesce.Options{MaxItems: 64, MaxBytes: 256 << 10})
	return r
}

func (r *remote) close(ctx context.Context) error {
	return errors.Join(r.reads.Close(ctx), r.writes.Close(ctx))
}

// keys returns the keys of an entry and of its lease, which share a slot.
func (r *remote) keys(name string) (entry, lease string) {
	tag := key.New(r.opts.Prefix, "cache", layout, r.name+name).Tag()
	return tag + ":v", tag + ":l"
}

// token returns what no other call in any process has: the process's nonce and
// a count.
func (r *remote) token() string {
	var b [tokenSize]byte
	copy(b[:], r.nonce[:])
	binary.BigEndian.PutUint64(b[4:], r.calls.Add(1))
	return string(b[:])
}

// read returns what Redis has for name, together with others' reads.
func (r *remote) read(ctx context.Context, name string) (entry, error) {
	if err := r.health.allow(); err != nil {
		return entry{}, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	k, _ := r.keys(name)
	e, err := r.reads.Do(ctx, "", "", k, len(k))
	if err == nil {
		err = e.err
	}
	err = unsent(err)
	r.health.report(caller, err)
	return e, err
}

// readMany is read for many names, in one round trip, or one a node.
func (r *remote) readMany(ctx context.Context, names []string) ([]entry, error) {
	if err := r.health.allow(); err != nil {
		return nil, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	out := make([]entry, 0, len(names))
	for len(names) > 0 {
		n := min(len(names), 500)
		batch := make([]string, n)
		for i := range batch {
			batch[i], _ = r.keys(names[i])
		}
		es, err := r.flushReads(ctx, "", batch)
		for i := range es {
			if err == nil {
				err = es[i].err
			}
		}
		r.health.report(caller, err)
		if err != nil {
			return nil, err
		}
		out, names = append(out, es...), names[n:]
	}
	return out, nil
}

func (r *remote) flushReads(ctx context.Context, _ string, keys []string) ([]entry, error) {
	out := make([]entry, len(keys))
	if r.oneSlot {
		reply, err := readScript.Run(ctx, r.rdb, script.Call{Keys: keys})
		if err != nil {
			return nil, err
		}
		return out, decodeRead(reply, out)
	}
	calls := make([]script.Call, len(keys))
	for i := range keys {
		calls[i].Keys = keys[i : i+1]
	}
	replies, errs := readScript.RunMany(ctx, r.rdb, calls)
	for i := range out {
		if out[i].err = errs[i]; errs[i] == nil {
			out[i].err = decodeRead(replies[i], out[i:i+1])
		}
	}
	return out, nil
}

func decodeRead(reply any, out []entry) error {
	list, ok := reply.([]any)
	if !ok || len(list) != len(out)+1 {
		return fmt.Errorf("%w: read.lua returned %T of another shape", ErrUnknown, reply)
	}
	us, _ := list[0].(int64)
	for i := range out {
		out[i].us = us
		out[i].raw, _ = list[i+1].(string)
	}
	return nil
}

// do runs one call of a script together with others' calls, for at most limit,
// 0: as long as internal/script tries.
func (r *remote) do(ctx context.Context, lane string, call script.Call, size int, limit time.Duration) (any, error) {
	if err := r.health.allow(); err != nil {
		return nil, err
	}
	caller := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	res, err := r.writes.Do(ctx, lane, "", call, size)
	if err == nil {
		err = res.err
	}
	err = unsent(err)
	r.health.report(caller, err)
	return res.reply, err
}

// many runs calls of one script in one round trip, or one a node.
func (r *remote) many(ctx context.Context, lane string, calls []script.Call, limit time.Duration) ([]any, []error) {
	if err := r.health.allow(); err != nil {
		return make([]any, len(calls)), slices.Repeat([]error{err}, len(calls))
	}
	caller := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	replies, errs := scripts[lane].RunMany(ctx, r.rdb, calls)
	r.health.report(caller, errors.Join(errs...))
	return replies, errs
}

func (r *remote) flushWrites(ctx context.Context, lane string, batch []script.Call) ([]result, error) {
	replies, errs := scripts[lane].RunMany(ctx, r.rdb, batch)
	out := make([]result, len(batch))
	for i := range out {
		out[i] = result{replies[i], errs[i]}
	}
	return out, nil
}

// unsent says in this package's words how a shared call ended.
func unsent(err error) error {
	switch {
	case errors.Is(err, coalesce.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, coalesce.ErrUnsent):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, coalesce.ErrUnknown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// A grant is what lease.lua answers.
type grant struct {
	kind  int64 // see there
	entry entry // 1: what is there by now
	left  time.Duration
	text  string
}

const (
	granted int64 = iota
	changed
	held
	cooling
)

func (r *remote) leaseCall(name, token, seen string, steal bool) script.Call {
	k, l := r.keys(name)
	take := "0"
	if steal {
		take = "1"
	}
	lease := (r.opts.LoadTimeout + time.Second).Milliseconds()
	return script.Call{Keys: []string{k, l}, Args: []any{token, seen, lease, take}}
}

func (r *remote) lease(ctx context.Context, call script.Call) (grant, error) {
	reply, err := r.do(ctx, "lease", call, len(call.Keys[0])*2+64, r.opts.Timeout)
	if err != nil {
		return grant{}, err
	}
	return decodeGrant(reply)
}

// leaseMany is lease for many keys, in one round trip, or one a node.
func (r *remote) leaseMany(ctx context.Context, calls []script.Call) ([]grant, []error) {
	replies, errs := r.many(ctx, "lease", calls, r.opts.Timeout)
	grants := make([]grant, len(calls))
	for i, reply := range replies {
		if errs[i] == nil {
			grants[i], errs[i] = decodeGrant(reply)
		}
	}
	return grants, errs
}

func decodeGrant(reply any) (g grant, err error) {
	list, ok := reply.([]any)
	if !ok || len(list) == 0 {
		return g, fmt.Errorf("%w: lease.lua returned %T", ErrUnknown, reply)
	}
	g.kind, _ = list[0].(int64)
	switch {
	case g.kind == changed && len(list) >= 2:
		g.entry.us, _ = list[1].(int64)
		if len(list) > 2 { // a nil at the end is cut off
			g.entry.raw, _ = list[2].(string)
		}
	case g.kind == held && len(list) == 2:
		ms, _ := list[1].(int64)
		g.left = time.Duration(ms) * time.Millisecond
	case g.kind == cooling && len(list) == 3:
		ms, _ := list[1].(int64)
		g.left = time.Duration(ms) * time.Millisecond
		g.text, _ = list[2].(string)
	case g.kind != granted:
		return g, fmt.Errorf("%w: lease.lua returned another shape", ErrUnknown)
	}
	return g, nil
}

// A sealed is an entry on its way to Redis.
type sealed struct {
	head, tail  string
	fresh, soft time.Duration
	keep        time.Duration // in Redis
}

func (r *remote) fillCall(name, token, seen string, s sealed) script.Call {
	k, l := r.keys(name)
	how := "lease"
	switch r.opts.Mode {
	case AddRefill:
		how = "add"
	case Plain:
		how = "plain"
	}
	return script.Call{Keys: []string{k, l}, Args: []any{s.head, s.tail, token, s.keep.Milliseconds(), how, seen}}
}

// fill stores what was loaded and returns its version, 0 if it was refused.
func (r *remote) fill(ctx context.Context, name, token, seen string, s sealed) (int64, error) {
	reply, err := r.do(ctx, "fill", r.fillCall(name, token, seen, s), len(s.tail)+len(name)*2+128, r.opts.Timeout)
	version, _ := reply.(int64)
	return version, err
}

// write stores what a writer says and returns its version, 0 if add is set and
// something was there.
func (r *remote) write(ctx context.Context, name string, s sealed, token string, add bool) (int64, error) {
	k, l := r.keys(name)
	only := "0"
	if add {
		only = "1"
	}
	seq, message := r.sequence.compose(name)
	call := script.Call{Keys: []string{k, l}, Args: []any{s.head, s.tail, token, s.keep.Milliseconds(), r.channel, message, only}}
	reply, err := r.do(ctx, "write", call, len(s.tail)+len(name)*3+128, 0)
	version, _ := reply.(int64)
	r.sequence.settle(seq, err == nil && version != 0)
	return version, err
}

// drop deletes entries and returns an error for each. With loaded, only those that a
// load made, and what is being loaded now is not stored.
func (r *remote) drop(ctx context.Context, names []string, loaded bool) []error {
	calls, seqs := make([]script.Call, len(names)), make([]uint64, len(names))
	only := "0"
	if loaded {
		only = "1"
	}
	for i, name := range names {
		k, l := r.keys(name)
		var message string
		seqs[i], message = r.sequence.compose(name)
		calls[i] = script.Call{Keys: []string{k, l}, Args: []any{r.channel, message, only}}
	}
	replies, errs := make([]any, 1), make([]error, 1)
	if len(names) == 1 {
		replies[0], errs[0] = r.do(ctx, "drop", calls[0], len(names[0])*3+128, 0)
	} else {
		replies, errs = r.many(ctx, "drop", calls, 0)
	}
	for i, err := range errs {
		r.sequence.settle(seqs[i], err == nil && replies[i] != int64(-1))
	}
	return errs
}

// fail ends a lease, with a cool-down if cool, and returns how long that is.
func (r *remote) fail(ctx context.Context, name, token string, cool bool, text string) (time.Duration, error) {
	_, l := r.keys(name)
	first := int64(0)
	if cool {
		first = firstCool.Milliseconds()
	}
	call := script.Call{Keys: []string{l}, Args: []any{token, first, maxCool.Milliseconds(), 800 + mathrand.IntN(201), text[:min(len(text), maxText)]}}
	reply, err := r.do(ctx, "fail", call, len(name)*2+maxText+64, r.opts.Timeout)
	ms, _ := reply.(int64)
	return time.Duration(ms) * time.Millisecond, err
}

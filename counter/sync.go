package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed sync.lua
var syncLua string

//go:embed toggle.lua
var toggleLua string

var (
	syncScript   = script.New(script.Token, syncLua)
	toggleScript = script.New(script.Token, toggleLua)
)

// AddSync stores delta, from -2^32 to 2^32, before it returns, and returns the
// field's new total without what is pending in this or another process. It is for
// increments that may not be lost with the process.
//
// A lost reply is resolved by asking again under the call's own token, for five
// seconds; then ErrUnknown. Making the call again after ErrUnknown may count twice.
// A total that would leave ±2^53 is ErrInvalid. One round trip, two for a field that
// spreads; the token takes some 100 bytes for a minute.
func (c *Counter) AddSync(ctx context.Context, id int64, field string, delta int64) (total int64, err error) {
	f, err := c.field(field)
	if err != nil {
		return 0, err
	}
	if delta < -maxDelta || delta > maxDelta {
		return 0, badDelta(delta)
	}
	n := c.home(id, f)
	s := &c.shards[shardOf(n)]
	reply, err := c.answered(ctx, syncScript, s, []string{s.keyOf(n)}, field, delta)
	if err != nil {
		return 0, fmt.Errorf("counter: object %d: %w", id, err)
	}
	text, _ := reply.(string)
	if total, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, fmt.Errorf("counter: object %d: %w: unexpected reply %v", id, ErrUnknown, reply)
	}
	if n.sub > 0 {
		if total, err = c.sum(ctx, id, f); err != nil {
			return 0, fmt.Errorf("counter: object %d: counted, but the total is not known: %w", id, err)
		}
	}
	if total < 0 && !c.schema.Fields[f].Signed {
		total = 0
	}
	return total, nil
}

// Toggle puts a member, 1 to 256 bytes, on or off for a field of an object and
// reports whether that changed anything; the field's total goes up or down by one
// with it, in the same step, also when the reply was lost and the call repeated. Give
// such a field no Add of its own.
//
// Members that are on are kept in a set, some 50 bytes each with a name of 11. One round
// trip; a change keeps a token of 100 bytes for a minute. Errors are those of AddSync.
// After ErrUnknown the same call can be made again: the total stays right, and only
// changed may be false for a change that the first call made.
func (c *Counter) Toggle(ctx context.Context, id int64, field, member string, on bool) (changed bool, err error) {
	if _, err := c.field(field); err != nil {
		return false, err
	}
	if member == "" || len(member) > maxMember {
		return false, fmt.Errorf("%w: member of %d bytes, want 1 to %d", ErrInvalid, len(member), maxMember)
	}
	n := name{id: id}
	s := &c.shards[shardOf(n)]
	want := 0
	if on {
		want = 1
	}
	members := s.space.Key("m:" + strconv.FormatInt(id, 10) + ":" + field)
	reply, err := c.answered(ctx, toggleScript, s, []string{s.keyOf(n), members}, field, member, want)
	if err != nil {
		return false, fmt.Errorf("counter: object %d: %w", id, err)
	}
	return reply == int64(1), nil
}

// answered runs a script under a token of its own.
func (c *Counter) answered(ctx context.Context, sc *script.Script, s *shard, keys []string, args ...any) (any, error) {
	if c.closed.Load() {
		return nil, ErrClosed
	}
	token := s.space.Key("a:" + c.nonce + strconv.FormatUint(c.calls.Add(1), 36))
	reply, err := sc.Run(ctx, c.rdb, script.Call{
		Keys: append([]string{token}, keys...),
		Args: append([]any{answerTTL.Milliseconds()}, args...),
	})
	if refused := new(script.Refused); errors.As(err, &refused) {
		return nil, fmt.Errorf("%w: total would leave ±2^53: %w", ErrInvalid, err)
	}
	return reply, err
}

// sum returns what is stored of a field over all keys it spreads over.
func (c *Counter) sum(ctx context.Context, id int64, field int) (total int64, err error) {
	var calls []script.Call
	for sub := range c.schema.Fields[field].Spread + 1 {
		n := name{id, sub}
		s := &c.shards[shardOf(n)]
		calls = append(calls, script.Call{Keys: []string{s.token, s.keyOf(n)}, Args: []any{c.schema.Fields[field].Name}})
	}
	replies, errs := readScript.RunMany(ctx, c.rdb, calls)
	for i := range replies {
		if errs[i] != nil {
			return 0, unread(errs[i])
		}
		reply, _ := replies[i].([]any)
		if len(reply) == 2 {
			values, _ := reply[1].([]any)
			if len(values) == 1 {
				text, _ := values[0].(string)
				n, _ := strconv.ParseInt(text, 10, 64) // nothing there is 0
				total += n
			}
		}
	}
	return total, nil
}

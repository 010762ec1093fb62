package counter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/coalesce"
	"github.com/spillway-go/spillway/internal/script"
)

//go:embed sync.lua
var syncLua string

//go:embed toggle.lua
var toggleLua string

// How members are remembered is a prelude of toggle.lua.
var (
	//go:embed set.lua
	setLua string
	//go:embed bits.lua
	bitsLua string
)

// bitmapBits is how many members share a bitmap: a member makes one of 8 KB at most.
const bitmapBits = 1 << 16

// AddSync stores delta, from -2^32 to 2^32, before it returns, and returns the
// field's new total without what is pending in this or another process. It is for
// increments that may not be lost with the process.
//
// A lost reply is resolved by asking again under the call's own token, for five
// seconds; then ErrUnknown. Making the call again after ErrUnknown may count twice.
// A total that would leave ±2^53 is ErrInvalid. One round trip, which calls that wait at
// the same time share, and another for a field that spreads; the token takes some 100
// bytes for a minute. A call whose ctx ends leaves at once.
func (c *Counter) AddSync(ctx context.Context, id int64, field string, delta int64) (total int64, err error) {
	f, err := c.field(field)
	if err != nil {
		return 0, err
	}
	if delta < -maxDelta || delta > maxDelta {
		return 0, badDelta(delta)
	}
	n := c.home(id, f)
	s := c.shardOf(n)
	reply, err := c.answered(ctx, c.syncs, s, id, c.keysOf(s, n), c.cell(n, f), delta)
	if err != nil {
		return 0, fmt.Errorf("counter: schema %q, object %d: %w", c.schema.Name, id, err)
	}
	text, _ := reply.(string)
	if total, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, fmt.Errorf("counter: schema %q, object %d: %w: unexpected reply %v", c.schema.Name, id, ErrUnknown, reply)
	}
	if n.sub > 0 {
		if total, err = c.sum(ctx, id, f); err != nil {
			return 0, fmt.Errorf("counter: schema %q, object %d: counted, but the total is not known: %w", c.schema.Name, id, err)
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
// such a field no Add of its own. ToggleAt takes less for members with numbers.
//
// Members that are on are kept in a set, some 50 bytes each with a name of 11. One
// round trip, shared as AddSync's; a change keeps a token of 100 bytes for a minute.
// Errors are those of AddSync. After ErrUnknown the same call can be made again: the
// total stays right, and only changed may be false for a change that the first call
// made.
func (c *Counter) Toggle(ctx context.Context, id int64, field, member string, on bool) (changed bool, err error) {
	if err := checkMember(member); err != nil {
		return false, err
	}
	return c.toggle(ctx, c.toggles, id, field, setOf(id, field), member, on)
}

// ToggleAt is Toggle for members that are numbered without large gaps: they are kept in
// bitmaps, a bit a member, each for 65,536 of them and as long as the highest number in
// it that was ever on needs. From one member on in 400 that is less than Toggle's set. A
// field has either Toggle or ToggleAt: neither sees the other's members.
func (c *Counter) ToggleAt(ctx context.Context, id int64, field string, member uint32, on bool) (changed bool, err error) {
	return c.toggle(ctx, c.togglesAt, id, field, bitmapOf(id, field, member), member%bitmapBits, on)
}

func (c *Counter) toggle(ctx context.Context, g *group, id int64, field, members string, member any, on bool) (changed bool, err error) {
	f, err := c.field(field)
	if err != nil {
		return false, err
	}
	n := name{id: id}
	s := c.shardOf(n)
	want := 0
	if on {
		want = 1
	}
	reply, err := c.answered(ctx, g, s, id, append(c.keysOf(s, n), s.space.Key(members)), c.cell(n, f), member, want)
	if err != nil {
		return false, fmt.Errorf("counter: schema %q, object %d: %w", c.schema.Name, id, err)
	}
	return reply == int64(1), nil
}

// A group runs a script for the calls that wait at the same time in one round trip.
type group = coalesce.Group[script.Call, answer]

// An answer is what became of one of them.
type answer struct {
	reply any
	err   error
}

// newGroup returns a group. Its calls keep their tokens: each is resolved by itself,
// and two of one flight that are about the same counter are two.
func newGroup(rdb redis.UniversalClient, sc *script.Script) *group {
	return coalesce.New(func(ctx context.Context, _ string, calls []script.Call) ([]answer, error) {
		replies, errs := sc.RunMany(ctx, rdb, calls)
		answers := make([]answer, len(calls))
		for i := range answers {
			answers[i] = answer{replies[i], errs[i]}
		}
		return answers, nil
	}, coalesce.Options{})
}

// answered runs a script under a token of its own, when the object's block is there.
func (c *Counter) answered(ctx context.Context, g *group, s *shard, id int64, keys []string, args ...any) (any, error) {
	if c.closed.Load() {
		return nil, ErrClosed
	}
	token := s.space.Key("a:" + c.nonce + strconv.FormatUint(c.calls.Add(1), 36))
	call := script.Call{
		Keys: append([]string{token}, keys...),
		Args: append([]any{answerTTL.Milliseconds(), c.blockLen()}, args...),
	}
	for range maxReturns {
		a, err := g.Do(ctx, s.lane, "", call, 1)
		if err == nil {
			err = a.err
		}
		refused := new(script.Refused)
		switch {
		case errors.Is(err, coalesce.ErrClosed):
			return nil, ErrClosed
		case errors.Is(err, coalesce.ErrUnsent):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case errors.Is(err, coalesce.ErrUnknown):
			return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		case !errors.As(err, &refused):
			return a.reply, err
		case refused.Code == "lost":
			return nil, lost(err)
		case refused.Code != "away":
			return nil, fmt.Errorf("%w: total would leave ±2^53: %w", ErrInvalid, err)
		}
		if _, err := c.bringBack(ctx, s, id, true); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: its block goes as soon as it has come", ErrUnavailable)
}

// sum returns what is stored of a field over all keys it spreads over.
func (c *Counter) sum(ctx context.Context, id int64, field int) (total int64, err error) {
	var calls []script.Call
	for sub := range c.schema.Fields[field].Spread + 1 {
		n := name{id, sub}
		s := c.shardOf(n)
		calls = append(calls, script.Call{Keys: append([]string{s.token}, c.keysOf(s, n)...), Args: []any{1, c.cell(n, field)}})
	}
	replies, errs := c.scripts.read.RunMany(ctx, c.rdb, calls)
	for i := range replies {
		if errs[i] != nil {
			return 0, lost(errs[i])
		}
		if reply, _ := replies[i].([]any); len(reply) == 2 {
			n, _ := reply[1].(int64)
			total += n
		}
	}
	return total, nil
}

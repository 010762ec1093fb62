package unread

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed raise.lua
var raiseLua string

var raiseScript = script.New(script.State, raiseLua)

// latest is the field of what things come up to.
const latest = "latest"

// maxMark keeps marks exact in Lua.
const maxMark = 1<<53 - 1

// Marks are numbers that only grow, in a hash for each thing. Unread, RedDot and
// FeedUnread are all differences of two marks: what there is, and what somebody has
// seen of it.
type marks struct{ store }

func (m *marks) raise(ctx context.Context, kind, thing, field string, to int64) error {
	return m.raiseAll(ctx, kind, thing, []string{field}, []int64{to})
}

func (m *marks) raiseAll(ctx context.Context, kind, thing string, fields []string, to []int64) error {
	k := []string{m.key(kind, thing)}
	for len(fields) > 0 {
		n := min(perCall, len(fields))
		args := make([]any, 0, 2*n)
		for i, f := range fields[:n] {
			if to[i] < 0 || to[i] > maxMark {
				return fmt.Errorf("%w: %s %q: %d, want 0 to 2^53 - 1", ErrInvalid, kind, thing, to[i])
			}
			args = append(args, f, to[i])
		}
		if err := m.run(ctx, raiseScript, k, args...); err != nil {
			return err
		}
		fields, to = fields[n:], to[n:]
	}
	return nil
}

// compare returns what things have come up to, and what somebody has seen of each:
// -1 if nothing is known of that.
func (m *marks) compare(ctx context.Context, kind string, things []string, whose, who string) (have, seen []int64, err error) {
	have, seen = make([]int64, len(things)), make([]int64, len(things))
	haves := make([]*redis.StringCmd, len(things))
	var seens []*redis.SliceCmd
	err = m.read(ctx, func(pipe redis.Pipeliner) {
		for i, t := range things {
			haves[i] = pipe.HGet(ctx, m.key(kind, t), latest)
		}
		for at := 0; at < len(things); at += perCall {
			seens = append(seens, pipe.HMGet(ctx, m.key(whose, who), things[at:min(at+perCall, len(things))]...))
		}
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range things {
		have[i], _ = strconv.ParseInt(haves[i].Val(), 10, 64) // nothing there is 0
		text, ok := seens[i/perCall].Val()[i%perCall].(string)
		if seen[i], err = strconv.ParseInt(text, 10, 64); !ok || err != nil {
			seen[i] = -1
		}
	}
	return have, seen, nil
}

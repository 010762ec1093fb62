package lock

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

var (
	//go:embed record.lua
	recordLua string
	//go:embed acquire.lua
	acquireLua string
	//go:embed renew.lua
	renewLua string
	//go:embed release.lua
	releaseLua string
	//go:embed holder.lua
	holderLua string
	//go:embed force.lua
	forceLua string
	//go:embed turns.lua
	turnsLua string
	//go:embed queue.lua
	queueLua string
	//go:embed pass.lua
	passLua string

	acquireScript = script.New(script.Token, recordLua, acquireLua)
	renewScript   = script.New(script.State, recordLua, renewLua)
	releaseScript = script.New(script.Token, recordLua, releaseLua)
	holderScript  = script.New(script.Read, recordLua, holderLua)
	forceScript   = script.New(script.State, recordLua, forceLua)
	queueScript   = script.New(script.Token, recordLua, turnsLua, queueLua) // acquire, if Options.Fair
	passScript    = script.New(script.Token, recordLua, turnsLua, passLua)  // release, if Options.Fair
)

// keys are the keys and the channel of one lock, as scripts take them.
type keys struct {
	record  []string // the record alone
	all     []string // with the queue, if Options.Fair
	channel string
}

func (l *Locker) keysOf(name string) keys {
	space := key.New(l.opts.Prefix, "lock", layout, name)
	k := keys{record: []string{space.Key("lease")}, channel: space.Key("events")}
	k.all = k.record
	if l.opts.Fair {
		k.all = []string{k.record[0], space.Key("queue"), space.Key("seen")}
	}
	return k
}

// An answer is what acquire.lua says.
type answer struct {
	granted bool
	fence   int64
	wanted  bool          // others wait
	age     time.Duration // since it was released; -1 ms if it was not
	left    time.Duration // if not granted: until the lease ends
}

func (l *Locker) acquire(ctx context.Context, k keys, token string, waits bool) (answer, error) {
	s := acquireScript
	if l.opts.Fair {
		s = queueScript
	}
	reply, err := s.Run(ctx, l.rdb, script.Call{Keys: k.all, Args: []any{
		token, l.opts.TTL.Milliseconds(), handOvers, flag(waits), flag(l.opts.Linger > 0), k.channel,
	}})
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(reply)
}

func parseAnswer(reply any) (answer, error) {
	n, err := numbers(reply, 2)
	if err != nil {
		return answer{}, err
	}
	if n[0] == 0 {
		return answer{left: milliseconds(n[1])}, nil
	}
	if len(n) < 4 {
		return answer{}, malformed(reply)
	}
	return answer{granted: true, fence: n[1], wanted: n[2] == 1, age: milliseconds(n[3])}, nil
}

func (l *Locker) renewCall(k keys, token string) script.Call {
	return script.Call{Keys: k.record, Args: []any{token, l.opts.TTL.Milliseconds()}}
}

// release reports whether others were notified. doubt says that an earlier attempt
// may have run.
func (l *Locker) release(ctx context.Context, k keys, token string, used int64, doubt bool) (bool, error) {
	s := releaseScript
	if l.opts.Fair {
		s = passScript
	}
	reply, err := s.Run(ctx, l.rdb, script.Call{Keys: k.all, Resend: 3, Args: []any{
		token, used, "", k.channel,
	}})
	if err != nil {
		return false, err
	}
	switch reply {
	case int64(1):
		return false, nil
	case int64(2):
		return true, nil
	case int64(0):
		if !doubt {
			return false, ErrLost
		}
	}
	return false, errOver
}

func (l *Locker) holder(ctx context.Context, k keys) (h Holder, token string, err error) {
	reply, err := holderScript.Run(ctx, l.rdb, script.Call{Keys: k.record})
	if err != nil {
		return Holder{}, "", err
	}
	fields, ok := reply.([]any)
	if !ok || len(fields) != 4 {
		return Holder{}, "", malformed(reply)
	}
	n, err := numbers(fields[:3], 3)
	if err != nil {
		return Holder{}, "", err
	}
	if token, ok = fields[3].(string); !ok {
		return Holder{}, "", malformed(reply)
	}
	return Holder{
		Held: n[0] > 0, Fence: n[1], Left: milliseconds(n[0]), Waiting: n[2] == 1, Mine: l.mine(token),
	}, token, nil
}

// force ends the hold of a token that Redis named as the holder. Whether this call
// or something else ended it makes no difference.
func (l *Locker) force(ctx context.Context, k keys, token string) error {
	_, err := forceScript.Run(ctx, l.rdb, script.Call{Keys: k.record, Args: []any{token, k.channel}})
	return err
}

// numbers reads a reply that is an array of at least n integers.
func numbers(reply any, n int) ([]int64, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) < n {
		return nil, malformed(reply)
	}
	out := make([]int64, len(fields))
	for i, f := range fields {
		if out[i], ok = f.(int64); !ok {
			return nil, malformed(reply)
		}
	}
	return out, nil
}

// malformed is a reply that no script here gives: somebody else wrote the key, or
// a proxy the reply.
func malformed(reply any) error {
	return fmt.Errorf("%w: a script replied %v", ErrUnknown, reply)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

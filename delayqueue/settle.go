package delayqueue

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed settle.lua
	settleLua string
	//go:embed extend.lua
	extendLua string

	settleScript = script.New(script.Token, readLua, settleLua)
	extendScript = script.New(script.State, readLua, extendLua)
)

// maxError is how much of a handler's error is kept, in bytes.
const maxError = 1 << 10

// A settleOp is the end of one delivery.
type settleOp struct {
	id, token string
	verb      string // A ack, R retry, S snooze, D discard
	delay     time.Duration
	text      string // of the error
}

// The codes of settle.lua.
const (
	settledDone = iota
	settledLost
	settledDead
)

// settle ends the delivery once, together with others. A nil error comes with a code.
func (q *Queue) settle(ctx context.Context, s *shard, op *settleOp) (int64, error) {
	if len(op.text) > maxError {
		op.text = strings.ToValidUTF8(op.text[:maxError], "")
	}
	code, err := q.settles.Do(ctx, s.lane, "", op, len(op.id)+len(op.token)+len(op.text)+32)
	if err == nil && code < 0 {
		err = ErrUnknown
	}
	return code, merged(err)
}

// settleFailed is the code of a delivery whose script failed on the way.
const settleFailed = -1

// flushSettles settles a batch in the shard that lane names.
func (q *Queue) flushSettles(ctx context.Context, lane string, batch []*settleOp) ([]int64, error) {
	i, err := strconv.Atoi(lane)
	if err != nil {
		return nil, err
	}
	s := &q.shards[i]
	codes, err := q.settleBatch(ctx, s, batch)
	if !brokeOnTheWay(err, len(batch)) {
		return codes, err
	}
	codes = codes[:0]
	for k := range batch { // see flushAdds
		one, err := q.settleBatch(ctx, s, batch[k:k+1])
		if err != nil {
			one = []int64{settleFailed}
		}
		codes = append(codes, one[0])
	}
	return codes, nil
}

func (q *Queue) settleBatch(ctx context.Context, s *shard, batch []*settleOp) ([]int64, error) {
	args := make([]any, 0, 3+5*len(batch))
	args = append(args, len(batch), q.opts.ReplayWindow.Milliseconds(), q.opts.MaxAttempts)
	for _, op := range batch {
		args = append(args, op.id)
	}
	for _, op := range batch {
		args = append(args, op.token)
	}
	for _, op := range batch {
		args = append(args, op.verb)
	}
	for _, op := range batch {
		args = append(args, (op.delay.Nanoseconds()+999)/1000)
	}
	for _, op := range batch {
		args = append(args, op.text)
	}
	reply, err := settleScript.Run(ctx, q.rdb, script.Call{Keys: s.keys, Args: args})
	if err != nil {
		return nil, err
	}
	codes, ok := integers(reply)
	if !ok || len(codes) != len(batch) {
		return nil, badReply("settle.lua", reply)
	}
	return codes, nil
}

// extend renews the leases of deliveries in one shard and tells which still hold.
func (q *Queue) extend(ctx context.Context, s *shard, ds []*Delivery, lease time.Duration) ([]bool, error) {
	args := make([]any, 0, 2+2*len(ds))
	args = append(args, len(ds), lease.Milliseconds())
	for _, d := range ds {
		args = append(args, d.ID)
	}
	for _, d := range ds {
		args = append(args, d.token)
	}
	reply, err := extendScript.Run(ctx, q.rdb, script.Call{Keys: s.keys, Args: args})
	if err != nil {
		return nil, err
	}
	codes, ok := integers(reply)
	if !ok || len(codes) != len(ds) {
		return nil, badReply("extend.lua", reply)
	}
	held := make([]bool, len(ds))
	for i, c := range codes {
		held[i] = c == 1
	}
	return held, nil
}

// end says what settle is to do with a delivery whose handler returned err, after its
// context had ended for cause.
func (d *Delivery) end(err, cause error, backoff func(int) time.Duration) *settleOp {
	op := &settleOp{id: d.ID, token: d.token}
	var s snoozed
	var dis discarded
	switch {
	case err == nil:
		op.verb = "A"
	case errors.As(err, &s):
		op.verb, op.delay = "S", s.delay
	case errors.As(err, &dis):
		op.verb, op.text = "D", dis.err.Error()
	case errors.Is(cause, ErrDraining):
		op.verb = "S"
	default:
		op.verb, op.text = "R", err.Error()
		op.delay = min(max(backoff(d.Attempt), 0), maxDelay)
	}
	return op
}

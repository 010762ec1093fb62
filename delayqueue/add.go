package delayqueue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed add.lua
var addLua string

var addScript = script.New(script.Token, readLua, addLua)

// An addOp is one job on its way to add.lua.
type addOp struct {
	id     string
	record []byte
	time   string
	unique string
	policy string
}

// An addOut is add.lua's verdict on it.
type addOut struct {
	code int64
	text string
	err  error // this job alone failed
}

// The codes of add.lua's verdicts.
const (
	codeStored = iota
	codeTaken
	codeNotUnique
	codeReplaced
	codeExtended
	codeNotYourTick
)

// Add stores a job and returns its id: the one given, a generated one, or that of the
// job which this one replaced or extended.
//
// ErrDuplicate says that the id is taken: by a job in the queue, or by one that
// ended within Options.ReplayWindow. Nothing is stored twice, whichever reply
// was lost: a repeated Add of the same ID ends in success or ErrDuplicate.
//
// One round trip, shared with the Adds of other goroutines. O(log n) in Redis.
func (q *Queue) Add(ctx context.Context, j Job) (id string, err error) {
	op, s, err := q.newOp(&j)
	if err != nil {
		return j.ID, err
	}
	out, err := q.adds.Do(ctx, s.lane, "", op, len(op.record)+len(op.id)+32)
	if err == nil {
		err = out.err
	}
	if err != nil {
		return op.id, q.wrap(op.id, merged(err))
	}
	return q.added(op, out)
}

// AddMany stores up to 1,000 jobs, 8 MiB of ids and bodies: one round trip a shard,
// several shards in parallel. Result i is that of jobs[i]. The error is not nil if
// the call as a whole was refused, or if a shard failed; what is wrong with
// single jobs stands in their results alone.
func (q *Queue) AddMany(ctx context.Context, jobs []Job) ([]AddResult, error) {
	if len(jobs) > maxMany {
		return nil, q.wrapQueue(fmt.Errorf("%w: %d jobs in one AddMany, want at most %d", ErrInvalid, len(jobs), maxMany))
	}
	size := 0
	for i := range jobs {
		size += len(jobs[i].ID) + len(jobs[i].Body)
	}
	if size > maxManyBytes {
		return nil, q.wrapQueue(fmt.Errorf("%w: %d bytes in one AddMany, want at most %d", ErrInvalid, size, maxManyBytes))
	}
	if q.closed.Load() {
		return nil, q.wrapQueue(ErrClosed)
	}
	results := make([]AddResult, len(jobs))
	ops := make([][]*addOp, len(q.shards))
	places := make([][]int, len(q.shards))
	for i := range jobs {
		op, s, err := q.newOp(&jobs[i])
		if err != nil {
			results[i] = AddResult{jobs[i].ID, err}
			continue
		}
		ops[s.index] = append(ops[s.index], op)
		places[s.index] = append(places[s.index], i)
	}
	var calls []script.Call
	var shards []int
	for i := range ops {
		if len(ops[i]) > 0 {
			calls = append(calls, q.addCall(&q.shards[i], ops[i], tick{}))
			shards = append(shards, i)
		}
	}
	replies, errs := addScript.RunMany(ctx, q.rdb, calls)
	var failed error
	for c, i := range shards {
		outs, err := parseAdded(replies[c], errs[c], len(ops[i]))
		for k, op := range ops[i] {
			r := &results[places[i][k]]
			r.ID, r.Err = op.id, q.wrap(op.id, err)
			if err == nil {
				r.ID, r.Err = q.added(op, outs[k])
			}
		}
		if err != nil && failed == nil {
			failed = q.wrapQueue(err)
		}
	}
	return results, failed
}

// newOp checks a job and finds its shard.
func (q *Queue) newOp(j *Job) (*addOp, *shard, error) {
	if err := j.check(&q.opts); err != nil {
		return nil, nil, q.wrap(j.ID[:min(len(j.ID), maxID)], err)
	}
	op := &addOp{id: j.ID}
	var s *shard
	switch {
	case j.Unique == nil && op.id == "":
		op.id = newID()
		s = q.shardOf(op.id)
	case j.Unique == nil:
		s = q.shardOf(op.id)
	default:
		op.unique = j.Unique.Key
		op.policy = [...]string{"J", "P", "E"}[j.Unique.Policy]
		s = q.shardOf(op.unique)
		if op.id == "" {
			for op.id = newID(); q.shardOf(op.id) != s; op.id = newID() {
			}
		} else if q.shardOf(op.id) != s {
			return nil, nil, q.wrap(j.ID, fmt.Errorf("%w: Job.ID beside Job.Unique in a queue of %d shards: both choose a shard; leave ID empty", ErrInvalid, len(q.shards)))
		}
	}
	op.record = j.record(newToken())
	if j.At.IsZero() {
		op.time = "d" + strconv.FormatInt((j.Delay.Nanoseconds()+999)/1000, 10)
	} else {
		op.time = "a" + strconv.FormatInt(millis(j.At), 10)
	}
	return op, s, nil
}

// added tells the caller of op what out means.
func (q *Queue) added(op *addOp, out addOut) (string, error) {
	switch out.code {
	case codeStored:
		q.stats.added.Add(1)
		return op.id, nil
	case codeReplaced:
		q.stats.replaced.Add(1)
		return out.text, nil
	case codeExtended:
		q.stats.extended.Add(1)
		return out.text, nil
	case codeTaken:
		q.stats.duplicates.Add(1)
		what := ErrDuplicate
		switch out.text {
		case "A":
			what = fmt.Errorf("%w: %w", ErrDuplicate, ErrFinished)
		case "X":
			what = fmt.Errorf("%w: %w", ErrDuplicate, ErrCancelled)
		}
		return op.id, q.wrap(op.id, what)
	case codeNotUnique:
		q.stats.duplicates.Add(1)
		return out.text, q.wrap(op.id, fmt.Errorf("%w: key %q by job %q", ErrNotUnique, op.unique, out.text))
	}
	return op.id, q.wrap(op.id, badReply("add.lua", out))
}

// flushAdds stores a batch in the shard that lane names.
func (q *Queue) flushAdds(ctx context.Context, lane string, batch []*addOp) ([]addOut, error) {
	i, err := strconv.Atoi(lane)
	if err != nil {
		return nil, err
	}
	s := &q.shards[i]
	outs, err := q.add(ctx, s, batch)
	if !brokeOnTheWay(err, len(batch)) {
		return outs, err
	}
	// One of them broke the script perhaps: one by one, under the same tokens, the
	// others get their answers.
	outs = outs[:0]
	for k := range batch {
		one, err := q.add(ctx, s, batch[k:k+1])
		if err != nil {
			one = []addOut{{err: err}}
		}
		outs = append(outs, one[0])
	}
	return outs, nil
}

func (q *Queue) add(ctx context.Context, s *shard, batch []*addOp) ([]addOut, error) {
	reply, err := addScript.Run(ctx, q.rdb, q.addCall(s, batch, tick{}))
	return parseAdded(reply, err, len(batch))
}

// brokeOnTheWay reports whether err is that of a script which failed while it ran.
func brokeOnTheWay(err error, n int) bool {
	var reply redis.Error
	return n > 1 && errors.Is(err, ErrUnknown) && errors.As(err, &reply)
}

// A tick moves a periodic job from one time to the next; see periodic.go.
type tick struct{ name, before, next string }

func (q *Queue) addCall(s *shard, batch []*addOp, t tick) script.Call {
	uniques := 0
	for _, op := range batch {
		if op.unique != "" {
			uniques = 1
		}
	}
	args := make([]any, 0, 6+(3+2*uniques)*len(batch))
	args = append(args, len(batch), q.opts.ReplayWindow.Milliseconds(), uniques, t.name, t.before, t.next)
	for _, op := range batch {
		args = append(args, op.id)
	}
	for _, op := range batch {
		args = append(args, op.record)
	}
	for _, op := range batch {
		args = append(args, op.time)
	}
	if uniques == 1 {
		for _, op := range batch {
			args = append(args, op.unique)
		}
		for _, op := range batch {
			args = append(args, op.policy)
		}
	}
	return script.Call{Keys: s.periodic, Args: args}
}

func parseAdded(reply any, err error, n int) ([]addOut, error) {
	if err != nil {
		return nil, err
	}
	r, ok := reply.([]any)
	if !ok || len(r) != 1+n {
		return nil, badReply("add.lua", reply)
	}
	outs := make([]addOut, n)
	for i, v := range r[1:] {
		switch v := v.(type) {
		case int64:
			outs[i].code = v
		case []any:
			if len(v) != 2 {
				return nil, badReply("add.lua", reply)
			}
			outs[i].code, _ = v[0].(int64)
			outs[i].text, _ = v[1].(string)
		default:
			return nil, badReply("add.lua", reply)
		}
	}
	return outs, nil
}

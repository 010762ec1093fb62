package delayqueue

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

var (
	//go:embed dead.lua
	deadLua string
	//go:embed redrive.lua
	redriveLua string

	deadScript    = script.New(script.Read, readLua, deadLua)
	redriveScript = script.New(script.Token, readLua, redriveLua)
)

// Dead reads up to limit (1 to 1,000) dead letters, shard by shard, those that died
// first before others. The first page is that of cursor ""; next is the cursor of the
// page that follows, and "" after the last. Pages move up when jobs leave: whoever
// redrives what it reads starts again at "". One round trip a shard.
func (q *Queue) Dead(ctx context.Context, cursor string, limit int) (jobs []Info, next string, err error) {
	if limit < 1 || limit > maxMany {
		return nil, "", q.wrapQueue(fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, limit, maxMany))
	}
	shard, rank, err := q.parseCursor(cursor)
	if err != nil {
		return nil, "", q.wrapQueue(err)
	}
	for ; shard < len(q.shards); shard, rank = shard+1, 0 {
		reply, err := q.run(ctx, deadScript, q.shards[shard].keys, 0, rank, limit-len(jobs))
		if err != nil {
			return nil, "", q.wrapQueue(err)
		}
		page, n, err := parseDead(reply)
		if err != nil {
			return nil, "", q.wrapQueue(err)
		}
		jobs = append(jobs, page...)
		if len(jobs) == limit {
			return jobs, fmt.Sprintf("%d/%d", shard, rank+n), nil
		}
	}
	return jobs, "", nil
}

func (q *Queue) parseCursor(cursor string) (shard, rank int, err error) {
	if cursor == "" {
		return 0, 0, nil
	}
	a, b, ok := strings.Cut(cursor, "/")
	shard, err1 := number(a)
	rank, err2 := number(b)
	if !ok || err1 != nil || err2 != nil || shard >= len(q.shards) {
		return 0, 0, fmt.Errorf("%w: cursor %.40q is not from Dead", ErrInvalid, cursor)
	}
	return shard, rank, nil
}

func parseDead(reply any) ([]Info, int, error) {
	r, ok := reply.([]any)
	if !ok || len(r)%4 != 0 {
		return nil, 0, badReply("dead.lua", reply)
	}
	var jobs []Info
	for ; len(r) > 0; r = r[4:] {
		id, _ := r[0].(string)
		i := Info{ID: id, State: Dead}
		record, _ := r[2].(string)
		body, _, err := parseRecord(record)
		if err != nil {
			return nil, 0, fmt.Errorf("dead job %q: %w", id, err)
		}
		i.Body = []byte(body)
		if state, ok := r[3].(string); ok {
			if err := parseState(state, &i); err != nil {
				return nil, 0, fmt.Errorf("dead job %q: %w", id, err)
			}
		}
		i.Died = time.UnixMilli(score(r[1]))
		jobs = append(jobs, i)
	}
	return jobs, len(jobs), nil
}

// Redrive makes dead jobs, up to 1,000, due now, with no failures counted, and returns
// how many of ids were dead. One round trip a shard, several shards in parallel.
func (q *Queue) Redrive(ctx context.Context, ids ...string) (n int, err error) {
	if len(ids) > maxMany {
		return 0, q.wrapQueue(fmt.Errorf("%w: %d ids, want at most %d", ErrInvalid, len(ids), maxMany))
	}
	if q.closed.Load() {
		return 0, q.wrapQueue(ErrClosed)
	}
	token := newToken()
	byShard := make([][]any, len(q.shards))
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return 0, q.wrapQueue(err)
		}
		s := q.shardOf(id)
		byShard[s.index] = append(byShard[s.index], id)
	}
	var calls []script.Call
	for i, ids := range byShard {
		if len(ids) > 0 {
			args := append([]any{token, strconv.Itoa(len(ids))}, ids...)
			calls = append(calls, script.Call{Keys: q.shards[i].keys, Args: args})
		}
	}
	replies, errs := redriveScript.RunMany(ctx, q.rdb, calls)
	for i := range calls {
		if errs[i] != nil {
			err = errs[i]
			continue
		}
		redriven, ok := replies[i].(int64)
		if !ok {
			err = badReply("redrive.lua", replies[i])
		}
		n += int(redriven)
	}
	q.stats.redriven.Add(uint64(n))
	return n, q.wrapQueue(err)
}

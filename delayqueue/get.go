package delayqueue

import (
	"context"
	_ "embed"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed get.lua
var getLua string

var getScript = script.New(script.Read, readLua, getLua)

// Get tells where a job stands. Of a job that ended, within Options.ReplayWindow, it
// knows ID and State; later the answer is ErrNotFound. One round trip, O(1).
func (q *Queue) Get(ctx context.Context, id string) (Info, error) {
	if err := checkID(id); err != nil {
		return Info{}, q.wrapQueue(err)
	}
	reply, err := q.run(ctx, getScript, q.shardOf(id).keys, 0, id, q.opts.ReplayWindow.Milliseconds())
	if err != nil {
		return Info{}, q.wrap(id, err)
	}
	i, err := parseInfo(id, reply)
	return i, q.wrap(id, err)
}

func parseInfo(id string, reply any) (Info, error) {
	i := Info{ID: id}
	r, ok := reply.([]any)
	if !ok || len(r) != 6 {
		return i, badReply("get.lua", reply)
	}
	record, ok := r[0].(string)
	if !ok {
		switch verdict, _ := r[5].(string); {
		case verdict == "":
			return i, ErrNotFound
		case verdict[0] == 'X':
			i.State = Cancelled
		default:
			i.State = Finished
		}
		return i, nil
	}
	body, _, err := parseRecord(record)
	if err != nil {
		return i, err
	}
	i.Body, i.State = []byte(body), Waiting
	if state, ok := r[2].(string); ok {
		if err := parseState(state, &i); err != nil {
			return i, err
		}
	}
	if due := score(r[1]); due >= 0 {
		i.Due = time.UnixMilli(due)
	}
	if end := score(r[3]); end >= 0 && i.State == Running {
		i.Lease = time.UnixMilli(end)
	}
	if died := score(r[4]); died >= 0 {
		i.Died = time.UnixMilli(died)
	}
	return i, nil
}

// score reads a score of a sorted set, -1 if there is none.
func score(v any) int64 {
	s, ok := v.(string)
	if !ok {
		return -1
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return -1
	}
	return int64(f)
}

package delayqueue

import (
	"context"
	_ "embed"
	"strconv"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed claim.lua
var claimLua string

var claimScript = script.New(script.Token, readLua, claimLua)

const (
	// maxClaim bounds the jobs of one claim, so that a script stays short.
	maxClaim = 128
	// claimBytes are after which no further body is added to a claim.
	claimBytes = 512 << 10
)

// A claimer makes the claims of one consumer on one shard, one after the other.
type claimer struct {
	q        *Queue
	s        *shard
	consumer string
	keys     []string
	lease    time.Duration

	number int64
	again  int // 1: the last claim of this number failed
	tidied time.Time
}

func newClaimer(q *Queue, s *shard, consumer string, lease time.Duration) *claimer {
	keys := append(s.paused[:9:9], s.space.Key("claim:"+consumer))
	return &claimer{q: q, s: s, consumer: consumer, keys: keys, lease: lease, number: 1}
}

// A claim is what one claim brought. Times are the server's.
type claim struct {
	jobs      []*Delivery
	now       time.Time
	nextDue   time.Time // zero: none
	nextLease time.Time // zero: none
	paused    bool
}

// claim leases up to k jobs. After an error the same call is to be made again, with
// the same k: it then brings the jobs that a lost reply held.
func (c *claimer) claim(ctx context.Context, k int) (claim, error) {
	tidy := 0
	if now := time.Now(); now.Sub(c.tidied) >= time.Second {
		c.tidied, tidy = now, 1
	}
	token := c.consumer + "." + strconv.FormatInt(c.number, 36)
	reply, err := claimScript.Run(ctx, c.q.rdb, script.Call{Keys: c.keys, Resend: 1, Args: []any{
		nil, c.number, token, k, c.lease.Milliseconds(), c.q.opts.MaxCrashes, claimBytes,
		tidy, c.q.opts.DeadRetention.Milliseconds(), c.again,
	}})
	if err != nil {
		c.again = 1
		return claim{}, err
	}
	c.number++
	c.again = 0
	return c.parse(reply, token)
}

func (c *claimer) parse(reply any, token string) (claim, error) {
	r, ok := reply.([]any)
	if !ok || len(r) < 6 || (len(r)-6)%5 != 0 {
		return claim{}, badReply("claim.lua", reply)
	}
	head, ok := integers(r[:6:6])
	if !ok {
		return claim{}, badReply("claim.lua", reply)
	}
	out := claim{now: time.UnixMicro(head[0]), paused: head[3] == 1}
	if head[1] >= 0 {
		out.nextDue = time.UnixMilli(head[1])
	}
	if head[2] >= 0 {
		out.nextLease = time.UnixMilli(head[2])
	}
	stats := &c.q.stats
	stats.claims.Add(1)
	stats.died.Add(uint64(head[4]))
	stats.orphans.Add(uint64(head[5]))
	for r = r[6:]; len(r) > 0; r = r[5:] {
		id, _ := r[0].(string)
		record, _ := r[1].(string)
		attempts, _ := r[2].(int64)
		crashes, _ := r[3].(int64)
		due := score(r[4])
		body, _, err := parseRecord(record)
		if err != nil {
			// Its lease runs out and it dies in the end: nobody here can read it.
			stats.failures.Add(1)
			c.q.opts.Logger.Error("delayqueue: a job cannot be read", "queue", c.q.name, "job", id, "error", err)
			continue
		}
		out.jobs = append(out.jobs, &Delivery{
			ID: id, Body: []byte(body), Due: time.UnixMilli(due), Attempt: int(attempts) + 1, Crashes: int(crashes),
			q: c.q, shard: c.s, token: token, add: record[:8],
		})
	}
	stats.claimed.Add(uint64(len(out.jobs)))
	return out, nil
}

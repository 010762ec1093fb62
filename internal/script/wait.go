package script

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Wait asks that replicas have what a script wrote. Redis answers that for one
// connection only, and so WAIT follows the script on the script's own.
type Wait struct {
	Replicas int
	Timeout  time.Duration // below the client's ReadTimeout
	// Met is set by Run: that many replicas had acknowledged, in the last attempt, all
	// that its connection wrote. An attempt that wrote nothing proves nothing.
	Met bool
}

// send makes one attempt, which holds its own error.
func (c Call) send(ctx context.Context, rdb redis.UniversalClient, a *attempt) {
	if c.Wait == nil {
		_ = rdb.Process(ctx, a)
		return
	}
	c.Wait.Met = false
	var pipe redis.Pipeliner
	cluster, ok := rdb.(*redis.ClusterClient)
	if ok {
		// A cluster's pipeline would send WAIT, which has no key, to any node.
		node, err := cluster.MasterForKey(ctx, c.Keys[0])
		if err != nil {
			a.SetErr(err)
			return
		}
		pipe = node.Pipeline()
	} else {
		pipe = rdb.Pipeline()
	}
	_ = pipe.Process(ctx, a) // only queues
	acked := pipe.Do(ctx, "wait", c.Wait.Replicas, c.Wait.Timeout.Milliseconds())
	_, _ = pipe.Exec(ctx) // the commands hold their errors
	if a.outcome() != nil {
		if ok {
			cluster.ReloadState(ctx) // nobody follows MOVED here
		}
		return
	}
	n, err := acked.Int()
	c.Wait.Met = err == nil && n >= c.Wait.Replicas
}

package infra

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// Together runs the commands that queue adds in one round trip, which is shared with
// those who come while another is under way: a round trip costs a server more than the
// few commands in it. They are a pipeline, no transaction, and about keys of one slot;
// in a Cluster trips are shared by node, so that nobody waits for one that is down
// without having to.
//
// The error is the first of these commands', redis.Nil left out. After an error the
// results are not to be looked at, and any of them may have run.
func (e *Env) Together(ctx context.Context, key string, queue func(redis.Pipeliner)) error {
	failed, err := e.trips.Do(ctx, e.node(ctx, key), "", queue, 1)
	return errors.Join(err, failed)
}

// node returns the address of the node of a Cluster that has key; of one Redis, nothing.
func (e *Env) node(ctx context.Context, key string) string {
	cluster, ok := e.Redis.(*redis.ClusterClient)
	if !ok {
		return ""
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return "" // the trip will say what is wrong
	}
	return node.Options().Addr
}

// trip is one round trip: it returns an error, or none, for each of queues.
func (e *Env) trip(ctx context.Context, _ string, queues []func(redis.Pipeliner)) ([]error, error) {
	pipe := e.Redis.Pipeline()
	errs, ends := make([]error, len(queues)), make([]int, len(queues))
	for i, queue := range queues {
		queue(pipe)
		ends[i] = pipe.Len()
	}
	cmds, _ := pipe.Exec(ctx) // each command has its own error
	begin := 0
	for i, end := range ends {
		for _, cmd := range cmds[begin:end] {
			if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
				errs[i] = err
				break
			}
		}
		begin = end
	}
	return errs, nil
}

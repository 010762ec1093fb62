package redistest

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// newClient returns a client with go-redis's own settings, which are what
// users have, so that a test finds the bug that they would: above all, the
// client retries, and a script sent without protection runs twice. The one
// exception: a refused connection is reported at once instead of after 0.4 s and
// log lines. modify may change any of it.
func newClient(addr string, modify []func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: addr, DialerRetries: 1}
	for _, f := range modify {
		f(o)
	}
	return redis.NewClient(o)
}

// newClusterClient is newClient for a cluster. It asks for the topology every
// second: with go-redis's default of a minute, a client keeps dialling a dead
// master for 9 to 15 s after the failover.
func newClusterClient(addrs []string, modify []func(*redis.ClusterOptions)) *redis.ClusterClient {
	o := &redis.ClusterOptions{Addrs: addrs, DialerRetries: 1, ClusterStateReloadInterval: time.Second}
	for _, f := range modify {
		f(o)
	}
	return redis.NewClusterClient(o)
}

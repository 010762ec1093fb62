package redistest

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// An Env is what Bubble gives a test.
type Env struct {
	Mini *miniredis.Miniredis
	t    *testing.T
}

// Bubble runs f in a testing/synctest bubble with a miniredis that lives in it:
// time is virtual, TTLs included, and passes when every goroutine waits. A
// goroutine that outlives f and its cleanups fails the test. What reaches out of
// the bubble (a real server, Each, a socket) cannot be used in it.
func Bubble(t *testing.T, f func(t *testing.T, b *Env)) {
	t.Helper()
	calmGC()
	synctest.Test(t, func(t *testing.T) {
		m := miniredis.NewMiniRedis()
		m.ClockTTL(true)
		t.Cleanup(m.Close)
		f(t, &Env{m, t})
	})
}

// Client returns a client of the bubble's miniredis that the end of the test
// closes. A modify that wraps Dialer finds the bubble's own in it.
func (b *Env) Client(modify ...func(*redis.Options)) *redis.Client {
	dial := func(o *redis.Options) {
		o.Dialer = func(context.Context, string, string) (net.Conn, error) {
			pipe, err := b.Mini.Dial()
			if err != nil {
				return nil, err
			}
			return newBufferedConn(pipe), nil
		}
	}
	// An IP address: a name would be looked up by a goroutine of the whole
	// process, which would poison the next bubble.
	rdb := newClient("127.0.0.1:6379", append([]func(*redis.Options){dial}, modify...))
	b.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

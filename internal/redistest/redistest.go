package redistest

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/lifetime"
)

// Each runs f as three subtests: on miniredis, on a real server and on a real
// cluster of one node. They share the server and the cluster with all tests of
// the binary: keys start with Prefix. Without redis-server on PATH the last two
// are skipped, or fail if REDIS_REQUIRED=1.
func Each(t *testing.T, f func(t *testing.T, rdb redis.UniversalClient)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) {
		_, rdb := Mini(t)
		f(t, rdb)
	})
	t.Run("server", func(t *testing.T) { f(t, Shared(t).Client()) })
	t.Run("cluster", func(t *testing.T) { f(t, Cluster(t, 1, 0).Client()) })
}

// Mini returns a miniredis, on a TCP port, and a client of it. TTLs pass with
// the clock as on a server; with thousands of keys that have one, switch that
// off for speed: m.ClockTTL(false).
func Mini(t testing.TB) (*miniredis.Miniredis, *redis.Client) {
	t.Helper()
	calmGC()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	rdb := newClient(m.Addr(), nil)
	t.Cleanup(func() { _ = rdb.Close() })
	return m, rdb
}

// Server returns a server that is the test's own, to be configured (args, as on
// the command line), killed, paused or filled. It takes about 60 ms to start.
func Server(t testing.TB, args ...string) *Proc {
	t.Helper()
	requireServer(t)
	p, err := Start(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// shared is the server that all tests of the binary share. Its directory goes
// as soon as it runs, since nothing would remove it in the end.
var shared = sync.OnceValues(func() (*Proc, error) {
	ctx, cancel := lifetime.ForNew(patience)
	defer cancel()
	p, err := Start(ctx)
	if err == nil {
		_ = os.RemoveAll(p.dir)
	}
	return p, err
})

// Shared returns the server that all tests of the binary share. A test must
// use a Prefix and leave the configuration alone. The server ends with the
// binary. (Not on Linux: it is the test's own.)
func Shared(t testing.TB) *Proc {
	t.Helper()
	if !diesWithParent {
		return Server(t)
	}
	requireServer(t)
	p, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	p = p.share()
	t.Cleanup(p.Close)
	return p
}

var prefixes atomic.Int64

// Prefix returns a key prefix that no other call in this binary returns. It
// names the test and has no character that means something to Redis or to
// internal/key.
func Prefix(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name())
	return name[:min(len(name), 80)] + "-" + strconv.FormatInt(prefixes.Add(1), 10)
}

func requireServer(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("redis-server")
	switch {
	case err == nil:
	case os.Getenv("REDIS_REQUIRED") == "1":
		t.Fatalf("REDIS_REQUIRED=1, but %v", err)
	default:
		t.Skipf("needs a real Redis: %v (set REDIS_REQUIRED=1 to make this a failure)", err)
	}
}

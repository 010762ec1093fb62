// Package shoptest gives tests what a server stands on: a Redis, a database, and a
// shop in one process, to be called over HTTP.
package shoptest

import (
	"flag"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/internal/redistest"
	"github.com/spillway-go/spillway/internal/sqltest"
)

// Main is the TestMain of a package that uses Each: it ends the database server.
func Main(m *testing.M) { sqltest.Main(m) }

// AtOnce lets n tests of a package run at the same time, which is more than there are
// processors: they wait for holds that end, and for servers that stop. Under the race
// detector they have more to compute, and it is half as many. It is for a TestMain.
func AtOnce(n int) {
	if redistest.RaceEnabled {
		n = (n + 1) / 2
	}
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err)
	}
}

// cluster is held by the test that has the Redis Cluster.
var cluster sync.Mutex

// Each runs f on the embedded Redis with SQLite, on a redis-server with MariaDB, and
// on a Redis Cluster of one node with SQLite, at the same time. The data is the test's
// own: the Cluster, which all tests of a binary share, is for one of them at a time, and
// emptied before.
func Each(t *testing.T, f func(t *testing.T, env *infra.Env)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		f(t, Env(t))
	})
	t.Run("servers", func(t *testing.T) {
		t.Parallel()
		rdb := redistest.Server(t)
		_, dsn := sqltest.MariaDB(t).Names()
		f(t, Open(t, infra.Config{Redis: rdb.Addr(), DB: dsn}, false))
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster.Lock()
		t.Cleanup(cluster.Unlock)
		var addrs []string
		for _, node := range redistest.Cluster(t, 1, 0).Nodes() {
			addrs = append(addrs, node.Addr())
		}
		f(t, Open(t, infra.Config{Cluster: strings.Join(addrs, ",")}, true))
	})
}

// Env returns an embedded Redis with SQLite, of the test's own.
func Env(t testing.TB) *infra.Env { return Open(t, infra.Config{}, false) }

// Open returns what cfg names; what it leaves out is brought up. The end of the test
// closes it.
func Open(t testing.TB, cfg infra.Config, empty bool) *infra.Env {
	t.Helper()
	cfg, release, err := infra.Provide(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	if cfg.Server == "" {
		cfg.Server = "s1"
	}
	if cfg.Secret == "" {
		cfg.Secret = "test"
	}
	env, err := infra.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(output{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Close(); err != nil {
			t.Error(err)
		}
	})
	if empty {
		if err := env.Redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

// output is the log of a test.
type output struct{ t testing.TB }

func (o output) Write(p []byte) (int, error) {
	o.t.Logf("%s", p)
	return len(p), nil
}

// NeedRedis skips a test that needs redis-server where there is none, or fails it if
// REDIS_REQUIRED=1.
func NeedRedis(t testing.TB) { redistest.Shared(t) }

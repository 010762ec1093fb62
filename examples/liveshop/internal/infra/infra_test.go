package infra_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) { shoptest.Main(m) }

// The embedded Redis forgets what has expired, by itself.
func TestEmbeddedRedisExpires(t *testing.T) {
	env := shoptest.Env(t)
	require.NoError(t, env.Redis.Set(t.Context(), "short", 1, 300*time.Millisecond).Err())
	require.NoError(t, env.Redis.Set(t.Context(), "long", 1, time.Minute).Err())
	require.Eventually(t, func() bool {
		return errors.Is(env.Redis.Get(t.Context(), "short").Err(), redis.Nil)
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, env.Redis.Get(t.Context(), "long").Err())
}

// What Provide brought up is gone after release.
func TestProvideTidiesUp(t *testing.T) {
	cfg, release, err := infra.Provide(t.Context(), infra.Config{Server: "s1"})
	require.NoError(t, err)
	env, err := infra.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	file, _ := strings.CutPrefix(cfg.DB, "sqlite:")
	require.FileExists(t, file)
	require.NoError(t, env.Close())
	release()
	_, err = os.Stat(file)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = infra.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "unable to open database file")
	cfg.DB = "sqlite:" + t.TempDir() + "/shop.db"
	_, err = infra.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "Redis at 127.0.0.1:")
}

func TestOneRedisIsNamed(t *testing.T) {
	_, _, err := infra.Provide(t.Context(), infra.Config{Redis: "127.0.0.1:1", Cluster: "127.0.0.1:2"})
	require.ErrorContains(t, err, "say one")
}

// What the private server said yes to survives its death.
func TestSpawnedRedisSurvives(t *testing.T) {
	shoptest.NeedRedis(t)
	r, err := infra.SpawnRedis(t.Context())
	require.NoError(t, err)
	defer r.Close()
	rdb := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer rdb.Close()
	require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
	r.Kill()
	require.Error(t, rdb.Ping(t.Context()).Err())
	require.NoError(t, r.Start(t.Context()))
	require.Equal(t, "v", rdb.Get(t.Context(), "k").Val())
}

func TestMigrateTwice(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		for range 2 {
			require.NoError(t, env.Migrate(t.Context(), "CREATE TABLE IF NOT EXISTS things (k VARCHAR(20) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)"))
			require.NoError(t, env.Index(t.Context(), "things_n", "things", "n"))
		}
		insert := func(k string) int64 {
			res, err := env.DB.Exec(env.InsertNew("things", "k", "n"), k, 1)
			require.NoError(t, err)
			n, err := res.RowsAffected()
			require.NoError(t, err)
			return n
		}
		require.Equal(t, int64(1), insert("a"))
		require.Equal(t, int64(1), insert("A"), "texts are bytes")
		require.Equal(t, int64(0), insert("a"))
	})
}

// A transaction that the database gave up runs again; one that failed leaves nothing.
func TestTx(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		require.NoError(t, env.Migrate(t.Context(), "CREATE TABLE IF NOT EXISTS things (k VARCHAR(20) NOT NULL PRIMARY KEY)"))
		runs := 0
		attempt := func(result func() error) error {
			runs = 0
			return env.Tx(t.Context(), func(tx *sql.Tx) error {
				runs++
				_, err := tx.ExecContext(t.Context(), "INSERT INTO things (k) VALUES ('x')")
				return errors.Join(err, result())
			})
		}
		broken := errors.New("broken")
		require.ErrorIs(t, attempt(func() error { return broken }), broken)
		require.Equal(t, 1, runs)
		require.Error(t, attempt(func() error { return &mysql.MySQLError{Number: 1213} }))
		require.Equal(t, 3, runs)
		require.NoError(t, attempt(func() error {
			if runs == 1 {
				return &mysql.MySQLError{Number: 1213}
			}
			return nil
		}))
		require.Equal(t, 2, runs)
	})
}

// Writers of a process wait for each other and not inside SQLite, which here refuses to
// let anybody wait; and who cannot wait leaves.
func TestOneWriterAtATime(t *testing.T) {
	env := shoptest.Env(t)
	ctx := t.Context()
	require.NoError(t, env.Migrate(ctx, "CREATE TABLE IF NOT EXISTS things (k BIGINT NOT NULL PRIMARY KEY)"))
	conns := make([]*sql.Conn, env.DB.Stats().MaxOpenConnections)
	for i := range conns {
		var err error
		conns[i], err = env.DB.Conn(ctx)
		require.NoError(t, err)
		_, err = conns[i].ExecContext(ctx, "PRAGMA busy_timeout = 0")
		require.NoError(t, err)
	}
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	gone := errors.New("gone")
	errs := make([]error, 100)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if i%2 == 0 {
				_, errs[i] = env.DB.ExecContext(ctx, "INSERT INTO things (k) VALUES (?)", i)
				return
			}
			err := env.Tx(ctx, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO things (k) VALUES (?)", i)
				if err == nil && i%4 == 1 {
					err = gone
				}
				return err
			})
			if !errors.Is(err, gone) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	var n int
	require.NoError(t, env.DB.QueryRowContext(ctx, "SELECT COUNT(*) FROM things").Scan(&n))
	require.Equal(t, 75, n)

	require.NoError(t, env.Tx(ctx, func(tx *sql.Tx) error {
		for range 6 {
			hasty, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
			defer cancel()
			_, err := env.DB.ExecContext(hasty, "DELETE FROM things")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			_, err = env.DB.BeginTx(hasty, nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.NoError(t, env.DB.QueryRowContext(ctx, "SELECT COUNT(*) FROM things").Scan(&n))
		require.Equal(t, 75, n)
		_, err := tx.ExecContext(ctx, "DELETE FROM things")
		return err
	}), "to wait for others is no sign that the database is down")
	_, err := env.DB.ExecContext(ctx, "DELETE FROM things")
	require.NoError(t, err, "who left is not waited for")

	// Another process writes: what SQLite refuses holds up nobody later.
	other, err := sql.Open("sqlite", strings.TrimPrefix(env.Config.DB, "sqlite:"))
	require.NoError(t, err)
	defer other.Close()
	conn, err := other.Conn(ctx)
	require.NoError(t, err)
	_, err = conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	require.NoError(t, err)
	_, err = env.DB.BeginTx(ctx, nil)
	require.ErrorContains(t, err, "locked")
	_, err = conn.ExecContext(ctx, "ROLLBACK")
	require.NoError(t, err)
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = env.DB.ExecContext(soon, "DELETE FROM things")
	require.NoError(t, err)
}

// While SlowSQL is on statements take long, and a caller who cannot wait leaves.
func TestSlowSQL(t *testing.T) {
	env := shoptest.Env(t)
	ask := func(patience time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		err := env.DB.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
		return time.Since(began), err
	}
	require.NoError(t, env.Switches.Set(t.Context(), infra.SlowSQL, true))
	took, err := ask(time.Minute)
	require.NoError(t, err)
	require.GreaterOrEqual(t, took, 400*time.Millisecond)
	for range 5 {
		_, err = ask(20 * time.Millisecond)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	took, err = ask(time.Minute)
	require.ErrorIs(t, err, gobreaker.ErrOpenState, "after five in a row nobody waits any more")
	require.Less(t, took, 400*time.Millisecond)
	require.NoError(t, env.Switches.Set(t.Context(), infra.SlowSQL, false))
	require.Eventually(t, func() bool {
		_, err := ask(time.Minute)
		return err == nil
	}, time.Minute, 50*time.Millisecond)
}

// What the database refuses is an answer: it does not open the breaker. Nor do
// callers who leave.
func TestAnswersDoNotOpenTheBreaker(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		require.NoError(t, env.Migrate(t.Context(), "CREATE TABLE IF NOT EXISTS things (k VARCHAR(20) NOT NULL PRIMARY KEY)"))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			_, err := env.DB.Exec("INSERT INTO things (k) VALUES ('x')")
			require.NotErrorIs(t, err, gobreaker.ErrOpenState)
			_, err = env.DB.Exec("INSERT INTO nowhere (k) VALUES ('x')")
			require.Error(t, err)
			_, err = env.DB.ExecContext(gone, "INSERT INTO things (k) VALUES ('y')")
			require.Error(t, err)
		}
		require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM things").Scan(new(int)))
	})
}

func TestOriginAllowed(t *testing.T) {
	cfg := infra.Config{Origins: "https://shop.example"}
	for origin, want := range map[string]bool{
		"http://127.0.0.1:8080": true, "https://127.0.0.1:8080": true, "http://127.0.0.1:8081": false,
		"https://shop.example": true, "http://shop.example": false, "": false, "null": false,
	} {
		require.Equal(t, want, cfg.OriginAllowed(origin, "127.0.0.1:8080"), origin)
	}
}

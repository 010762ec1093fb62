// Package sqltest gives tests SQL databases, and is where the stores of all packages
// are tested on them: a package whose own tests imported a driver would bring that
// driver's modules into every consumer's go.sum.
//
// SQLite is always there, in a file of the test's own. MariaDB and PostgreSQL run
// where mariadbd and initdb are on PATH: a private server per test binary, that ends
// with it. A missing mariadbd skips, or fails if REDIS_REQUIRED=1, which is how CI asks
// for everything; PostgreSQL only ever skips.
package sqltest

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // registers "mysql"
	_ "github.com/lib/pq"              // registers "postgres"
	_ "modernc.org/sqlite"             // registers "sqlite"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/sqldb"
)

// patience is how long a server may take to start: many times what it takes.
const patience = time.Minute

// A Database is one that a test has to itself.
type Database struct {
	*sql.DB
	Dialect sqldb.Dialect
	driver  string
	dsn     string
}

// Names returns what another process opens the same database with.
func (d Database) Names() (driver, dsn string) { return d.driver, d.dsn }

// Each runs f on an empty database of every kind.
func Each(t *testing.T, f func(t *testing.T, db Database)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("MariaDB", func(t *testing.T) { f(t, MariaDB(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, PostgreSQL(t)) })
}

// SQLite returns a database in a new file.
func SQLite(t testing.TB) Database {
	t.Helper()
	// WAL lets several processes share the file; a writer waits for its turn.
	dsn := "file:" + filepath.Join(t.TempDir(), "test.db") + "?_pragma=busy_timeout(20000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)"
	return open(t, sqldb.SQLite, "sqlite", dsn)
}

// MariaDB returns a new database on this binary's private server.
func MariaDB(t testing.TB) Database {
	t.Helper()
	requireMariaDB(t)
	s, err := mariaDB()
	if err != nil {
		t.Fatal(err)
	}
	return s.mariaDB(t)
}

func requireMariaDB(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("mariadbd"); err != nil {
		if os.Getenv("REDIS_REQUIRED") == "1" {
			t.Fatalf("REDIS_REQUIRED=1, but %v", err)
		}
		t.Skipf("needs MariaDB: %v (set REDIS_REQUIRED=1 to make this a failure)", err)
	}
}

// PostgreSQL returns a new database on this binary's private server.
func PostgreSQL(t testing.TB) Database {
	t.Helper()
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs PostgreSQL: %v", err)
		}
	}
	s, err := postgreSQL()
	if err != nil {
		t.Skipf("PostgreSQL does not start here: %v", err)
	}
	return s.database(t, sqldb.PostgreSQL, "postgres", func(name string) string {
		if name == "" {
			name = "postgres"
		}
		return "host=" + s.dir + " port=" + strconv.Itoa(s.port) + " user=spillway sslmode=disable dbname=" + name
	})
}

func open(t testing.TB, d sqldb.Dialect, driver, dsn string) Database {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return Database{db, d, driver, dsn}
}

// A server is a database server of this test binary.
type server struct {
	dir, socket string
	port        int
	log         string
	driver, dsn string // of its administrator
	command     func() *exec.Cmd
	cmd         *exec.Cmd
}

var databases atomic.Int64

func (s *server) database(t testing.TB, d sqldb.Dialect, driver string, dsn func(name string) string) Database {
	t.Helper()
	name := fmt.Sprintf("test%d_%d", os.Getpid(), databases.Add(1))
	admin := open(t, d, driver, dsn(""))
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return open(t, d, driver, dsn(name))
}

// mariaDB returns a new database on s.
func (s *server) mariaDB(t testing.TB) Database {
	t.Helper()
	return s.database(t, sqldb.MySQL, "mysql", func(name string) string {
		return "root@unix(" + s.socket + ")/" + name
	})
}

var (
	mariaDB    = sync.OnceValues(func() (*server, error) { return startMariaDB("--innodb-flush-log-at-trx-commit=0") })
	postgreSQL = sync.OnceValues(startPostgreSQL)

	mu      sync.Mutex
	started []*server
)

// Main is the TestMain of a package that uses Each: it ends the servers.
func Main(m *testing.M) { os.Exit(Tests{m}.Run()) }

// Tests are a package's tests, for a TestMain that does more than Main.
type Tests struct{ M *testing.M }

// Run runs the tests, ends the servers and returns the exit code.
func (t Tests) Run() int {
	code := t.M.Run()
	mu.Lock()
	defer mu.Unlock()
	for _, s := range started {
		s.end()
		_ = os.RemoveAll(s.dir)
	}
	return code
}

func startMariaDB(args ...string) (*server, error) {
	s, err := newServer()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data")
	install := exec.Command("mariadb-install-db", "--no-defaults", "--user="+whoami(), "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db")
	install.Env = s.env()
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	s.socket = filepath.Join(s.dir, "socket")
	return s, s.run("mysql", "root@unix("+s.socket+")/", nil, "mariadbd", append([]string{"--no-defaults", "--user=" + whoami(),
		"--datadir=" + data, "--skip-networking", "--socket=" + s.socket, "--pid-file=" + filepath.Join(s.dir, "pid"),
		"--skip-log-bin", "--max-connections=2000"}, args...)...)
}

func startPostgreSQL() (*server, error) {
	s, err := newServer()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data")
	as, err := unprivileged(s.dir)
	if err != nil {
		return nil, err
	}
	initdb := exec.Command("initdb", "-D", data, "-U", "spillway", "-A", "trust", "--no-sync")
	as(initdb)
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	dsn := "host=" + s.dir + " port=" + strconv.Itoa(s.port) + " user=spillway sslmode=disable dbname=postgres"
	return s, s.run("postgres", dsn, as, "postgres", "-D", data, "-k", s.dir, "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=1000")
}

func newServer() (*server, error) {
	dir, err := os.MkdirTemp("", "sqltest")
	if err != nil {
		return nil, err
	}
	// A number for PostgreSQL's socket; nothing listens on it.
	return &server{dir: dir, port: 5432, log: filepath.Join(dir, "log")}, nil
}

// env keeps temporary files apart: a MariaDB that starts removes those of all others
// that it finds, also of one that is at work.
func (s *server) env() []string { return append(os.Environ(), "TMPDIR="+s.dir) }

// run starts the server for the first time.
func (s *server) run(driver, dsn string, as func(*exec.Cmd), name string, args ...string) error {
	s.driver, s.dsn = driver, dsn
	s.command = func() *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = s.dir, s.env()
		if as != nil {
			as(cmd)
		}
		return cmd
	}
	mu.Lock()
	started = append(started, s)
	mu.Unlock()
	return s.start()
}

// start starts the server, which is not running, and waits until it answers.
func (s *server) start() error {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = out, out
	if err := start(cmd); err != nil {
		return err
	}
	s.cmd = cmd
	db, err := sql.Open(s.driver, s.dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := lifetime.ForNew(patience)
	defer cancel()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("%s did not answer: %w: %s", cmd.Path, err, text)
		}
	}
}

// end kills the server.
func (s *server) end() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

func whoami() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

// Package infra is what a server stands on: its configuration, Redis, the SQL
// database, ids and switches.
package infra

import (
	"cmp"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Config is where everything is. Each field is a flag of every command that needs
// it, and a variable of the environment: see Parse.
type Config struct {
	Addr    string        // where this server listens
	Server  string        // its name; different among the servers of one fleet
	Redis   string        // host:port, "spawn", or empty
	Cluster string        // host:port,host:port,… of a Redis Cluster
	DB      string        // sqlite:<file>, a MySQL DSN, or empty
	Origins string        // other origins whose pages may call, separated by commas
	Secret  string        // what the shuffle of order numbers and short links depends on
	Hold    time.Duration // how long an order may be unpaid
}

// Flags defines the flags of where the data is.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Redis, "redis", c.Redis, "`host:port` of a Redis; spawn: a private redis-server; empty: one simulated in this process")
	fs.StringVar(&c.Cluster, "redis-cluster", c.Cluster, "`host:port,…` of nodes of a Redis Cluster, instead of -redis")
	fs.StringVar(&c.DB, "db", c.DB, "`DSN` of MySQL or MariaDB (user:password@tcp(host:3306)/name), or sqlite:file; empty: SQLite in a temporary directory")
	fs.StringVar(&c.Origins, "origins", c.Origins, "`origins` beside the server's own whose pages may call it, separated by commas")
	fs.StringVar(&c.Secret, "secret", "change me", "what order numbers and short links are shuffled with; the same in all servers, for ever")
	fs.DurationVar(&c.Hold, "hold", cmp.Or(c.Hold, 15*time.Minute), "how long an order may be unpaid; the same in all servers")
}

// ServerFlags defines the flags of one server.
func (c *Config) ServerFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Addr, "addr", "127.0.0.1:8080", "`host:port` to listen on")
	fs.StringVar(&c.Server, "server", fmt.Sprintf("pid%d", os.Getpid()), "`name` of this server, different from the others'")
}

// Twin returns the variable of the environment that stands for a flag: of
// redis-cluster it is LIVESHOP_REDIS_CLUSTER.
func Twin(name string) string {
	return "LIVESHOP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Parse sets the flags of fs from args; those that are not there from their twins.
func Parse(fs *flag.FlagSet, args []string) error {
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		if value, ok := os.LookupEnv(Twin(f.Name)); ok {
			if err := f.Value.Set(value); err != nil && bad == nil {
				bad = fmt.Errorf("%s=%q: %w", Twin(f.Name), value, err)
			}
		}
	})
	if bad != nil {
		return bad
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return nil
}

// OriginAllowed reports whether a page of that origin may call a server that was
// called under the name host: its own pages, and those of Origins.
func (c Config) OriginAllowed(origin, host string) bool {
	if u, err := url.Parse(origin); err == nil && u.Host == host && host != "" {
		return true
	}
	return origin != "" && slices.Contains(strings.Split(c.Origins, ","), origin)
}

// Command liveshop is a live room with a flash sale: the packages of Spillway wired
// into a service. Without arguments it needs nothing but itself; see README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/demo"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/server"
)

// A command is one of the program's: it defines its flags and returns what to do
// once they are set.
type command struct {
	name, about string
	define      func(fs *flag.FlagSet) func(ctx context.Context, out io.Writer) error
}

var commands = []command{
	{"demo", "three servers, customers, and an address to open; the default", play},
	{"serve", "one server of a fleet", serve},
	{"bots", "thousands of customers, and a verdict", crowd},
	{"check", "the invariants of a shop, read from its Redis and database", judge},
	{"chaos", "a sale while servers and Redis are killed, and a verdict", breakage},
}

// quiet is for go-redis, which would write every failed dial to stderr: the one who
// needed the connection gets the error.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func main() {
	redis.SetLogger(quiet{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C does not wait for anything
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "liveshop:", err)
		}
		os.Exit(1)
	}
}

// run runs the command that args begin with; the first one if they begin with a flag.
func run(ctx context.Context, args []string, out io.Writer) error {
	name := commands[0].name
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	for _, c := range commands {
		if c.name != name {
			continue
		}
		fs := flag.NewFlagSet("liveshop "+name, flag.ContinueOnError)
		do := c.define(fs)
		if err := infra.Parse(fs, args); err != nil {
			return err
		}
		return do(ctx, out)
	}
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", c.name, c.about)
	}
	return fmt.Errorf("no command %q; there are the above", name)
}

// play is the demo.
func play(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	cfg := infra.Config{Hold: 30 * time.Second} // so that one can watch units come back
	cfg.Flags(fs)
	fs.StringVar(&cfg.Addr, "addr", "127.0.0.1:8080", "`host:port` of the page")
	opts := demo.Options{Logs: io.Discard}
	fs.DurationVar(&opts.For, "for", 0, "how `long`; until Ctrl-C if 0")
	verbose := fs.Bool("v", false, "show the logs of the servers")
	return func(ctx context.Context, out io.Writer) error {
		if *verbose {
			opts.Logs = os.Stderr
		}
		return demo.Run(ctx, cfg, opts, out)
	}
}

// serve is one server of the fleet. Without -redis and -db it is a fleet of one.
func serve(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	var cfg infra.Config
	cfg.Flags(fs)
	cfg.ServerFlags(fs)
	return func(ctx context.Context, out io.Writer) (err error) {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		cfg, release, err := infra.Provide(ctx, cfg)
		if err != nil {
			return err
		}
		defer release()
		env, err := infra.Open(ctx, cfg, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, env.Close()) }()
		s, err := server.New(ctx, env)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", cfg.Addr)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "http://%s\n", l.Addr())
		return s.Serve(ctx, l)
	}
}

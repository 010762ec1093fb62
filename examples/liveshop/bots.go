package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/bots"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/server"
)

// crowd is the command bots. Without -addr it brings up a service of its own.
func crowd(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	cfg := infra.Config{Hold: 3 * time.Second} // so that one can watch units come back
	cfg.Flags(fs)
	var opts bots.Options
	addr := fs.String("addr", "", "`host:port` of a service on this machine; empty: one is brought up")
	fs.IntVar(&opts.Customers, "n", 10_000, "customers")
	fs.Int64Var(&opts.Units, "units", 100, "what they want")
	fs.Float64Var(&opts.Rate, "rate", 0, "customers a second (an open loop); 0: the next one when one has the answer")
	fs.DurationVar(&opts.Within, "within", time.Minute, "how long the sale may take")
	return func(ctx context.Context, out io.Writer) error {
		if opts.Customers < 1 || opts.Units < 1 {
			return errors.New("-n and -units are at least 1")
		}
		if *addr != "" {
			base := "http://" + strings.TrimSuffix(strings.TrimPrefix(*addr, "http://"), "/") // as the demo prints it, too
			// The bots ask again and again while a server is away or busy; one that never was is
			// a mistake.
			err := (&client.Client{HTTP: http.DefaultClient, Base: base}).Call(ctx, "GET /rooms", nil, nil)
			if busy := new(api.Error); err != nil && !(errors.As(err, &busy) && busy.Status >= 500) {
				return fmt.Errorf("no service answers at %s: %w", base, err)
			}
			return bots.Run(ctx, base, opts, out)
		}
		return serving(ctx, cfg, opts, out)
	}
}

// serving runs the bots beside a server of this process, and stops it before it is
// judged: then nothing moves any more.
func serving(ctx context.Context, cfg infra.Config, opts bots.Options, out io.Writer) (err error) {
	fmt.Fprintf(out, "A server in this process, %s, %s.\n", redisOf(cfg), databaseOf(cfg))
	cfg, release, err := infra.Provide(ctx, cfg)
	if err != nil {
		return err
	}
	defer release()
	cfg.Server = "bots"
	env, err := infra.Open(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	s, err := server.New(ctx, env)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	open, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(open, l) }()
	end := sync.OnceValue(func() error {
		stop()
		return <-served
	})
	defer func() { err = errors.Join(err, end()) }()
	opts.Judge = func(ctx context.Context) ([]check.Verdict, error) {
		if err := end(); err != nil {
			return nil, err
		}
		return check.All(ctx, env)
	}
	return bots.Run(ctx, "http://"+l.Addr().String(), opts, out)
}

func redisOf(cfg infra.Config) string {
	switch {
	case cfg.Cluster != "":
		return "a Redis Cluster"
	case cfg.Redis == "":
		return "a Redis simulated in it (-redis host:port, or -redis spawn)"
	case cfg.Redis == "spawn":
		return "a private redis-server"
	}
	return "Redis at " + cfg.Redis
}

func databaseOf(cfg infra.Config) string {
	if cfg.DB == "" {
		return "SQLite"
	}
	return "the database of -db"
}

// judge is the command check.
func judge(fs *flag.FlagSet) func(context.Context, io.Writer) error {
	var cfg infra.Config
	cfg.Flags(fs)
	return func(ctx context.Context, out io.Writer) (err error) {
		if cfg.Redis == "" && cfg.Cluster == "" || cfg.Redis == "spawn" || cfg.DB == "" {
			return errors.New("say where the shop's data is: -redis or -redis-cluster, and -db")
		}
		cfg.Server = "check"
		env, err := infra.Open(ctx, cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, env.Close()) }()
		verdicts, err := check.All(ctx, env)
		return errors.Join(bots.Print(out, verdicts), err)
	}
}

// Package chaos breaks a shop while customers buy, and then judges it.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/examples/liveshop/internal/bots"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/demo"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Options of a run.
type Options struct {
	Customers int
	Units     int64
	Seed      uint64        // of the order in which things break
	Every     time.Duration // between one fault and the next
	Logs      io.Writer     // of the servers
}

// A shop is what is broken.
type shop struct {
	env   *infra.Env
	fleet *demo.Fleet
	redis *infra.RedisServer // nil if it is not ours to kill
}

// Run brings up three servers behind a proxy, sells, and breaks one thing after the
// other meanwhile. With -redis spawn, or without -redis where there is a redis-server,
// Redis is killed too: with an append-only file that is synced before each answer.
func Run(ctx context.Context, cfg infra.Config, opts Options, out io.Writer) (err error) {
	s := &shop{}
	if _, missing := exec.LookPath("redis-server"); cfg.Redis == "spawn" || cfg.Redis == "" && cfg.Cluster == "" && missing == nil {
		if s.redis, err = infra.SpawnRedis(ctx); err != nil {
			return err
		}
		defer s.redis.Close()
		cfg.Redis = s.redis.Addr
	}
	cfg, release, err := infra.Provide(ctx, cfg)
	if err != nil {
		return err
	}
	defer release()
	cfg.Server = "chaos"
	if s.env, err = infra.Open(ctx, cfg, slog.New(slog.NewTextHandler(opts.Logs, nil))); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.env.Close()) }()
	if s.fleet, err = demo.NewFleet(ctx, cfg, opts.Logs, "s1", "s2", "s3"); err != nil {
		return err
	}
	defer s.fleet.Stop(ctx)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := demo.NewProxy(s.fleet.Addrs)
	proxy.Look(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	work.Go(func() { proxy.Run(watching) })
	web := &http.Server{Handler: proxy, ReadHeaderTimeout: 5 * time.Second}
	work.Go(func() { _ = web.Serve(l) })
	defer func() { _ = web.Close() }()

	faults := s.faults()
	fmt.Fprintf(out, "Three servers; %d things break while they sell. Seed %d.\n", len(faults), opts.Seed)
	rng := rand.New(rand.NewPCG(opts.Seed, 1))
	rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	span := opts.Every * time.Duration(len(faults)+2)
	return bots.Run(ctx, "http://"+l.Addr().String(), bots.Options{
		Customers: opts.Customers, Units: opts.Units, Within: 3 * time.Minute,
		Star:   cfg.Cluster != "", // whose stock is on all masters
		Rate:   float64(opts.Customers) / span.Seconds(),
		During: func(ctx context.Context, out io.Writer) error { return breaks(ctx, faults, opts.Every, out) },
		Judge: func(ctx context.Context) ([]check.Verdict, error) {
			s.fleet.Stop(ctx) // then nothing moves any more
			return check.All(ctx, s.env)
		},
	}, out)
}

// A fault is one thing that breaks, and what makes it whole again, if it does not by itself.
type fault struct {
	name  string
	begin func(ctx context.Context) error
	end   func(ctx context.Context) error
}

func (s *shop) faults() []fault {
	var all []fault
	for _, name := range []string{"s1", "s2", "s3"} {
		all = append(all, fault{
			"kill server " + name,
			func(context.Context) error { _, err := s.fleet.Kill(name); return err },
			func(ctx context.Context) error { return s.fleet.Start(ctx, name) },
		})
	}
	slow := func(on bool) func(context.Context) error {
		return func(ctx context.Context) error { return s.env.Switches.Set(ctx, infra.SlowSQL, on) }
	}
	all = append(all,
		fault{"slow SQL", slow(true), slow(false)},
		fault{"SCRIPT FLUSH", s.flush, nil},
		fault{"SCRIPT FLUSH again", s.flush, nil},
	)
	if s.redis != nil {
		all = append(all, fault{
			"kill Redis",
			func(context.Context) error { s.redis.Kill(); return nil },
			s.redis.Start,
		})
	}
	return all
}

// flush makes Redis forget all scripts.
func (s *shop) flush(ctx context.Context) error {
	if cluster, ok := s.env.Redis.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return node.ScriptFlush(ctx).Err() })
	}
	return s.env.Redis.ScriptFlush(ctx).Err()
}

// breaks lets one fault happen after the other. Each lasts as long as the pause that
// follows it.
func breaks(ctx context.Context, faults []fault, every time.Duration, out io.Writer) error {
	for _, f := range faults {
		if !pause(ctx, every/2) {
			return ctx.Err()
		}
		fmt.Fprintf(out, "         %s\n", f.name)
		if err := f.begin(ctx); err != nil {
			return fmt.Errorf("chaos: %s: %w", f.name, err)
		}
		whole := pause(ctx, every/2)
		if f.end != nil {
			if err := f.end(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("chaos: after %s: %w", f.name, err)
			}
		}
		if !whole {
			return ctx.Err()
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

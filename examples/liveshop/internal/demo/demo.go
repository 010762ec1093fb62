// Package demo is the shop for looking at: three servers, one address in front of
// them, customers, and an operator who can break things.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/bots"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// Options of a demo.
type Options struct {
	For  time.Duration // how long; until ctx ends if 0
	Logs io.Writer     // of the servers
}

// Run brings everything up and serves until ctx ends, or for Options.For.
func Run(ctx context.Context, cfg infra.Config, opts Options, out io.Writer) (err error) {
	began := time.Now()
	cfg, release, err := infra.Provide(ctx, cfg)
	if err != nil {
		return err
	}
	defer release()
	cfg.Server = "demo"
	env, err := infra.Open(ctx, cfg, slog.New(slog.NewTextHandler(opts.Logs, nil)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	fleet, err := NewFleet(ctx, cfg, opts.Logs, "s1", "s2", "s3")
	if err != nil {
		return err
	}
	defer fleet.Stop(ctx)
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return err
	}
	base := "http://" + l.Addr().String()
	proxy := NewProxy(fleet.Addrs)
	web := &http.Server{ReadHeaderTimeout: 5 * time.Second}
	var work sync.WaitGroup
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer work.Wait()
	defer cancel()
	proxy.Look(ctx)
	work.Go(func() { proxy.Run(background) })
	var control atomic.Pointer[api.Mux] // the rooms are opened through the front door, before there is an operator
	web.Handler = route(&control, proxy)
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	defer func() { _ = web.Close() }()

	fmt.Fprintf(out, "Open %s (ready in %.1f s; Ctrl-C ends it)\n", base, time.Since(began).Seconds())
	fmt.Fprintf(out, "Three servers behind it: %s\n", strings.Join(fleet.Addrs(), ", "))
	people, err := newPeople(ctx, base, env.Log)
	if err != nil && ctx.Err() == nil {
		return err
	}
	mux, err := newControl(env, fleet, people)
	if err != nil {
		return err
	}
	control.Store(mux)
	lives, leave := context.WithCancel(background)
	defer leave()
	work.Go(func() { people.Run(lives) })
	var over <-chan time.Time
	if opts.For > 0 {
		over = time.After(opts.For)
	}
	select {
	case err := <-served:
		return err
	case <-over:
	case <-ctx.Done():
	}
	fmt.Fprintln(out, "The servers stop; then what is left is judged.")
	leave()
	fleet.Stop(ctx) // while the address still answers
	return judge(ctx, env, out)
}

// judge says whether what must hold does, now that nothing moves any more.
func judge(ctx context.Context, env *infra.Env, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	verdicts, err := check.All(ctx, env)
	return errors.Join(bots.Print(out, verdicts), err)
}

// route sends what is about the demo itself to the control, all else to a server.
func route(control *atomic.Pointer[api.Mux], servers http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, api.Prefix+"/admin/demo/") {
			if m := control.Load(); m != nil {
				m.ServeHTTP(w, r)
				return
			}
			later(w, http.StatusServiceUnavailable, "unavailable", "the rooms are not open yet")
			return
		}
		servers.ServeHTTP(w, r)
	})
}

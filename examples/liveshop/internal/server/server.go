// Package server is one server process of the shop: all parts wired together.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// stopWithin is how long a graceful stop takes at most: orchestrators kill after 10 s.
const stopWithin = 9 * time.Second

// A part is an area of the service. It may have more methods, which add looks for:
//
//   - Run(ctx) error is its background work; it returns nil after a drain.
//   - Ready() bool says whether Run has come so far that requests can be served.
//   - Leave(ctx) tells those who are connected that this server stops.
//   - Close(ctx) error ends what New started.
type part interface{ Routes(m *api.Mux) }

// A Server is all parts, behind one handler.
type Server struct {
	env   *infra.Env
	mux   *api.Mux
	run   map[string]func(context.Context) error
	leave []func(context.Context)
	close []func(context.Context) error
}

// New returns a server, whose parts are put together in shop.go.
func New(ctx context.Context, env *infra.Env) (_ *Server, err error) {
	s := &Server{env: env, run: map[string]func(context.Context) error{}}
	if err := s.wire(ctx); err != nil {
		return nil, errors.Join(err, s.closeParts(ctx))
	}
	return s, nil
}

// add registers a part. Parts are closed in the reverse order.
func (s *Server) add(name string, p part) {
	p.Routes(s.mux)
	if p, ok := p.(interface{ Run(context.Context) error }); ok {
		s.run[name] = p.Run
	}
	if p, ok := p.(interface{ Ready() bool }); ok {
		s.mux.ReadyWhen(p.Ready)
	}
	if p, ok := p.(interface{ Leave(context.Context) }); ok {
		s.leave = append(s.leave, p.Leave)
	}
	if p, ok := p.(interface{ Close(context.Context) error }); ok {
		s.close = append(s.close, p.Close)
	}
}

// Serve serves on l until ctx ends, and then stops in order: /readyz says no, those
// who are connected are told, requests under way are finished, background work is
// drained and closed, all within 10 s. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var work sync.WaitGroup
	for name, run := range s.run {
		work.Go(func() {
			if err := run(background); err != nil {
				s.env.Log.Error("background work ended", "part", name, "err", err)
			}
		})
	}
	web := &http.Server{Handler: s.mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	s.mux.SetReady(true)
	s.env.Log.Info("serving", "addr", l.Addr().String())

	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
	}
	s.mux.SetReady(false)
	last, done := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer done()
	for _, leave := range s.leave {
		leave(last)
	}
	var errs []error
	if failed == nil {
		errs = append(errs, s.shutdown(last, web))
	}
	cancel()
	drained := make(chan struct{})
	go func() { work.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-last.Done():
		errs = append(errs, errors.New("server: background work did not end in time"))
	}
	errs = append(errs, failed, s.closeParts(last))
	s.env.Log.Info("stopped")
	return errors.Join(errs...)
}

// shutdown finishes the requests under way. A balancer needs a moment to hear that
// this server is not ready, and may send requests until then.
func (s *Server) shutdown(ctx context.Context, web *http.Server) error {
	select {
	case <-time.After(notice):
	case <-ctx.Done():
	}
	requests, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := web.Shutdown(requests); err != nil {
		return errors.Join(fmt.Errorf("server: requests did not end in time: %w", err), web.Close())
	}
	return nil
}

// notice is how long a server that stops still takes requests.
const notice = 500 * time.Millisecond

func (s *Server) closeParts(ctx context.Context) error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i](ctx))
	}
	return errors.Join(errs...)
}

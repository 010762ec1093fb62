package demo

import (
	"context"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// newControl returns the calls with which an operator breaks things, under
// /admin/demo. They are of the parent process: a server cannot restart itself.
func newControl(env *infra.Env, fleet *Fleet, people *people) (*api.Mux, error) {
	m, err := api.New(env, func(context.Context, string) (int64, error) { return 0, nil })
	if err != nil {
		return nil, err
	}
	type server struct {
		Server string `json:"server"` // empty: any
	}
	m.Admin("POST /admin/demo/kill", func(r *api.Request) (any, error) {
		var in server
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		name, err := fleet.Kill(in.Server)
		if err != nil {
			return nil, api.Conflict("not_running", err.Error())
		}
		return server{name}, nil
	})
	m.Admin("POST /admin/demo/restart", func(r *api.Request) (any, error) {
		started := fleet.Down()
		for _, name := range started {
			if err := fleet.Start(r.Context(), name); err != nil {
				return nil, err
			}
		}
		return map[string][]string{"started": started}, nil
	})
	m.Admin("POST /admin/demo/slow-sql", func(r *api.Request) (any, error) {
		var in struct {
			On bool `json:"on"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		return in, env.Switches.Set(r.Context(), infra.SlowSQL, in.On)
	})
	type where struct {
		Room int64 `json:"room"` // 0 or unknown: the first one
		N    int   `json:"n"`
	}
	m.Admin("POST /admin/demo/sale", func(r *api.Request) (any, error) {
		var in where
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		room, sku, err := people.sale(r.Context(), in.Room)
		return map[string]any{"room": room, "sku": sku}, err
	})
	m.Admin("POST /admin/demo/bots", func(r *api.Request) (any, error) {
		var in where
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		if in.N < 1 || in.N > 100_000 {
			return nil, api.Bad("n: want 1 to 100,000 customers")
		}
		room, sku, err := people.rush(r.Context(), in.Room, in.N)
		return map[string]any{"room": room, "sku": sku, "n": in.N}, err
	})
	return m, nil
}

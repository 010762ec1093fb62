package server

import (
	"context"
	"slices"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// operate is the part for who runs the shop: switches, and figures of the fleet.
type operate struct {
	env *infra.Env
	mux *api.Mux
}

// Routes registers the calls of operators.
func (o *operate) Routes(m *api.Mux) {
	m.Admin("PUT /admin/switch/{name}", o.flip)
}

// Run follows the switches.
func (o *operate) Run(ctx context.Context) error { return o.env.Switches.Run(ctx) }

func (o *operate) flip(r *api.Request) (any, error) {
	name := r.PathValue("name")
	if !slices.Contains(infra.Switches, name) {
		return nil, api.NotFound("switch")
	}
	var in struct {
		On bool `json:"on"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	return map[string]bool{name: in.On}, o.env.Switches.Set(r.Context(), name, in.On)
}

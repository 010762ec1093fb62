package server

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

// fleetKey is a hash: what each server last told of itself, by its name.
const fleetKey = "liveshop:fleet"

const (
	tellEvery = time.Second
	upFor     = 3 * time.Second  // a server that was not heard of for so long is down,
	knownFor  = 10 * time.Minute // and forgotten after this
)

// operate is the part for who runs the shop: switches, and figures of the fleet.
type operate struct {
	env *infra.Env
	mux *api.Mux

	// What other parts know; nil where there is no such part.
	stock   func(ctx context.Context) (any, error) // of the whole shop
	sockets func() int                             // of this server
	orders  func() uint64                          // of this server since it began

	lastOrders uint64
	lastTold   time.Time
}

func newOperate(env *infra.Env, mux *api.Mux) *operate { return &operate{env: env, mux: mux} }

// Routes registers the calls of operators.
func (o *operate) Routes(m *api.Mux) {
	m.Admin("PUT /admin/switch/{name}", o.flip)
	m.Admin("GET /admin/stats", o.stats)
}

// Run follows the switches, and tells the fleet how this server is.
func (o *operate) Run(ctx context.Context) error {
	followed := make(chan error, 1)
	go func() { followed <- o.env.Switches.Run(ctx) }()
	for t := time.NewTicker(tellEvery); ; {
		if err := o.tell(ctx); err != nil && ctx.Err() == nil {
			o.env.Log.Warn("figures not told", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return <-followed
		}
	}
}

// Close takes this server out of the fleet's figures: it is not down, it is gone.
func (o *operate) Close(ctx context.Context) error {
	return o.env.Redis.HDel(ctx, fleetKey, o.env.Server).Err()
}

func (o *operate) flip(r *api.Request) (any, error) {
	name := r.PathValue("name")
	if !slices.Contains(infra.Switches, name) {
		return nil, api.NotFound("switch")
	}
	var in struct {
		On *bool `json:"on"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.On == nil { // which is not off
		return nil, api.Bad("on: want true or false")
	}
	return map[string]bool{name: *in.On}, o.env.Switches.Set(r.Context(), name, *in.On)
}

// figures are what a server tells of itself.
type figures struct {
	ID string `json:"id"`
	Up bool   `json:"up"`
	api.Stats
	Sockets int     `json:"sockets"`
	Told    int64   `json:"told_ms"`
	Hits    uint64  `json:"hits"`
	Misses  uint64  `json:"misses"`
	Allowed uint64  `json:"allowed"`
	Denied  uint64  `json:"denied"`
	Orders  float64 `json:"orders_per_s"`
}

func (o *operate) tell(ctx context.Context) error {
	now := time.Now()
	f := figures{ID: o.env.Server, Stats: o.mux.Stats(), Told: now.UnixMilli()}
	f.Allowed, f.Denied = f.Stats.Allowed, f.Stats.Denied
	f.Hits, f.Misses = o.env.Caches()
	if o.sockets != nil {
		f.Sockets = o.sockets()
	}
	if o.orders != nil {
		orders := o.orders()
		if !o.lastTold.IsZero() {
			f.Orders = float64(orders-o.lastOrders) / now.Sub(o.lastTold).Seconds()
		}
		o.lastOrders, o.lastTold = orders, now
	}
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellEvery)
	defer cancel()
	return o.env.Redis.HSet(ctx, fleetKey, o.env.Server, text).Err()
}

// fleet returns what all servers told of themselves, by name. Their clocks are
// compared with this one's, which is good enough for a picture.
func (o *operate) fleet(ctx context.Context) ([]figures, error) {
	all, err := o.env.Redis.HGetAll(ctx, fleetKey).Result()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	fleet := []figures{}
	var forgotten []string
	for name, text := range all {
		var f figures
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			forgotten = append(forgotten, name)
			continue
		}
		age := now.Sub(time.UnixMilli(f.Told))
		if age > knownFor {
			forgotten = append(forgotten, name)
			continue
		}
		if f.Up = age < upFor; !f.Up {
			f.Sockets, f.Orders = 0, 0
		}
		fleet = append(fleet, f)
	}
	if len(forgotten) > 0 {
		_ = o.env.Redis.HDel(ctx, fleetKey, forgotten...).Err() // the next look tries again
	}
	slices.SortFunc(fleet, func(a, b figures) int { return strings.Compare(a.ID, b.ID) })
	return fleet, nil
}

func (o *operate) stats(r *api.Request) (any, error) {
	fleet, err := o.fleet(r.Context())
	if err != nil {
		return nil, err
	}
	var hits, misses, allowed, denied uint64
	orders := 0.0
	for _, f := range fleet {
		hits, misses = hits+f.Hits, misses+f.Misses
		allowed, denied = allowed+f.Allowed, denied+f.Denied
		orders += f.Orders
	}
	switches := map[string]bool{}
	for _, name := range infra.Switches {
		switches[name] = false
	}
	maps.Copy(switches, o.env.Switches.All())
	out := map[string]any{
		"servers":      fleet,
		"cache":        map[string]uint64{"hits": hits, "misses": misses},
		"limiter":      map[string]uint64{"allowed": allowed, "denied": denied},
		"switches":     switches,
		"orders_per_s": orders,
		"stock":        []any{},
	}
	if o.stock != nil {
		if out["stock"], err = o.stock(r.Context()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

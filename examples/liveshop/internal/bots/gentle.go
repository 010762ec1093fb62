package bots

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
)

// Gentle are a few customers who stay: they chat, like, give, buy and mostly pay, so
// that there is something to see.
type Gentle struct {
	stages []*Stage
	web    *http.Client
}

// Open makes the rooms of a demo.
func Open(ctx context.Context, base string) (*Gentle, error) {
	g := &Gentle{
		stages: make([]*Stage, len(rooms)),
		web:    &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(), Timeout: 10 * time.Second},
	}
	errs := make([]error, len(rooms))
	var wg sync.WaitGroup
	for i, r := range rooms {
		wg.Go(func() {
			g.stages[i], errs[i] = NewStage(ctx, base, fmt.Sprintf("1390000000%d", i), r.title, r.kind, r.grants...)
			for _, p := range r.shelf {
				if errs[i] == nil {
					_, errs[i] = g.stages[i].Sell(ctx, p)
				}
			}
		})
	}
	wg.Wait()
	return g, errors.Join(errs...)
}

// Stage returns who is in a room; the first one if nobody is.
func (g *Gentle) Stage(room int64) *Stage {
	for _, s := range g.stages {
		if s.Room == room {
			return s
		}
	}
	return g.stages[0]
}

// Run lets n customers into the rooms at base, until ctx ends.
func (g *Gentle) Run(ctx context.Context, base string, n int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range n {
		me := &client.Client{HTTP: g.web, Base: base, From: fmt.Sprintf("10.255.0.%d", i%250)}
		stage := g.stages[i%len(g.stages)]
		wg.Go(func() {
			if me.LogIn(ctx, fmt.Sprintf("136%08d", i)) == nil {
				g.stay(ctx, me, stage)
			}
		})
	}
	for _, s := range g.stages {
		wg.Go(func() { s.direct(ctx) })
	}
}

// stay is one customer in a room.
func (g *Gentle) stay(ctx context.Context, me *client.Client, stage *Stage) {
	rains := make(chan rain, 1)
	var mu sync.Mutex
	say := func(string, any) {} // until there is a socket
	watching := *me             // a Client is used by one goroutine at a time
	w := &watcher{me: &watching, room: stage.Room}
	w.see = func(f im.Received, speak func(string, any)) {
		mu.Lock()
		say = speak
		mu.Unlock()
		var news rain
		if f.Type == "rain" && json.Unmarshal(f.Data, &news) == nil {
			select {
			case rains <- news:
			default: // one at a time
			}
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.watch(ctx, func() {}) })
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case r := <-rains:
			g.grab(ctx, me, stage, r)
		case <-time.After(time.Second + mrand.N(5*time.Second)):
			mu.Lock()
			speak := say
			mu.Unlock()
			g.act(ctx, me, stage, speak)
		}
	}
}

// act does one thing. What fails is left: the next one comes in a moment.
func (g *Gentle) act(ctx context.Context, me *client.Client, stage *Stage, say func(string, any)) {
	room := fmt.Sprintf("/rooms/%d", stage.Room)
	switch dice := mrand.IntN(100); {
	case dice < 45:
		say("barrage", map[string]string{"text": talk[mrand.IntN(len(talk))]})
	case dice < 70:
		_ = me.Call(ctx, "POST "+room+"/like", map[string]int{"n": 1 + mrand.IntN(9)}, nil)
	case dice < 72 && stage.kind == "pk":
		_ = me.Call(ctx, "POST "+room+"/pk/join", nil, nil)
	case dice < 84:
		in := map[string]any{"gift": []string{"rose", "rose", "rose", "heart", "heart", "cake", "car"}[mrand.IntN(7)], "key": rand.Text()}
		if to := g.side(ctx, me, stage); to != 0 {
			in["to"] = to
		}
		_ = solvent(ctx, me, func() error { return me.Call(ctx, "POST "+room+"/gifts", in, nil) })
	default:
		_ = g.shop(ctx, me, stage)
	}
}

// side is whom a gift is for where two compete; 0: the host.
func (g *Gentle) side(ctx context.Context, me *client.Client, stage *Stage) int64 {
	var in struct {
		PK *struct {
			A, B  int64
			State string
		}
	}
	if stage.kind != "pk" || me.Call(ctx, fmt.Sprintf("GET /rooms/%d", stage.Room), nil, &in) != nil || in.PK == nil || in.PK.State != "on" {
		return 0
	}
	if to := []int64{in.PK.A, in.PK.B}[mrand.IntN(2)]; to != me.Me.UID {
		return to
	}
	return 0
}

// solvent does what costs money, and recharges if there is too little.
func solvent(ctx context.Context, me *client.Client, pay func() error) error {
	err := pay()
	if refused := new(api.Error); errors.As(err, &refused) && refused.Code == "poor" {
		if err := me.Sure(ctx, "POST /recharge", map[string]any{"fen": 1_000_000, "key": rand.Text()}, nil); err != nil {
			return err
		}
		return pay()
	}
	return err
}

// shop buys something that is there, and pays in a moment, or forgets it.
func (g *Gentle) shop(ctx context.Context, me *client.Client, stage *Stage) error {
	shelf, err := stage.Shelf(ctx, me)
	if err != nil || len(shelf) == 0 {
		return err
	}
	item := shelf[mrand.IntN(len(shelf))]
	if item.Left == 0 && mrand.IntN(3) > 0 {
		return nil
	}
	var order placed
	if err := me.Call(ctx, "POST /orders/token", nil, &order); err != nil {
		return err
	}
	in := map[string]any{"order_id": order.OrderID, "room": stage.Room, "items": []map[string]any{{"sku": item.SKU, "qty": 1}}}
	if err := me.Call(ctx, "POST /orders", in, &order); err != nil || mrand.IntN(5) == 0 {
		return err
	}
	if !sleep(ctx, 2*time.Second+mrand.N(5*time.Second)) {
		return ctx.Err()
	}
	saves := mrand.IntN(3) == 0
	return solvent(ctx, me, func() error { return payOrder(ctx, me, order.OrderID, saves, nil) })
}

// A rain is what its frame says that matters to who grabs.
type rain struct {
	ID     int64 `json:"id"`
	Starts int64 `json:"starts"`
}

// grab takes a packet when the rain begins.
func (g *Gentle) grab(ctx context.Context, me *client.Client, stage *Stage, r rain) {
	if sleep(ctx, time.Until(time.UnixMilli(r.Starts))+mrand.N(3*time.Second)) {
		_ = me.Call(ctx, fmt.Sprintf("POST /rooms/%d/rain/grab", stage.Room), map[string]int64{"id": r.ID}, nil)
	}
}

// direct is what a host does: sells something new when all is gone, and lets it rain.
func (s *Stage) direct(ctx context.Context) {
	for n := 0; sleep(ctx, 15*time.Second+mrand.N(10*time.Second)); n++ {
		shelf, err := s.Shelf(ctx, s.host)
		if left := int64(0); err == nil {
			for _, item := range shelf {
				left += item.Left
			}
			if left == 0 {
				_, _ = s.Sell(ctx, drops[mrand.IntN(len(drops))]) // else the next time
			}
		}
		if s.rains && n%3 == 1 {
			_ = s.rain(ctx)
		}
	}
}

func (s *Stage) rain(ctx context.Context) error {
	room := fmt.Sprintf("POST /rooms/%d/rain/", s.Room)
	in := map[string]any{"total": 5000, "count": 20, "key": rand.Text()}
	var prepared struct{ ID int64 }
	if err := solvent(ctx, s.host, func() error { return s.host.Call(ctx, room+"prepare", in, &prepared) }); err != nil {
		return err
	}
	return s.host.Sure(ctx, room+"start", map[string]int64{"id": prepared.ID}, nil)
}

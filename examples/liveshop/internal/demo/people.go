package demo

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/bots"
)

const (
	gentle = 24  // customers who are always there
	units  = 100 // of what the operator puts on sale
)

// people are the hosts and customers of a demo. They come in through the front door.
type people struct {
	base   string
	cast   *bots.Gentle
	log    *slog.Logger
	rushes chan rush
	busy   atomic.Bool // with a rush

	mu     sync.Mutex
	latest map[int64]string // SKU of the operator's last sale in a room
}

// A rush is many customers at once.
type rush struct {
	room int64
	sku  string
	n    int
}

func newPeople(ctx context.Context, base string, log *slog.Logger) (*people, error) {
	cast, err := bots.Open(ctx, base)
	return &people{base: base, cast: cast, log: log, rushes: make(chan rush), latest: map[int64]string{}}, err
}

// Run lets them live until ctx ends.
func (p *people) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.cast.Run(ctx, p.base, gentle) })
	for {
		select {
		case r := <-p.rushes:
			p.hold(ctx, r)
			p.busy.Store(false)
		case <-ctx.Done():
			return
		}
	}
}

// hold is one rush. Who comes late finds everything sold, and leaves.
func (p *people) hold(ctx context.Context, r rush) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	c := bots.NewCrowd(p.base, r.room, r.sku, units)
	defer c.Close()
	if err := c.LogIn(ctx, r.n); err != nil {
		p.log.Warn("rush", "err", err)
		return
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	buying, over := context.WithCancel(ctx)
	defer over()
	watching.Go(func() { c.LeaveWhenSold(buying) }) // those who are always there buy, too
	c.Come(ctx, 0)
}

// sale puts something on sale in a room.
func (p *people) sale(ctx context.Context, room int64) (at int64, sku string, err error) {
	stage := p.cast.Stage(room)
	sku, err = stage.Sell(ctx, bots.Product{Title: "Flash sale", Image: "headphones", Fen: 9900, Total: units, PerUser: 2})
	if err == nil {
		p.mu.Lock()
		p.latest[stage.Room] = sku
		p.mu.Unlock()
	}
	return stage.Room, sku, err
}

// rush sends n customers to the operator's last sale in a room; to a new one if there was
// none, or nothing is left of it.
func (p *people) rush(ctx context.Context, room int64, n int) (at int64, sku string, err error) {
	if !p.busy.CompareAndSwap(false, true) {
		return 0, "", api.Conflict("crowded", "the last ones are still there")
	}
	defer func() {
		if err != nil {
			p.busy.Store(false)
		}
	}()
	at = p.cast.Stage(room).Room
	p.mu.Lock()
	sku = p.latest[at]
	p.mu.Unlock()
	if sku == "" || p.cast.Stage(room).SoldOut(ctx, sku) {
		if at, sku, err = p.sale(ctx, room); err != nil {
			return at, "", err
		}
	}
	select {
	case p.rushes <- rush{at, sku, n}:
		return at, sku, nil
	case <-ctx.Done():
		return at, sku, ctx.Err()
	}
}

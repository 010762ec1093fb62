package sale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-go/spillway/delayqueue"
)

// A job is something that one server has to do, now or soon: the queue is the message
// queue of this package. It is done again if the server that took it dies.
type job struct {
	Forget []int64     `json:"forget,omitempty"` // rooms whose shelves are deleted from the cache again
	Room   int64       `json:"room,omitempty"`
	Stock  *StockFrame `json:"stock,omitempty"` // to be published in the room
}

// A StockFrame says that a product sold out or came back. Versions only grow: a page
// keeps the highest it has seen and ignores what is older.
type StockFrame struct {
	SKU     string `json:"sku"`
	Left    int64  `json:"left"`
	Version int64  `json:"version"`
}

// FrameID names the frame, so that one that is published again, after a lost answer,
// is shown once.
func (f StockFrame) FrameID() string { return fmt.Sprintf("stock-%s-%d", f.SKU, f.Version) }

// An OrderFrame tells the buyer what became of an order.
type OrderFrame struct {
	OrderID int64  `json:"order_id"`
	State   string `json:"state"`
}

// announceAll announces each sell-out and each return in a room until heard is closed:
// those that the stock tells of, and, by a look at the levels, those of before anybody
// listened: a product may be gone before a server has noticed that its room opened. Of
// what is in buckets the look also tells when one of them runs out or has some again.
func (s *Sale) announceAll(ctx context.Context, l *live, heard <-chan struct{}) {
	told := map[string]int64{} // versions, by SKU
	tell := func(f StockFrame) {
		if f.Version > told[f.SKU] {
			told[f.SKU] = f.Version
			s.crossed(ctx, l.room, f)
		}
	}
	for t := time.NewTicker(lookAtLevels); ; {
		levels, err := l.stock.Stock(ctx)
		if err != nil {
			s.troubled(ctx, "look for events", l.room, err)
		}
		for sku, level := range levels {
			tell(StockFrame{SKU: sku, Left: level.Left, Version: level.Version})
		}
		for again := false; !again; {
			select {
			case e := <-l.events:
				tell(StockFrame{SKU: e.SKU, Left: e.Left, Version: e.Version})
			case <-t.C:
				again = true
			case <-heard:
				t.Stop()
				return
			}
		}
	}
}

// lookAtLevels is how often what is left is looked at for events that were missed.
const lookAtLevels = time.Second

// crossed passes on that a SKU sold out or came back. Every server hears of it; the
// job's id makes one announcement of what they say.
func (s *Sale) crossed(ctx context.Context, room int64, f StockFrame) {
	for ctx.Err() == nil {
		err := s.announce(ctx, room, f)
		if err == nil || errors.Is(err, delayqueue.ErrInvalid) || errors.Is(err, delayqueue.ErrClosed) {
			return
		}
		s.troubled(ctx, "announce", room, err)
		pause(ctx, 200*time.Millisecond)
	}
}

func (s *Sale) announce(ctx context.Context, room int64, f StockFrame) error {
	_, err := s.jobs.Add(ctx, delayqueue.Job{
		ID:   fmt.Sprintf("stock-%d-%s-%d", room, f.SKU, f.Version),
		Body: encode(job{Room: room, Stock: &f}),
	})
	if errors.Is(err, delayqueue.ErrDuplicate) {
		return nil
	}
	return err
}

// runJobs does jobs until ctx ends.
func (s *Sale) runJobs(ctx context.Context) {
	err := s.jobs.Run(ctx, delayqueue.JSON(func(ctx context.Context, j job, _ *delayqueue.Delivery) error {
		if len(j.Forget) > 0 {
			return s.shelves.Delete(ctx, j.Forget...)
		}
		if j.Stock != nil {
			return s.announcer.Publish(ctx, j.Room, "stock", j.Stock)
		}
		return nil
	}), delayqueue.RunOptions{Drain: 2 * time.Second})
	if err != nil {
		s.env.Log.Warn("sale: jobs were left to other servers", "err", err)
	}
}

// encode writes down what always can be.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a type of this package that JSON does not know
	}
	return b
}

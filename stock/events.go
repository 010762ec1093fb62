package stock

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// eventsBlock is how long one read of the events stream waits. A read cannot be
// interrupted, so that Run may take this long to return.
const eventsBlock = time.Second

// events are the crossings that this process was told of.
type events struct {
	mu   sync.Mutex
	told map[string]int64 // SKU → version of the last event given to OnEvent
}

// fresh tells whether e is newer than what OnEvent was told of its SKU.
func (e *events) fresh(ev Event) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.told == nil {
		e.told = make(map[string]int64)
	}
	if ev.Version <= e.told[ev.SKU] {
		return false
	}
	e.told[ev.SKU] = ev.Version
	return true
}

// lastEvent returns the id of the last event so far.
func (a *Activity) lastEvent(ctx context.Context) (string, error) {
	last, err := a.rdb.XRevRangeN(ctx, a.keys.events, "+", "-", 1).Result()
	if err != nil {
		return "", err
	}
	if len(last) == 0 {
		return "0-0", nil
	}
	return last[0].ID, nil
}

// runEvents tails the events stream from an event on, the last one by now if from is
// empty, until ctx ends: no group, so that every process sees every event that happens
// while it is connected. One that was away for more than the stream's thousand events
// learns the newest of each SKU.
func (a *Activity) runEvents(ctx context.Context, from string) {
	for ctx.Err() == nil {
		if from == "" {
			var err error
			if from, err = a.lastEvent(ctx); err != nil {
				a.troubled(ctx, "read events", err)
				continue
			}
		}
		streams, err := a.rdb.XRead(ctx, &redis.XReadArgs{
			Streams: []string{a.keys.events, from}, Count: 100, Block: eventsBlock,
		}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			a.troubled(ctx, "read events", err)
			continue
		}
		for _, s := range streams {
			for _, m := range s.Messages {
				from = m.ID
				if ev, ok := parseEvent(m.Values); ok {
					if ev.Left > 0 {
						// A sell-out is not taken from here: the event may be old by now.
						a.memory.seen(ev.SKU, ev.Version, ev.Left, time.Time{})
					}
					if a.events.fresh(ev) {
						a.stats.events.Add(1)
						if a.opts.OnEvent != nil {
							a.opts.OnEvent(ev)
						}
					}
				}
			}
		}
	}
}

func parseEvent(values map[string]any) (Event, bool) {
	number := func(k string) int64 {
		s, _ := values[k].(string)
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	sku, _ := values["s"].(string)
	ev := Event{SKU: sku, Version: number("v"), Left: number("l")}
	return ev, sku != "" && ev.Version > 0 && ev.Left >= 0
}

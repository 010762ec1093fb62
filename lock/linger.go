package lock

import (
	"context"
	"time"

	"github.com/spillway-go/spillway/internal/bus"
)

// Lingering: the process keeps the lock although none of its goroutines has it.
//
// The promise: whoever else asks ends it. It would be broken by a request that is
// not heard. Hence a process lingers only if it has been listening since before it
// asked for the term: then the request either found the lock held by somebody
// before, and Redis said so in granting the term, or its message comes. A gap in the
// subscription ends it.

// listen begins to listen for requests.
func (g *gate) listen() {
	if g.l.opts.Linger == 0 {
		return
	}
	g.ear = g.l.bus.Subscribe(g.keys.channel, g.hear)
	g.linger = time.AfterFunc(time.Hour, g.lingered)
	g.linger.Stop()
	select {
	case <-g.ear.Ready():
		g.eared = time.Now()
	default:
	}
}

// hears reports whether every request since the term was asked for has been heard.
func (g *gate) hears() bool {
	return g.ear != nil && !g.eared.IsZero() && !g.eared.After(g.sent)
}

// hear is called by the bus.
func (g *gate) hear(e bus.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case e.Gap:
		g.eared = time.Now()
	case e.Payload == "wanted":
		g.wanted = true
	default:
		return
	}
	if g.phase == lingering {
		g.linger.Reset(0)
	}
}

// mayLinger reports whether the term may be kept unused.
func (g *gate) mayLinger() bool {
	return g.hears() && !g.wanted && !g.l.isClosed()
}

// lingered ends the lingering.
func (g *gate) lingered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != lingering {
		return
	}
	g.phase = releasing
	g.l.group.Go(func(ctx context.Context) {
		g.mu.Lock()
		if err := g.surrender(ctx); err != nil {
			g.l.troubled("release a lock that nobody used", err)
		}
	})
}

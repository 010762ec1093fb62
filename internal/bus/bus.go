// Package bus is a subscription that knows when it missed something.
//
// Redis's pub/sub forgets: what is published while a connection is down never
// arrives, and nobody says so. A [Bus] listens to many channels over one
// connection, tells its listeners when the server has confirmed that they
// listen, and tells them of a gap whenever the server had to confirm it again.
// A listener that asks for the state it is interested in after Ready, and again
// after every gap, misses nothing.
package bus

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/lifetime"
)

const (
	// keepFor is how long a channel without listeners stays subscribed: a lock
	// that is waited for now is waited for again soon, and each SUBSCRIBE and
	// UNSUBSCRIBE is a round trip.
	keepFor = 10 * time.Second
	// patience bounds how long the connection may be silent before it is
	// pinged; after as long again it is given up and made anew.
	patience = time.Second
)

// An Event is a message, or the news that some may be missing.
type Event struct {
	Payload string
	// Gap says that the connection was lost and is back: anything may have been
	// published meanwhile. Payload is empty then.
	Gap bool
}

// A Bus listens to channels of one Redis. It connects when the first listener
// comes and holds one connection, outside the client's pool, until Close.
type Bus struct {
	rdb   redis.UniversalClient
	group *lifetime.Group
	kick  chan struct{} // holds a token while a topic may need its SUBSCRIBE

	mu      sync.Mutex
	started bool
	topics  map[string]*topic
}

// A topic is one channel that the server was, or is about to be, asked for.
type topic struct {
	channel   string
	asked     bool
	ready     chan struct{} // closed by the first confirmation
	listeners map[*Sub]struct{}
	idle      time.Time // since when it has no listeners
}

// New returns a bus that has not connected yet. A Ring has no one server for all
// channels and cannot be used.
func New(rdb redis.UniversalClient) *Bus {
	return &Bus{rdb: rdb, group: lifetime.New(), kick: make(chan struct{}, 1), topics: map[string]*topic{}}
}

// A Sub is one listener of one channel.
type Sub struct {
	bus   *Bus
	topic *topic
	f     func(Event)
}

// Subscribe calls f with every event of the channel until the Sub is closed,
// from one goroutine for the whole bus: f must not block. It returns at once and
// asks for no error: while Redis is down, Ready waits. After Close of the bus
// nothing happens any more.
func (b *Bus) Subscribe(channel string, f func(Event)) *Sub {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[channel]
	if t == nil {
		t = &topic{channel: channel, ready: make(chan struct{}), listeners: map[*Sub]struct{}{}}
		b.topics[channel] = t
		if !b.started {
			b.started = b.group.Go(b.run)
		}
		b.wake()
	}
	s := &Sub{b, t, f}
	t.listeners[s] = struct{}{}
	return s
}

// Ready is closed once the server has confirmed that it delivers the channel:
// what is published from then on arrives, or a gap does.
func (s *Sub) Ready() <-chan struct{} { return s.topic.ready }

// Close ends the listener. A call of its function that has begun may still run.
func (s *Sub) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	delete(s.topic.listeners, s)
	if len(s.topic.listeners) == 0 {
		s.topic.idle = time.Now()
	}
}

// Close ends the connection and waits for the goroutines to end.
func (b *Bus) Close() { b.group.Stop() }

func (b *Bus) wake() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// run owns the connection. It alone sends SUBSCRIBE and UNSUBSCRIBE, which may
// block while Redis is away; delivering is another goroutine's work.
func (b *Bus) run(ctx context.Context) {
	ps := b.rdb.Subscribe(ctx)
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		// It ends when ps is closed; until then go-redis reconnects for ever.
		for m := range ps.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(patience)) {
			b.deliver(m)
		}
	}()
	defer func() {
		_ = ps.Close()
		<-delivered
	}()
	sweep := time.NewTicker(keepFor / 2)
	defer sweep.Stop()
	for {
		// An error of either call needs no answer: go-redis has noted the
		// channels and asks for them when it has a connection again.
		ask, drop := b.pending()
		if len(ask) > 0 {
			_ = ps.Subscribe(ctx, ask...)
		}
		if len(drop) > 0 {
			_ = ps.Unsubscribe(ctx, drop...)
		}
		select {
		case <-ctx.Done():
			return
		case <-b.kick:
		case <-sweep.C:
		}
	}
}

// pending returns the channels to ask for and those to drop. A topic that is
// dropped is forgotten: whoever wants the channel again gets a new one, which is
// ready when the server confirms it anew. Only confirmed topics are dropped, so
// that no confirmation of the old one is taken for the new one's.
func (b *Bus) pending() (ask, drop []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, t := range b.topics {
		switch {
		case !t.asked:
			t.asked = true
			ask = append(ask, name)
		case len(t.listeners) == 0 && time.Since(t.idle) >= keepFor && t.confirmed():
			delete(b.topics, name)
			drop = append(drop, name)
		}
	}
	return ask, drop
}

func (t *topic) confirmed() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

func (b *Bus) deliver(m any) {
	var (
		channel string
		e       Event
	)
	switch m := m.(type) {
	case *redis.Message:
		channel, e.Payload = m.Channel, m.Payload
	case *redis.Subscription:
		if m.Kind != "subscribe" {
			return
		}
		channel, e.Gap = m.Channel, true
	default:
		return
	}
	b.mu.Lock()
	t := b.topics[channel]
	if t == nil {
		b.mu.Unlock()
		return
	}
	if e.Gap && !t.confirmed() {
		close(t.ready)
		b.mu.Unlock()
		return
	}
	listeners := make([]*Sub, 0, len(t.listeners))
	for s := range t.listeners {
		listeners = append(listeners, s)
	}
	b.mu.Unlock()
	for _, s := range listeners {
		s.f(e)
	}
}

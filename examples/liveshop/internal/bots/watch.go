package bots

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/im"
)

// A watcher is a customer with the page open: a socket that is opened again whenever it
// closes, and resumes where it was.
type watcher struct {
	me       *client.Client
	room     int64
	follower im.Follower
	// see is told of each frame that is new, and may say something; nil: it is silent.
	see func(frame im.Received, say func(t string, d any))
}

// watch stays in the room until ctx ends. It calls inside, once, when it is.
func (w *watcher) watch(ctx context.Context, inside func()) {
	var once sync.Once
	for {
		_ = w.visit(ctx, func() { once.Do(inside) }) // whatever ended it, it is opened again
		if !sleep(ctx, 300*time.Millisecond) {
			return
		}
	}
}

// visit is one socket.
func (w *watcher) visit(ctx context.Context, inside func()) error {
	var ticket struct{ WS, Token string }
	if err := w.me.Sure(ctx, fmt.Sprintf("GET /rooms/%d/im", w.room), nil, &ticket); err != nil {
		return err
	}
	url := "ws" + strings.TrimPrefix(w.me.Base, "http") + ticket.WS + "?token=" + ticket.Token + w.follower.Query()
	conn, res, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		if res != nil {
			_ = res.Body.Close()
		}
		return err
	}
	end := context.AfterFunc(ctx, func() {
		bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
		_ = conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
		_ = conn.Close()
	})
	defer end()
	defer func() { _ = conn.Close() }()
	var writing sync.Mutex // see may say something from another goroutine, later
	say := func(t string, d any, id string) {
		writing.Lock()
		defer writing.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_ = conn.WriteJSON(map[string]any{"t": t, "d": d, "id": id}) // a broken socket is seen when reading
	}
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(15 * time.Second)) } // there is a ping every 5
	conn.SetPingHandler(func(text string) error {
		_ = alive()
		return conn.WriteControl(websocket.PongMessage, []byte(text), time.Now().Add(time.Second))
	})
	for {
		_ = alive()
		_, text, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		frame, fresh, err := w.follower.See(text)
		if err != nil {
			return err
		}
		if frame.Type == "hello" {
			inside()
		}
		if frame.Acknowledge() {
			say("ack", nil, frame.ID)
		}
		if fresh && w.see != nil {
			w.see(frame, func(t string, d any) { say(t, d, "") })
		}
	}
}

// An Audience watches a room, to hold the servers to what they promise sockets.
type Audience struct {
	watchers []*watcher
	stop     context.CancelFunc
	gone     sync.WaitGroup
}

// Watch brings n of the crowd's customers into the room. It returns when they are
// inside.
func (c *Crowd) Watch(ctx context.Context, n int) (*Audience, error) {
	a := &Audience{}
	stay, stop := context.WithCancel(ctx)
	a.stop = stop
	inside := make(chan struct{}, n)
	for i := range n {
		// With a client of its own: a Client is used by one goroutine at a time.
		me := *c.customers[i]
		w := &watcher{me: &me, room: c.room}
		a.watchers = append(a.watchers, w)
		a.gone.Go(func() {
			w.watch(stay, func() { inside <- struct{}{} })
		})
	}
	for range n {
		select {
		case <-inside:
		case <-ctx.Done():
			stop()
			return a, fmt.Errorf("bots: of %d watchers not all got in: %w", n, ctx.Err())
		}
	}
	return a, nil
}

// Leave ends the watching, and returns what all of them saw.
func (a *Audience) Leave() (sum im.FollowerReport) {
	a.stop()
	a.gone.Wait()
	for _, w := range a.watchers {
		r := w.follower.Report()
		sum.Frames += r.Frames
		sum.Reliable += r.Reliable
		sum.Again += r.Again
		sum.Resumed += r.Resumed
		sum.StartOver += r.StartOver
		sum.Lost += r.Lost
		if sum.FirstFault == "" {
			sum.FirstFault = r.FirstFault
		}
	}
	return sum
}

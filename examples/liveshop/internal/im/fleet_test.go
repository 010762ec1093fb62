package im

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/internal/redistest"
)

// A node is one server of a fleet: a hub behind an HTTP server that is reached through
// pipes, so that it lives in a bubble.
type node struct {
	*Hub
	t    *testing.T
	wire *wire
	stop func() // as a graceful stop does; returns when Run has
}

func start(t *testing.T, rdb redis.UniversalClient, server string, modify ...func(*Hub)) *node {
	env := &infra.Env{Redis: rdb, Server: server, Log: slog.New(slog.DiscardHandler)}
	h, err := New(env, Options{
		Name:  func(_ context.Context, uid int64) (string, error) { return fmt.Sprint("user ", uid), nil },
		Enter: func(context.Context, int64, int64) error { return nil },
	})
	require.NoError(t, err)
	for _, f := range modify {
		f(h)
	}
	n := &node{Hub: h, t: t, wire: &wire{conns: make(chan net.Conn), done: make(chan struct{})}}
	web := &http.Server{Handler: http.HandlerFunc(h.serve)}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { require.NoError(t, h.Run(ctx)) })
	all.Go(func() { _ = web.Serve(n.wire) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		_ = web.Close()
		all.Wait()
	})
	t.Cleanup(n.stop)
	require.Eventually(t, h.Ready, time.Minute, time.Millisecond)
	return n
}

// A wire is a listener without a network.
type wire struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error   { w.once.Do(func() { close(w.done) }); return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case w.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A viewer is a client. It reads until its connection ends.
type viewer struct {
	*Follower
	t      *testing.T
	uid    int64
	room   int64
	deaf   bool          // acknowledges nothing
	pause  time.Duration // before it reads a frame
	silent atomic.Bool   // answers no ping

	conn *websocket.Conn
	done chan struct{}

	writing sync.Mutex

	mu   sync.Mutex
	got  []Received
	ends error
}

func (n *node) viewer(room, uid int64, modify ...func(*viewer)) *viewer {
	n.t.Helper()
	v := &viewer{Follower: &Follower{}, t: n.t, uid: uid, room: room}
	for _, f := range modify {
		f(v)
	}
	v.connect(n)
	return v
}

// connect connects to a server, resuming where it was.
func (v *viewer) connect(n *node) {
	v.t.Helper()
	require.NoError(v.t, v.dial(n, nil))
}

func (v *viewer) dial(n *node, header http.Header) error {
	token, err := n.mint(v.t.Context(), ticket{v.uid, fmt.Sprint("user ", v.uid), v.room})
	require.NoError(v.t, err)
	d := websocket.Dialer{NetDialContext: n.wire.dial}
	conn, res, err := d.DialContext(v.t.Context(), "ws://shop/api/v1/ws?token="+token+v.Query(), header)
	if err != nil {
		if res != nil {
			err = errors.Join(err, fmt.Errorf("status %d", res.StatusCode), res.Body.Close())
		}
		return err
	}
	v.conn, v.done = conn, make(chan struct{})
	pong := conn.PingHandler()
	conn.SetPingHandler(func(s string) error {
		if v.silent.Load() {
			return nil
		}
		return pong(s)
	})
	_, text, err := conn.ReadMessage() // hello: only now it is a member
	require.NoError(v.t, err)
	_, _, err = v.See(text)
	require.NoError(v.t, err)
	go v.listen()
	v.t.Cleanup(func() { v.leave() })
	return nil
}

func (v *viewer) listen() {
	defer close(v.done)
	for {
		v.mu.Lock()
		pause := v.pause
		v.mu.Unlock()
		time.Sleep(pause)
		_, text, err := v.conn.ReadMessage()
		if err != nil {
			v.mu.Lock()
			v.ends = err
			v.mu.Unlock()
			return
		}
		r, fresh, err := v.See(text)
		if err != nil {
			v.t.Error(err)
		}
		if fresh {
			v.mu.Lock()
			v.got = append(v.got, r)
			v.mu.Unlock()
		}
		if r.Acknowledge() && !v.deaf {
			_ = v.write(`{"t":"ack","id":%q}`, r.ID)
		}
	}
}

func (v *viewer) say(format string, args ...any) {
	v.t.Helper()
	require.NoError(v.t, v.write(format, args...))
}

func (v *viewer) write(format string, args ...any) error {
	v.writing.Lock()
	defer v.writing.Unlock()
	return v.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...))
}

// leave ends the connection as a lost network does.
func (v *viewer) leave() {
	_ = v.conn.NetConn().Close()
	<-v.done
}

// of returns the data of the frames of a type, in the order in which they came.
func (v *viewer) of(t string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for _, r := range v.got {
		if r.Type == t {
			out = append(out, string(r.Data))
		}
	}
	return out
}

// settle lets everything happen that happens now.
func settle() { synctest.Wait() }

// fanout holds the counts of servers against what must add up.
func balanced(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		c := n.Counts()
		require.Equal(t, c.Fanout, c.Delivered+c.Sampled+c.Left+c.Queued, "%s: %+v", n.server, c)
		n.sayCounts(t.Context())
	}
	wrong, _, err := Check(t.Context(), &infra.Env{Redis: nodes[0].rdb})
	require.NoError(t, err)
	require.Empty(t, wrong)
}

func numbers(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func (n *node) gifts(room int64, from, to int) {
	n.t.Helper()
	for i := from; i <= to; i++ {
		require.NoError(n.t, n.Publish(n.t.Context(), room, "gift", i, Reliable))
	}
}

func bubble(t *testing.T, f func(t *testing.T, b *redistest.Env)) { redistest.Bubble(t, f) }

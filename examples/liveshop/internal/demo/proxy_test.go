package demo

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// backend is a server that can say that it stops, or break what it is asked.
type backend struct {
	*httptest.Server
	stopping, breaks atomic.Bool
	calls            atomic.Int64
}

func newBackend(t *testing.T) *backend {
	b := &backend{}
	upgrader := websocket.Upgrader{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/readyz" && b.stopping.Load():
			w.WriteHeader(503)
		case r.URL.Path == "/readyz":
		case r.URL.Path == "/ws":
			conn, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			for {
				kind, text, err := conn.ReadMessage()
				if err != nil || string(text) == "leave" || conn.WriteMessage(kind, append(text, '!')) != nil {
					return
				}
			}
		default:
			b.calls.Add(1)
			body, _ := io.ReadAll(r.Body)
			if b.breaks.Load() {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, "%s %s", body, r.Header.Get("X-Forwarded-For"))
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) addr() string { return strings.TrimPrefix(b.URL, "http://") }

func proxied(t *testing.T, backends ...*backend) (*Proxy, *httptest.Server) {
	var addrs []string
	for _, b := range backends {
		addrs = append(addrs, b.addr())
	}
	p := NewProxy(func() []string { return addrs })
	p.Look(t.Context())
	front := httptest.NewServer(p)
	t.Cleanup(front.Close)
	t.Cleanup(p.transport.CloseIdleConnections)
	return p, front
}

func post(t *testing.T, url, body string) (int, string) {
	res, err := http.Post(url, "text/plain", strings.NewReader(body))
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

func TestProxySpreads(t *testing.T) {
	a, b, c := newBackend(t), newBackend(t), newBackend(t)
	_, front := proxied(t, a, b, c)
	var wg sync.WaitGroup
	for i := range 90 {
		wg.Go(func() {
			status, text := post(t, front.URL, fmt.Sprint(i))
			if status != 200 || text != fmt.Sprint(i)+" 127.0.0.1" {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	wg.Wait()
	require.Equal(t, []int64{30, 30, 30}, []int64{a.calls.Load(), b.calls.Load(), c.calls.Load()})
}

// Calls about a room meet in one server, as long as it has no more to do than others.
func TestProxyKeepsRoomsTogether(t *testing.T) {
	backends := []*backend{newBackend(t), newBackend(t), newBackend(t)}
	p, front := proxied(t, backends...)
	counts := func() (n []int64) {
		for _, b := range backends {
			n = append(n, b.calls.Swap(0))
		}
		slices.Sort(n)
		return n
	}
	for range 30 {
		post(t, front.URL+"/api/v1/rooms/7/like", "")
	}
	require.Equal(t, []int64{0, 0, 30}, counts())
	for room := range 300 {
		post(t, front.URL+fmt.Sprintf("/api/v1/rooms/%d", room), "")
	}
	require.Greater(t, counts()[0], int64(50), "rooms are spread")

	// Thirty at a time: nobody has more than a quarter above the average.
	var dones []func()
	at := map[string]int{}
	for range 30 {
		r := httptest.NewRequest("GET", "/api/v1/rooms/7", http.NoBody)
		addr, done := p.pick(r, nil)
		dones = append(dones, done)
		at[addr]++
	}
	for addr, n := range at {
		require.LessOrEqual(t, n, 13, addr)
	}
	require.Len(t, at, 3)
	for _, done := range dones {
		done()
	}
}

// A server that is gone costs nobody an answer, whatever was asked.
func TestProxyFailsOver(t *testing.T) {
	a, b := newBackend(t), newBackend(t)
	p, front := proxied(t, a, b)
	a.Close()
	p.transport.CloseIdleConnections() // one that is found closed while it is written to is no refused dial
	for range 10 {
		status, text := post(t, front.URL, "body")
		require.Equal(t, 200, status)
		require.Equal(t, "body 127.0.0.1", text)
	}
	b.Close()
	status, text := post(t, front.URL, "body")
	require.Equal(t, 502, status)
	require.Contains(t, text, `"code":"unknown"`)
	p.Look(t.Context())
	require.Empty(t, p.ready)
}

// What may have been carried out is not sent again, unless it only reads.
func TestProxyDoesNotRepeat(t *testing.T) {
	a, b := newBackend(t), newBackend(t)
	_, front := proxied(t, a, b)
	a.breaks.Store(true)
	b.breaks.Store(true)
	status, _ := post(t, front.URL, "body")
	require.Equal(t, 502, status)
	require.Equal(t, int64(1), a.calls.Load()+b.calls.Load())
	b.breaks.Store(false)
	for range 4 {
		res, err := http.Get(front.URL)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 200, res.StatusCode)
	}
}

// A server that says that it stops gets no more requests.
func TestProxyHearsNotReady(t *testing.T) {
	a, b := newBackend(t), newBackend(t)
	p, front := proxied(t, a, b)
	a.stopping.Store(true)
	p.Look(t.Context())
	for range 10 {
		post(t, front.URL, "")
	}
	require.Equal(t, int64(0), a.calls.Load())
	require.Equal(t, int64(10), b.calls.Load())
}

func TestProxyPassesWebSockets(t *testing.T) {
	a := newBackend(t)
	_, front := proxied(t, a)
	conn, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(front.URL, "http")+"/ws", nil)
	require.NoError(t, err)
	defer res.Body.Close()
	defer conn.Close()
	for _, text := range []string{"one", "two"} {
		require.NoError(t, conn.WriteMessage(websocket.TextMessage, []byte(text)))
		_, echo, err := conn.ReadMessage()
		require.NoError(t, err)
		require.Equal(t, text+"!", string(echo))
	}
	require.NoError(t, conn.WriteMessage(websocket.TextMessage, []byte("leave")))
	_, _, err = conn.ReadMessage()
	require.Error(t, err, "the end of the server's side reaches the client")
}

// Who calls the proxy is the last of the chain, whatever the header said before.
func TestProxyTellsWhoCalls(t *testing.T) {
	_, front := proxied(t, newBackend(t))
	req, err := http.NewRequest("GET", front.URL, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Forwarded-For", "10.0.0.1")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, " 10.0.0.1, 127.0.0.1", string(text))
}

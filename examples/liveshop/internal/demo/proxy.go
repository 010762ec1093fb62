package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/spillway-go/spillway/hashring"
)

// A Proxy is the one address in front of the servers. It asks each ten times a second
// whether it is ready, and goes to another one when a server cannot be reached.
// WebSockets pass.
//
// Calls about one room go to one server, which then has the room in its memory, until
// that server would have a quarter more to do than the average: a star's room is
// everybody's. All else goes round.
type Proxy struct {
	addrs     func() []string
	transport *http.Transport
	handler   *httputil.ReverseProxy
	rooms     *hashring.Ring // of the servers that are ready

	mu    sync.Mutex
	ready []string
	next  int
}

// maxBody is more than any call of the shop sends.
const maxBody = 1 << 20

var aRoom = regexp.MustCompile(`^/api/v1/rooms/[0-9]+`)

// NewProxy returns a proxy for the servers at addrs, which may change.
func NewProxy(addrs func() []string) *Proxy {
	rooms, err := hashring.New(nil, hashring.Options{})
	if err != nil {
		panic(err) // the defaults are right
	}
	p := &Proxy{addrs: addrs, rooms: rooms, transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     30 * time.Second, // less than the servers'
	}}
	p.handler = &httputil.ReverseProxy{
		Transport: p,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded() // appends who called us
			r.Out.URL.Scheme = "http"
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			later(w, http.StatusBadGateway, "unknown", "a server went away; it may have happened: ask again with the same key")
		},
		ErrorLog: log.New(io.Discard, "", 0), // broken connections are what is shown here
	}
	return p
}

// later answers as a server does that wants to be asked again.
func later(w http.ResponseWriter, status int, code, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"code":%q,"msg":%q,"data":null}`, code, msg)
}

// Run watches the servers until ctx ends.
func (p *Proxy) Run(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	defer p.transport.CloseIdleConnections()
	for {
		p.Look(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Look asks all servers whether they are ready.
func (p *Proxy) Look(ctx context.Context) {
	addrs := p.addrs()
	ready := make([]bool, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { ready[i] = p.ask(ctx, addr) })
	}
	wg.Wait()
	var now []string
	for i, addr := range addrs {
		if ready[i] {
			now = append(now, addr)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var came []hashring.Node
	for _, addr := range now {
		if !slices.Contains(p.ready, addr) {
			came = append(came, hashring.Node{ID: addr})
		}
	}
	left := slices.DeleteFunc(p.ready, func(addr string) bool { return slices.Contains(now, addr) })
	if len(came)+len(left) > 0 {
		_ = p.rooms.Update(came, left) // what an address may not be for a ring, no server listens at
	}
	p.ready = now
}

// askFor is how long a server may take to say that it is ready. One that is gone refuses
// at once; one that is slow, as all are where the machine is busy, is better than none.
const askFor = 5 * time.Second

func (p *Proxy) ask(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// ServeHTTP makes Proxy a handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// RoundTrip sends a request to one server after the other: to the next one if nothing
// of it arrived, or if it may arrive twice.
func (p *Proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := keep(r)
	if err != nil {
		return nil, err
	}
	tried := []string{}
	for {
		addr, done := p.pick(r, tried)
		if addr == "" {
			return nil, errors.Join(errors.New("demo: no server is ready"), err)
		}
		tried = append(tried, addr)
		out := r.Clone(r.Context())
		out.URL.Host = addr
		if body != nil {
			out.Body = io.NopCloser(bytes.NewReader(body))
		}
		res, failed := p.transport.RoundTrip(out)
		done()
		if err = failed; err == nil {
			return res, nil
		}
		dial := new(net.OpError)
		unsent := errors.As(err, &dial) && dial.Op == "dial"
		if r.Context().Err() != nil || !unsent && r.Method != http.MethodGet {
			return nil, err
		}
	}
}

// keep reads the body of r, so that it can be sent again.
func keep(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = fmt.Errorf("demo: a body of more than %d bytes", maxBody)
	}
	return body, err
}

// pick returns a server that was not tried, and what to call when it has answered.
func (p *Proxy) pick(r *http.Request, tried []string) (addr string, done func()) {
	if room := aRoom.FindString(r.URL.Path); room != "" && len(tried) == 0 {
		if node, done, ok := p.rooms.Acquire(room); ok {
			return node.ID, done
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.ready {
		p.next++
		if addr := p.ready[p.next%len(p.ready)]; !slices.Contains(tried, addr) {
			return addr, func() {}
		}
	}
	return "", nil
}

package redistest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A Proxy is a TCP proxy before a server that suffers faults, for clients in
// other processes.
type Proxy struct {
	target   string
	faults   *Faults
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]struct{}
}

// NewProxy returns a proxy on a free port of 127.0.0.1 before target, which the
// end of the test closes.
func NewProxy(t testing.TB, target string, f *Faults) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, faults: f, listener: l, conns: map[net.Conn]struct{}{}}
	p.work.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr returns the proxy's host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.ended = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if p.faults.dial(p.target) {
		return
	}
	c, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	server := newFaultConn(c, p.faults)
	defer func() { _ = server.Close() }()
	if !p.keep(client, server) {
		return
	}
	defer p.forget(client, server)

	// Either side's end ends the other: a copy that returns closes both.
	var toServer sync.WaitGroup
	toServer.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	toServer.Wait()
}

// keep remembers connections for close; it reports false after close.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.ended
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// required lets in who has a token.
func (m *Mux) required(r *Request) error {
	if err := m.optional(r); err != nil {
		return err
	}
	if r.UID == 0 {
		return &Error{Status: http.StatusUnauthorized, Code: "unauthorized", Msg: "log in first"}
	}
	return nil
}

// optional finds out who calls, if a token says so.
func (m *Mux) optional(r *Request) (err error) {
	token := r.Token()
	if token == "" {
		return nil
	}
	r.UID, err = m.who(r.Context(), token)
	return err
}

// local lets in programs on this machine, and pages that were loaded from it.
//
// A page from elsewhere in a browser on this machine could also send requests here:
// the browser says so in Sec-Fetch-Site or Origin, and a name that an attacker's DNS
// points to 127.0.0.1 stands in Host.
func (m *Mux) local(r *Request) error {
	if !fromHere(r.Request) || !isHere(r.Host) || m.foreign.Check(r.Request) != nil {
		return &Error{Status: http.StatusForbidden, Code: "forbidden", Msg: "only from the machine itself"}
	}
	return nil
}

// fromHere reports whether a request began on this machine, also through a proxy on it.
func fromHere(r *http.Request) bool {
	chain := append([]string{host(r.RemoteAddr)}, r.Header.Values("X-Forwarded-For")...)
	for _, part := range chain {
		for one := range strings.SplitSeq(part, ",") {
			if addr, err := netip.ParseAddr(strings.TrimSpace(one)); err != nil || !addr.Unmap().IsLoopback() {
				return false
			}
		}
	}
	return true
}

func isHere(name string) bool {
	name = strings.Trim(host(name), "[]")
	addr, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func host(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return hostport
}

package httplimit

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// A KeyFunc names what a request is counted for. It may return anything.
type KeyFunc func(*http.Request) string

// ByUser counts requests by user, where user knows one, and the others by otherwise,
// ByIP say.
func ByUser(user func(*http.Request) (name string, ok bool), otherwise KeyFunc) KeyFunc {
	return func(r *http.Request) string {
		if name, ok := user(r); ok {
			return "user:" + name
		}
		return otherwise(r)
	}
}

// ByHeader counts requests by the first value of a header, an API key say. Those
// without it count together. Something must have checked the value, or whoever makes up
// a new one each time has no limit.
func ByHeader(name string) KeyFunc {
	return func(r *http.Request) string { return "header:" + name + ":" + r.Header.Get(name) }
}

// ByRoute counts requests by the pattern of the http.ServeMux that routed them, for a
// middleware inside the mux. Requests that no mux routed count by method alone: paths
// are the client's, and there is no end of them.
func ByRoute() KeyFunc {
	return func(r *http.Request) string {
		if r.Pattern == "" {
			return "route:" + r.Method
		}
		return "route:" + r.Pattern
	}
}

// Join counts by several things together: by user and route, say.
func Join(keys ...KeyFunc) KeyFunc {
	return func(r *http.Request) string {
		var b strings.Builder
		for _, k := range keys {
			s := k(r)
			b.WriteString(strconv.Itoa(len(s))) // "a","bc" is not "ab","c"
			b.WriteByte(':')
			b.WriteString(s)
		}
		return b.String()
	}
}

// ByIP counts requests by the client's address: IPv4 by address, IPv6 by /64, since a
// customer usually has all of one. Behind proxies, give theirs (and no more: whoever
// sends from a trusted address can choose which address it counts as): the client is the
// rightmost address in X-Forwarded-For that is not a trusted one's. Without proxies,
// X-Forwarded-For is ignored.
//
// A peer without an IP address (a Unix socket) counts as it is called; where that is a
// proxy, use a KeyFunc of your own.
func ByIP(trusted ...netip.Prefix) KeyFunc {
	proxies := make([]netip.Prefix, 0, len(trusted))
	for _, p := range trusted {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		proxies = append(proxies, p.Masked())
	}
	return func(r *http.Request) string {
		peer, ok := parseIP(r.RemoteAddr)
		if !ok {
			return "ip:" + r.RemoteAddr
		}
		return "ip:" + network(client(peer, r.Header.Values("X-Forwarded-For"), proxies))
	}
}

// client walks from the peer towards the client, as far as what the next one said
// can be believed: each address was written by the one to the right of it.
func client(peer netip.Addr, forwarded []string, proxies []netip.Prefix) netip.Addr {
	at := peer
	for i := len(forwarded) - 1; i >= 0; i-- {
		rest := forwarded[i]
		for more := true; more; {
			if !within(at, proxies) {
				return at
			}
			cut := strings.LastIndexByte(rest, ',')
			next, ok := parseIP(rest[cut+1:])
			if !ok {
				return at // a trusted proxy wrote what is no address: it stands for its clients
			}
			at = next
			if more = cut >= 0; more {
				rest = rest[:cut]
			}
		}
	}
	return at
}

func within(a netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseIP reads an address with or without a port, brackets and zone.
func parseIP(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		p, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = p.Addr()
	}
	return a.Unmap().WithZone(""), true
}

// network is what a client's address is counted as.
func network(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil { // not for an IPv6 address
		return a.String()
	}
	return p.String()
}

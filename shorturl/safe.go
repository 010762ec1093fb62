package shorturl

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const maxURL = 2048 // bytes, as given and as kept

// neverSchemes run code in, or are shown in the name of, the page that follows them.
var neverSchemes = []string{"javascript", "vbscript", "data", "blob", "file", "about", "view-source"}

// normalise returns the URL as it is kept and sent in Location: ASCII without
// anything that two programs might read differently. What is not plainly safe is
// ErrUnsafe.
func (s *Service) normalise(ctx context.Context, raw string) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("%w: "+format, append([]any{ErrUnsafe}, args...)...)
	}
	if len(raw) > maxURL {
		return refuse("%d bytes, want at most %d", len(raw), maxURL)
	}
	for _, c := range raw {
		// Browsers drop tabs and line feeds, take \ for /, and show what comes after a
		// direction mark in another order.
		if c <= ' ' || c == '\\' || c >= 0x7f && c <= 0xa0 || c >= 0x2000 && c <= 0x206f || c == 0xfeff || c == 0xfffd {
			return refuse("it contains %U", c)
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return refuse("it cannot be parsed")
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if !slices.Contains(s.opts.Schemes, u.Scheme) {
		return refuse("scheme %q, want one of %s", u.Scheme, strings.Join(s.opts.Schemes, ", "))
	}
	if u.Opaque != "" || u.Host == "" {
		return refuse("it has no host")
	}
	if u.User != nil {
		return refuse("it has a user name")
	}
	if why := s.checkHost(u); why != "" {
		return refuse("%s", why)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	if !strings.HasPrefix(u.Path, "/") {
		return refuse("its path does not begin with a /")
	}
	u.RawQuery = escapeRest(u.RawQuery)
	out := u.String()
	if len(out) > maxURL {
		return refuse("%d bytes when escaped, want at most %d", len(out), maxURL)
	}
	if s.opts.Ban != nil {
		if err := s.opts.Ban(ctx, u); err != nil {
			return "", fmt.Errorf("shorturl: %q is banned: %w", u.Host, err)
		}
	}
	return out, nil
}

// checkHost normalises u.Host and says what is wrong with it.
func (s *Service) checkHost(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "its port is out of range"
		}
	}
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		port = ""
	}
	var (
		addr   netip.Addr
		isAddr bool
	)
	if strings.HasPrefix(u.Host, "[") {
		var err error
		if addr, err = netip.ParseAddr(host); err != nil || addr.Zone() != "" {
			return "its IPv6 address is malformed"
		}
		isAddr = true
		host = "[" + addr.String() + "]"
	} else {
		host = strings.TrimSuffix(host, ".")
		for i := range len(host) {
			// Other scripts are to be written as xn--…: browsers fold some letters of
			// theirs into ASCII, which would lead to another host than was checked.
			if c := host[i]; !isWord(c) && c != '-' && c != '.' && c != '_' {
				return fmt.Sprintf("its host contains %q, want letters, digits, - and . (other scripts as xn--)", c)
			}
		}
		if host == "" || len(host) > 253 || strings.Contains("."+host+".", "..") {
			return "its host is malformed"
		}
		var ok bool
		if addr, isAddr, ok = parseIPv4(host); !ok {
			return "its host is a malformed address"
		}
		if isAddr {
			host = addr.String()
		}
	}
	for _, own := range s.opts.Domains {
		if host == strings.TrimSuffix(strings.ToLower(own), ".") {
			return "it leads to this service itself"
		}
	}
	if !s.opts.AllowPrivate {
		if isAddr && !isPublic(addr) || !isAddr && isLocalName(host) {
			return "its host is not public"
		}
	}
	u.Host = host
	if port != "" {
		u.Host += ":" + port
	}
	return ""
}

// parseIPv4 reads a host as browsers do (WHATWG URL): if its last part is a number,
// decimal, octal or hexadecimal, then the host is an address of one to four parts, or
// nothing at all. 127.1, 0x7f.1 and 2130706433 are all 127.0.0.1.
func parseIPv4(host string) (addr netip.Addr, isAddr, ok bool) {
	parts := strings.Split(host, ".")
	if _, numeric := ipv4Part(parts[len(parts)-1]); !numeric {
		return addr, false, true
	}
	if len(parts) > 4 {
		return addr, true, false
	}
	var v uint64
	for i, p := range parts {
		n, numeric := ipv4Part(p)
		last := i == len(parts)-1
		most := uint64(255)
		if last {
			most = 1<<(8*(5-len(parts))) - 1
		}
		if !numeric || n > most {
			return addr, true, false
		}
		if last {
			v |= n
		} else {
			v |= n << (8 * (3 - i))
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true, true
}

// ipv4Part reads one part. A number that does not fit is still a number.
func ipv4Part(p string) (n uint64, numeric bool) {
	base, digits := 10, p
	switch {
	case len(p) >= 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X'):
		base, digits = 16, p[2:]
	case len(p) >= 2 && p[0] == '0':
		base, digits = 8, p[1:]
	}
	if digits == "" {
		return 0, base == 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err == nil {
		return n, true
	}
	if strings.Trim(p, "0123456789") == "" || base == 16 && strings.Trim(digits, "0123456789abcdefABCDEF") == "" {
		return 1<<64 - 1, true // 08 and the like, which browsers refuse
	}
	return 0, false
}

// notPublic are the networks beside those that netip knows.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fec0::/10"),
}

var (
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	sixTo = netip.MustParsePrefix("2002::/16")
)

func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	b := a.As16()
	switch { // an IPv4 address inside
	case nat64.Contains(a), a.Is6() && [12]byte(b[:12]) == [12]byte{} && a != netip.IPv6Loopback() && !a.IsUnspecified():
		return isPublic(netip.AddrFrom4([4]byte(b[12:])))
	case sixTo.Contains(a):
		return isPublic(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(a) })
}

func isLocalName(host string) bool {
	if !strings.Contains(host, ".") {
		return true
	}
	for _, end := range []string{".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".home.arpa", ".localdomain"} {
		if strings.HasSuffix(host, end) {
			return true
		}
	}
	return false
}

// escapeRest escapes what is no part of a URL and url.URL leaves as it is in queries.
func escapeRest(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>#`{}|^\\", c) >= 0 {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

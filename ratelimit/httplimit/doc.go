// Package httplimit puts a rate limiter before an HTTP handler.
//
//	limit := httplimit.Middleware(limiter, httplimit.ByIP(proxies...), httplimit.Options{})
//	http.ListenAndServe(addr, limit(mux))
//
// # What it promises
//
// A request that the limiter denies does not reach the handler. It is answered 429 with
// Retry-After, in whole seconds rounded up, so that a client that obeys is not denied
// for having come early, and a problem body (RFC 9457) that names the limit. Every
// answer carries RateLimit-Policy and RateLimit as in the IETF's draft "RateLimit header
// fields for HTTP".
//
// ByIP believes X-Forwarded-For as far as proxies wrote it that are trusted, and no
// further: a client cannot choose its address by sending that header.
//
// # What it does not
//
// It does not read bodies, nor limit bytes or connections. It denies a request after its
// header was read.
//
// It knows X-Forwarded-For and no other header of proxies. The address that a proxy
// writes there is as good as the proxy.
//
// # Redis keys it writes
//
// None but those of the limiter, one per key of its KeyFunc. The keys that are made here
// begin with what they are ("ip:", "user:", "header:", "route:"), so that a user whose name
// is an address is not that address.
//
// # When Redis is slow, down or fails over
//
// What the limiter's policy says. An error of the limiter, which an outage is not, is
// answered 503, without its text; so is a request whose context ends before the limiter
// has answered, by a deadline that was put on it or as the client left.
//
// # Cost per call
//
// Beside what the KeyFunc takes:
//
//	call       round trips    allocations, beside Allow's
//	request    1 Allow        8
package httplimit

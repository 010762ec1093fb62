package api

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/spillway-go/spillway/ratelimit"
	"github.com/spillway-go/spillway/ratelimit/httplimit"
)

// limits are how often one caller may call one server. They are local: what they
// protect is the server, and a question to Redis would cost more than most calls.
// What must hold in the whole fleet, such as text messages a minute, has limits of its
// own in Redis.
type limits struct {
	users, addresses *ratelimit.Limiter
	address          httplimit.KeyFunc
	allowed, denied  atomic.Uint64
}

func newLimits() (*limits, error) {
	users, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(20).WithBurst(60)})
	if err != nil {
		return nil, err
	}
	addresses, err := ratelimit.NewLocal([]ratelimit.Limit{ratelimit.PerSecond(50).WithBurst(200)})
	if err != nil {
		return nil, err
	}
	// A proxy on this machine, such as the demo's, is believed whom it forwards for.
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	return &limits{users: users, addresses: addresses, address: httplimit.ByIP(proxies...)}, nil
}

// allow counts a user as such, and the others by address.
func (l *limits) allow(r *Request) error {
	limiter, key := l.users, strconv.FormatInt(r.UID, 10)
	if r.UID == 0 {
		limiter, key = l.addresses, l.address(r.Request)
	}
	res, err := limiter.Allow(r.Context(), key)
	if err != nil {
		return err
	}
	if !res.OK() {
		l.denied.Add(1)
		return &Error{Status: http.StatusTooManyRequests, Code: "too_many", Msg: "too many requests", RetryAfter: res.RetryAfter}
	}
	l.allowed.Add(1)
	return nil
}

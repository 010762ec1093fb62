// Package overload keeps a service at work when more comes in than it can do, for the
// load that no rate limit foresaw.
//
//   - [Shedder] turns away what would only wait: it finds by itself how much may be in
//     flight, from the latency it sees.
//   - [PerKey] lets each key hold so many at a time: one hot product may have at most n
//     database connections.
//   - [Switches] are names for what can be left out, flipped at run time for the
//     whole fleet or in one process.
//
// For a circuit breaker take github.com/sony/gobreaker/v2, which has no dependencies and
// a rolling window, with what says nothing of the service left out of its counts. As
// successes they would close a breaker, and hide failures in a row:
//
//	gobreaker.Settings{IsExcluded: func(err error) bool {
//		return errors.Is(err, overload.ErrShed) || errors.Is(err, context.Canceled)
//	}}
//
// # What it promises
//
// A Shedder lets nobody in beyond its limit, and decides at once. Its limit follows the
// gradient of latency: it falls when calls take longer than they do without load, and
// grows while they do not and the limit is used.
//
// A PerKey never lets more than n of a key in; those who wait come in the order in
// which they came, and leave at once when their ctx ends. A key that nobody holds takes
// no memory.
//
// A switch is read without a lock or I/O.
//
// # What it does not
//
// A Shedder does not know one caller from another: put a rate limiter before it if one
// of them must not push out the rest. It needs latency that grows with load. Calls that
// fail fast look like fast calls: shed before them, or do not count them. That a service
// became slower for good it finds out after seconds, up to ten where it is less than
// three times as slow, and sheds for as long what it could have done.
//
// A switch reaches other processes within Options.Every, not at once.
//
// # Redis keys it writes
//
//	<Prefix>:overload1:{<Name>}:switches    hash    a field per switch; ~60 B each; no TTL
//
// It stays until it is deleted. Commands, for an ACL: HSET, HGETALL.
//
// # When Redis is slow, down or fails over
//
// Switches stay as they were last read, and Switches.Read tells since when that has
// been. Shedder and PerKey do not use Redis.
//
// # Cost per call
//
//	call               round trips    allocations
//	Shedder.Acquire    0              2
//	PerKey.Acquire     0              3
//	Switches.On        0              0
//	Switches.Set       1
//	Switches.Run       1 per Options.Every
package overload

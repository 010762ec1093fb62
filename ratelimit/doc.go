// Package ratelimit grants so many units per period, to a whole fleet of processes
// on one Redis or to one process alone.
//
// A [Limiter] has one or several limits, say 10 a second and 1000 an hour, and serves
// any number of keys: users, addresses, tenants. Three calls, of which most programs
// need one:
//
//   - Allow, for requests: yes or no, now.
//   - Wait, for work: blocks until its turn.
//   - Reserve, to be told when, and to wait or cancel oneself.
//
// Package ratelimit/httplimit puts a limiter before an HTTP handler.
//
// # What it promises
//
// In any window of length t a GCRA limit grants at most Burst + Rate·t/Period units of
// a key, to all processes together, and no rate drifts: all figures are integers, 7 a
// second are 7 a second for years. The other algorithms say what they promise.
//
// A call is granted by all limits or by none; a denial names the limit, changes nothing
// and says when to try again: then, and not a microsecond earlier, the units are there
// if nobody else took them. A call for more than can ever be granted is
// ErrExceedsBurst.
//
// Calls of one process share round trips, and are decided one by one in the order in
// which they came.
//
// Time is the Redis server's: the clocks of clients do not matter. A server's clock that
// is set forward, or a failover that loses the last writes, grants at most one burst
// more per key; one that is set back grants nothing more. A key then loses what came back
// to it in as much time as the step is long, since its last grant at most, and nothing
// comes back for up to a second; it is never shut out for longer than its burst, and
// the turns that were given, take to come back, and that second.
//
// A lost reply costs the caller its units at most once, and mints none: what may have
// run is never run again.
//
// # What it does not
//
// It does not queue Allow: under overload a large call finds its units less often than
// a small one. Wait and Reserve give turns in order.
//
// A Reset, or a turn that is given back, is known at once in its own process; others may
// repeat a denial until its RetryAfter.
//
// It does not protect a server from requests that it has to read before it can deny
// them, nor count what they cost: see package ratelimit/overload for load that no
// limit foresaw.
//
// Units that are taken and not used are lost: leases that end, turns that are cancelled
// after others were given, calls whose caller left.
//
// # Redis keys it writes
//
// One string per key that was granted something, until its limits are full again:
//
//	<Prefix>:ratelimit1:{<key>}:state-<hash of the limits>[:<Name>]
//
// It takes some 30 bytes per limit beside its name (a SlidingLog of a second 9 per grant,
// of an hour 13), and its TTL is the time until all limits are full, in milliseconds. A
// server that evicts such a key grants one burst more.
//
// Commands, for an ACL: EVAL, EVALSHA, and inside scripts TIME, GET, SET, UNLINK.
//
// # When Redis is slow, down or fails over
//
// No round trip is waited for much longer than Options.Timeout, nor by anybody who came
// while one was hanging more than twice as long; only Close waits until the client gives
// up what hangs. A call that has no answer by then, or to which Redis is not available,
// is decided by Options.WhenDown: by a limiter of this process with its share of the
// limits (LocalShare), granted (FailOpen) or denied (FailClosed). The error is nil then;
// Result.Source and Stats say so. Reset and Cancel are ErrUnknown then. After three
// failed round trips in a row nobody asks any more but a probe, at first every 0.2 s,
// later every 5 s, until three in a row have succeeded. In a Cluster every sixteenth of
// the slots is judged by itself. A share starts full once, not with every outage: all
// outages together grant at most one burst of it, and its rate.
//
// A ctx that ends, a wrong password or an error in a script are no outage: they are
// returned as errors, ErrUnavailable if nothing happened, ErrUnknown if units may have
// been taken.
//
// # Cost per call
//
//	call                       round trips       script          allocations
//	Allow, AllowN, AllowUpTo   1, shared         O(limits)       40
//	Peek, Reserve              1, shared         O(limits)       40
//	denied, remembered         0                 none            0
//	granted from a lease       0                 none            0
//	Wait                       1, shared         O(limits)       40
//	Reset, Cancel              1                 O(limits)
//	any, NewLocal              0                 none            0
//
// Shared means that the calls of one process that wait at the same time, up to 512,
// make one round trip: those of one key become one script call, which takes as long as
// for one, and the keys are pipelined. SlidingLog costs O(Rate). A denial is remembered
// for 65,536 keys; a process that is denied on more asks again for some.
package ratelimit

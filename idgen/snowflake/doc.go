// Package snowflake makes ids from the time: 64-bit numbers of a timestamp, the id of
// the process (the worker) and a sequence, without a counter that processes share.
//
//	w, err := snowflake.LeaseWorker(ctx, rdb, snowflake.Options{})
//	ids, err := snowflake.New(snowflake.Dense, w)
//	id, err := ids.Next(ctx)
//
// Where a counter is at hand, idgen.Segment is simpler, faster and needs no clock.
//
// # What it promises
//
// Ids are unique among all processes that lease from one set of worker ids and use
// one layout: through clocks that are set forth or back, restarts, lost leases and
// processes that are paused for any time at any point.
//
// The reason is a ceiling. With the worker id a process reserves in Redis the times
// that its ids may have, up to a ceiling, and each renewal raises it before it is
// used. The next holder of that worker id begins above it. Nothing depends on whose
// clock is right, or on a process noticing in time that its lease is over.
//
// No id is made after the lease has ended by this process's monotonic clock, counted
// from before the request was sent.
//
// Ids increase strictly within a process. Among processes they increase as their
// clocks do, give or take 100 ms or two units of the layout: a process that needs
// more ids than a unit has takes them from the next ones, within that bound, and then
// waits. A clock that was set back by less goes unnoticed; otherwise Next waits until
// it has caught up, or refuses with ErrClock if ctx ends sooner. The clock is read
// when the lease is taken or renewed; in between time is monotonic.
//
// Fields that do not fit their bits are errors of New, not wrong ids. An epoch that
// ends within a year is logged and in Stats.
//
// # What it does not
//
// It does not survive a failover of Redis that loses leases: a new master that never
// heard of one may give the same worker id, without its ceiling, to another process.
// Until the first holder renews, within a third of Options.TTL, both make ids, and
// those of the same unit and sequence collide. Where that matters, use
// idgen.SQLStore.
//
// Ids can be guessed and tell when they were made, and about how many are:
// idgen.Permuter hides that.
//
// A process whose clock differs from that of Redis by more than a minute gets no
// lease, and no renewal: ErrClock.
//
// # Redis keys it writes
//
//	<Prefix>:snowflake1:{<Name>}:workers  hash  a field per worker id; ~105 B
//
// It has no TTL: the ceilings are needed for as long as the worker ids are. Commands,
// for an ACL: EVAL, EVALSHA, and inside scripts TIME, HMGET, HGET, HSET; CONFIG GET or
// INFO in LeaseWorker.
//
// # When Redis is slow, down or fails over
//
// Ids are made for up to Options.TTL after the last renewal, which happens each third
// of it. Then Next waits until its ctx ends: ErrUnavailable. When Redis is back it
// goes on, with the same worker id unless somebody took it. Failing over: see above.
//
// Redis must not evict keys: LeaseWorker refuses any maxmemory-policy but noeviction.
//
// # Cost per call
//
//	call           round trips                        allocations
//	Next, TryNext  0                                  0
//	LeaseWorker    2, and 1 per 128 ids that are taken
//	Close          1
//	renewal        1 per third of a TTL
//
// Next costs some 35 to 55 ns, most of it for reading the clock.
package snowflake

// Package cache is a cache in two levels, in the process and in Redis, in front of
// a source that is slow: it loads a key once for all who ask, tells the truth
// after a delete, and stands when Redis falls.
//
// Get answers from the local level, else from Redis, else it loads. Whoever
// changes the source calls Delete when the change is committed, or Set if it
// knows the new value.
//
// # What it promises
//
// One load per miss. All callers in all processes that miss a key at the same time
// wait for one load, whose right is a lease in Redis. A key is loaded twice only if
// the loader outlives its lease, its process dies, or Redis is down.
//
// A failure is contained. Those who wait get the error, and for a cool-down that
// begins at 100 ms and doubles up to 5 s nobody in any process loads again: callers get a
// stale value or the error at once. Panics are errors. No caller's
// ctx ends a load that others wait for, and a cancelled load begins no cool-down.
//
// After Delete returns nil, no load that began earlier enters Redis or the local
// level of this process, and no Get of this process that begins then is answered
// from one. Other processes forget the key when they hear of it, a round trip later.
// One that cannot hear counts all it has as old after three seconds without a
// heartbeat, keeps nothing longer than a second from then on, and begins anew when
// it hears again. So does one that hears everything, but three seconds late.
//
// A Get in this process that begins after Set sees the value or a later write,
// whatever the local level had room for.
//
// A value is fresh for at most its TTL. "Not found" is remembered as such, never
// as a value.
//
// # What it does not
//
// Delete cannot exclude a loader that reads from a replica which lags, nor a Delete
// that is sent before the database has committed: use DeleteTwice. Nor a failover
// that loses the Delete. The modes AddRefill and Plain give up the promise on
// Delete towards loads in Redis, as they describe.
//
// Redis is no place to keep what is nowhere else, and without Redis the local level
// is none: what it has no room for is loaded again. A write that waits to be written
// behind is lost with its process.
//
// A stale answer (Options.StaleFor) may have been deleted by another process while
// this one was cut off. A writer's Set and another's are ordered as Redis sees
// them; one whose reply was lost counts when it runs again.
//
// Values of the local level are shared, unless Source.Clone is set.
//
// # Redis keys it writes
//
// Each entry has a hash tag of its own, <Prefix>:cache1:{<cache>:<key>}:
//
//	:v  string  the entry: 44 bytes and the value; TTL: Options.TTL + StaleFor
//	:l  string  15 bytes while it is loaded; TTL: LoadTimeout + 1 s. After a load that
//	            failed its error, up to 230 bytes; TTL: up to 15 s
//
// and the cache one channel, <Prefix>:cache1:{<cache>}:bus.
//
// Commands, for an ACL: EVAL, EVALSHA, SUBSCRIBE, UNSUBSCRIBE, PING, PUBLISH, and
// inside scripts TIME, MGET, GET, GETRANGE, SET, PTTL, DEL, UNLINK. Any
// maxmemory-policy will do: an entry that is evicted is a miss, a lease that is
// evicted costs a load.
//
// # When Redis is slow, down or fails over
//
// Slow: calls gather behind those in flight and share the next round trip. Get
// waits for Options.Timeout; after three failures in a row Redis is asked no more, but
// for a probe now and then.
//
// Down: fresh local entries are answered as ever, for three seconds and then for
// one. What is missing is loaded, at most Options.OutageLoads times a second in
// each process, or answered stale, or refused with ErrUnavailable: Options.WhenDown.
// Set and Delete fail with ErrUnavailable, or ErrUnknown after a lost reply, and
// the key is deleted in the background as soon as that is possible.
//
// Failing over: the same. A write or delete that the new master never heard of is
// undone: the old value may be in Redis until its TTL ends.
//
// Out of memory, where nothing may be evicted: what is there is answered, and what is
// missing as if Redis were down, so that each process loads for itself. Deletes
// succeed. Set fails with ErrUnavailable, and the key is deleted.
//
// # Cost per call
//
//	call                  round trips               script      allocations
//	Get, local            0                         none        0
//	Get, from Redis       1, shared                 O(1)        30
//	Get, loaded           3, shared                 O(1)
//	GetMany               1, and 2 for loads        O(keys)
//	Set, Add              1, shared                 O(1)
//	Delete                1, shared                 O(keys)
//	Peek                  0 or 1, shared            O(1)
//	a process, idle       1 a second                none
//
// Shared means that calls which wait at the same time, up to 64, are one round
// trip, or one a node of a Cluster. A key of another type than string costs an
// allocation more, for its name. All processes hear every Delete, Set and Add.
package cache

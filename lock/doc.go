// Package lock is leases on Redis that know when they are lost: mutual exclusion
// between processes, with fences, and without polling.
//
//   - [Locker.Do] runs a function under a lock; Lock and TryLock for what does not
//     fit into a function.
//   - [Lease.Fence] goes with every write that the lock protects; [FenceGuard],
//     [FenceLua] and [FenceSQL] are the side of the resource that checks it.
//   - [Locker.RW] and [Locker.Semaphore] are for several holders at a time.
//   - [Quorum] is a lock over several independent servers.
//
// # What it promises
//
// At most one lease of a name is valid at a time, as long as Redis keeps its data
// and its clock runs steadily. Validity is counted on the process's own monotonic
// clock from before the request was sent, less 1 % of the TTL and 2 ms. The
// lease's context ends before its validity does, with cause ErrLost, unless the
// process itself is stopped.
//
// Fences of one name grow strictly from holder to holder, over releases, expiry,
// passing on inside a process, FLUSHALL and failover: each is the greater of the last
// one plus one and the server's time in microseconds, below 2^53, and none is
// handed out before the server's clock has come to it (after a ForceUnlock or a step
// back of the clock, the next ones are ahead of it until it has caught up). The
// exception: a new server whose clock lags behind by more than the time since the
// last grant.
//
// Acquiring, renewing and releasing may each run twice and have one effect. A
// release whose reply is lost is found out, or reported as ErrUnknown; it works
// under a context that was cancelled; after the lease's end it touches nobody
// else's. A renewal never brings back a lease that ended.
//
// Goroutines of a process are served in order of arrival, whoever of them leaves,
// and with Options.Fair processes are too. A lock that is free and waited for is
// taken at once: a release tells who waits. A holder that is gone is waited for until
// its TTL is over; with Fair, a process that died while it waited costs half a second.
//
// Readers and permits each have a lease of their own, which is renewed, lost and given
// back without touching another's. A writer that waits keeps new readers out, so that
// it gets its turn; it may keep readers waiting for as long as there are writers.
//
// # What it does not
//
// It does not protect a resource from a holder that was stopped, or whose machine
// slept, and does not know yet that its lease is over: the fence does, if the
// resource checks it. Time in which the whole machine is suspended does not count on
// its monotonic clock.
//
// It does not survive a failover that loses the grant, since Redis replicates
// asynchronously: two holders may then believe in their leases until the first
// one's renewal is refused, a third of a TTL later at most. Their fences differ.
//
// A forward step of the server's clock ends leases early, while their holders
// believe in them: again only the fence protects. After a step back, a Lock's lease is
// shortened to one TTL by the next call that sees it. That of a reader, writer or permit
// is when it is renewed or given back; one whose holder is gone lasts longer by the step.
//
// It is not reentrant: a goroutine that locks a name twice waits for itself. Lock, RW
// and Semaphore of one name have nothing to do with each other. Without Options.Fair
// processes are served in no order.
//
// A Quorum has no fence, and its two rules (see there) are the operator's to keep.
//
// # Redis keys it writes
//
// All under <Prefix>:lock1:{<name>}, one hash tag:
//
//	:lease                      string  holder, expiry, fence; ~170 B
//	:queue, :seen               zset    with Fair, processes that wait; ~80 B each; TTL 1 minute
//	:rw, :sem                   string  what :lease is, of an RWLock or a Semaphore; ~100 B
//	:rw-members, :sem-members   zset    holders, and for 10 s those who were; ~80 B each
//	:quorum                     string  as :lease, on each server of a Quorum
//	:events, :rw-events, :sem-events    channels for releases, when somebody waits
//
// All others go 24 hours after their last use; they carry the last fence. Under
// eviction locks get lost: use noeviction, or a volatile policy that spares them.
//
// Commands, for an ACL: EVAL, EVALSHA, SUBSCRIBE, UNSUBSCRIBE, PING, and inside
// scripts TIME, GET, SET, DEL, PTTL, PEXPIRE, PUBLISH, ZADD, ZREM, ZCARD, ZCOUNT,
// ZSCORE, ZMSCORE, ZRANGE, ZRANGEBYSCORE.
//
// # When Redis is slow, down or fails over
//
// Lock waits, and names Redis's trouble in its error when ctx ends. TryLock fails
// with ErrUnavailable after a tenth of a second. Renewals are tried until the
// validity ends. An Unlock that cannot reach Redis is ErrUnavailable; the Locker goes
// on trying until the validity would have ended, and the lease ends with its TTL. Out
// of memory, a Lock's lease can be renewed and given back, but not taken
// (ErrUnavailable); readers and permits can be given back, not renewed. After a
// reconnect everybody who waits asks again.
//
// The client's ReadTimeout should be below the TTL: an attempt in flight cannot be
// interrupted.
//
// # Cost per call
//
//	call                             round trips  script  allocations
//	Lock and Unlock, alone           2            O(1)    60
//	Lock and Unlock, passed on       0                    7
//	Lock, held elsewhere             3, and 1 every 2 s (Fair: 0.5 s)
//	RLock, Semaphore.Lock, Unlock    1 each       O(log holders)
//	renewals                         3 a TTL, one pipeline for up to 128 leases
//	Holder                           1            O(1)
//	ForceUnlock                      2            O(1)
//	Quorum.Lock, Unlock              1 each, to every server at once
//
// A script keeps Redis busy for some 7 µs. Fair adds the queue: O(log processes).
// A lease is passed on inside its process at most 64 times and for at most 30 ms,
// then other processes have their turn. A Locker that waits, or lingers, keeps one
// connection for its subscriptions, outside the client's pool, with a PING a second
// when it is quiet.
package lock

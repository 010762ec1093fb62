// Package delayqueue runs jobs at a time: "cancel the order if it is not paid in 30
// minutes".
//
// Producers add jobs to a [Queue], with a delay or a time, and may cancel or reschedule
// them by id. Workers run a [Handler]. Jobs whose handlers fail are retried with
// backoff, and end among the dead letters.
//
// # What it promises
//
// A job runs at least once, and never before it is due, by the clock of the Redis
// server: a delay is added to that clock in the step that stores the job, so that a
// producer's wrong clock moves nothing. Job.At is taken literally.
//
// A job in the queue is there once: an Add whose reply was lost is sent again and
// stored once, and an id that a job has, or had within Options.ReplayWindow, is refused
// with ErrDuplicate. The same holds for every other call: a repeated ack, retry, cancel
// or claim is told what the first one did.
//
// A job runs twice only if its worker crashed, or was stopped or cut off from Redis for
// longer than the lease. Then another worker with a free slot has it within its
// RunOptions.MaxSleep, a second by default, after the lease ended; what the first one
// says later is refused, and its handler's context ends before (cause ErrLeaseLost), as
// long as its clock runs.
//
// Failures of handlers and crashes of workers are counted apart. A job that kills its
// workers is dead after exactly Options.MaxCrashes of them, one that fails after
// exactly MaxAttempts.
//
// Jobs that are due are taken oldest first, and only for free slots. All shards have
// their turn.
//
// # What it does not
//
// It does not run a job exactly once: nothing can. Delivery.OnceSQL and Delivery.Once
// make its effects happen once.
//
// It keeps no order between jobs: handlers run at the same time, and each shard has
// its own schedule.
//
// It does not survive a failover that loses writes: Redis replicates asynchronously,
// and jobs that the new master never heard of are gone, or come back after they ran.
// With appendfsync always and no failover, nothing that was acknowledged is lost.
//
// If the server's clock is set forward, jobs come early by as much, and leases end
// early; if it is set back, they come late.
//
// An Extend or Replace whose reply is lost in the very moment in which the waiting job
// starts may store the job once more.
//
// # Redis keys it writes
//
// All under <Prefix>:delayqueue1:{<queue>#<shard>}, one hash tag a shard:
//
//	:due      zset    a member per waiting job, ms → id; ~105 B with ids of 16 B
//	:jobs     hash    a field per job, id → body and what the Add said; ~65 B + body
//	:run      zset    a member per running job, end of its lease → id; ~105 B
//	:state    hash    a field per job that runs, failed or is dead; ~110 B
//	:dead     zset    a member per dead job; dropped after Options.DeadRetention by Run
//	:unique   hash    a field per unique key in use; ~100 B
//	:done:N   hash    a field per job that ended in window N; ~130 B; two to three
//	                  Options.ReplayWindow
//	:claim:C  list    the last claim of a worker, at most 128 ids; TTL 1 minute
//	:once:E   string  a marker of Delivery.Once; TTL Options.DeadRetention
//	:periodic hash    a field per Periodic; ~80 B
//	:paused   string  while paused
//	:shards   string  in shard 0: the number of shards
//	:wake     channel
//
// Waiting jobs have no TTL. A waiting job of 64 B takes some 270 B with a generated id.
//
// Why a sorted set: a broker's delay levels know a few fixed delays and no cancel; a
// table scan costs the database a query per second and worker, and delays by the
// interval; a timing wheel lives in one process and has to be filled from somewhere
// after each crash. In a sorted set add, cancel and reschedule are O(log n) by id, the
// next due time is its first member, and any number of workers share it.
//
// Commands, for an ACL: EVAL, EVALSHA, SUBSCRIBE, and inside scripts TIME, EXISTS, GET,
// SET, DEL, UNLINK, PEXPIRE, PUBLISH, HGET, HMGET, HSET, HSETNX, HDEL, ZADD, ZREM,
// ZSCORE, ZCARD, ZCOUNT, ZRANGE, ZRANGEBYSCORE, LINDEX, LRANGE, RPUSH; CONFIG GET or
// INFO in New.
//
// # When Redis is slow, down or fails over
//
// Slow: Adds and acks gather behind those in flight and share the next round trip; a
// caller whose ctx ends leaves at once.
//
// Down: a producer's call waits about a second for a server on which nothing ran, then
// ErrUnavailable. After a lost reply it tries for five seconds to find out, then
// ErrUnknown: add again under the same ID. Workers keep trying. The end of a handler is
// told for as long as its lease may hold; handlers whose lease cannot be renewed are
// told to stop.
//
// Failing over, restarting or moving slots: the same. Wake-ups that are lost cost up to
// RunOptions.MaxSleep, and are counted in Stats.LostHints.
//
// Out of memory: Adds get ErrUnavailable at once, nothing is half done. Claims, acks,
// retries and cancels go on. The server must not evict keys: New refuses any
// maxmemory-policy but noeviction.
//
// # Cost per call
//
//	call                      round trips       script
//	Add                       1, shared         O(log n)
//	AddMany                   1 per shard       O(jobs × log n)
//	Cancel, Reschedule        1                 O(log n)
//	Get                       1                 O(log n)
//	Once                      1                 O(1)
//	Dead, Redrive, Inspect    1 per shard
//	Run, a job                1 claim, 1 ack, both shared by up to 128 jobs
//	Run, idle                 1 a second and shard, and 1 when a job comes due
//	Run, leases               3 per lease and shard while handlers run
//
// Shared means that the calls of one process that wait at the same time are settled
// by one script.
package delayqueue

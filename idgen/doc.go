// Package idgen makes ids: 64-bit numbers that nobody else has.
//
//   - [Segment]: from ranges claimed ahead of time from a counter in SQL or Redis. An
//     id costs a few nanoseconds, needs no clock, and an outage of the store is
//     bridged. The usual choice.
//   - idgen/snowflake: from the time, a leased worker id and a sequence. No
//     counter, and an id tells when it was made.
//   - [Permuter]: shuffles numbers of either kind, so that they do not tell how much
//     is sold.
//
// # What it promises
//
// Ids are unique among all processes that share a store, whatever is killed, paused
// or retried. What is lost is holes: a process that ends loses the ids it holds,
// at most Options.Segments ranges, a claim whose reply was lost loses its range.
//
// Within a process ids increase strictly: an id asked for after another was returned
// is larger. (Not with SteppedStore.)
//
// An id that is at hand never waits. When the store is down, ids go on for
// Segment.Runway; one claim is in flight at a time, further ones come with backoff
// and jitter, and callers wait without spinning until an id or the end of their ctx.
//
// The next range is asked for when a quarter of the current one is left, or sooner if
// the store is slow: when what is left would last less than twice the slowest of the
// last 64 claims. A claim asks for twice as much if a range lasted less than
// Options.TargetDuration, for half as much if it lasted twice as long.
//
// Different numbers below a Permuter's domain stay different, and can be inverted.
//
// # What it does not
//
// Ids of different processes are not in order of time, and there are gaps: an id is a
// name, not a count.
//
// RedisStore is unique barring a failover that loses claims. Redis replicates
// asynchronously: a promoted replica may not know of the last moments, and hand out
// again what was claimed in them. When the server's replication id changes, every
// counter that it has skips RedisOptions.Gap numbers, once, which covers a replica that
// lagged by less than that many numbers. The skip is itself such a claim, of Gap numbers
// and more: a server that gets its first replica changes its id too, and that replica has
// to receive the claim that follows.
//
// A counter that the promoted replica had not received at all, because its biz is so new,
// begins again at RedisOptions.Start, as all do on a Redis that lost everything, unless a
// process with a memory claims first. Nothing in Redis tells: keep a high-water mark
// elsewhere, as the largest id in the orders table, and put it there. Where neither will
// do, use SQLStore.
//
// A store that was restored from a backup repeats what came after it, and so does a
// database that may forget its last commits in a crash or a failover
// (innodb_flush_log_at_trx_commit=0, synchronous_commit=off). A Segment refuses ranges
// that it had itself been given (ErrWentBack); nobody can know those of other
// processes.
//
// A Permuter deters; it is not cryptography, and its comment says what is.
//
// # Tables it writes
//
// SQLStore keeps a row per biz in a table that Migrate creates, or this statement
// (MySQL; VARCHAR(128) PRIMARY KEY in PostgreSQL, TEXT and INTEGER in SQLite):
//
//	CREATE TABLE spillway_idgen (
//	    biz     VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY,
//	    max_id  BIGINT NOT NULL,  -- the last number handed out
//	    version BIGINT NOT NULL   -- claims so far
//	)
//
// The atomic mode claims with one statement, which the database serialises on the
// row: INSERT … ON CONFLICT DO UPDATE … RETURNING, or in MySQL an UPDATE that
// returns its result through LAST_INSERT_ID. An UPDATE followed by a SELECT is not a
// claim: two processes that update one after the other both read what the second one
// made, and hand out the same range.
//
// The optimistic mode reads max_id and version and writes back if the version is
// still there, one row affected being the proof. Of n processes that read the same
// version one wins, whatever n is, so that the last of them may need n tries. With
// the three tries of the textbooks, 18 % of claims gave up when 8 processes claimed
// at once and 37 % when 32 did (MariaDB on the same machine, with up to 5 ms of
// jitter between tries); with the 16 of Optimistic none did. A claim that gives up is
// ErrContended, and a Segment tries again.
//
// The step has to cover what is used while a claim is under way, from the moment it
// begins: step ≥ rate × claim time / the part that is left when it begins. With 100
// ids a second, a store that takes 2 s at its worst, and a quarter left,
// 100 × 2 / 0.25 = 800. Segment keeps that by itself if MaxStep allows.
//
// # Redis keys it writes
//
//	<Prefix>:idgen1:{<biz>}:counter  hash  the last number, and who handed it out; 130 B
//
// It has no TTL: a counter that is forgotten repeats itself. Commands, for an ACL:
// EVAL, EVALSHA, and inside the script HMGET, HSET and INFO (without which no gap is
// skipped); CONFIG GET or INFO in RedisStore. The package idgen/snowflake has keys
// of its own.
//
// # When Redis is slow, down or fails over
//
// The same holds for a SQL database. Slow: refills begin earlier, and nobody waits.
// Down: ids go on for Runway, then Next waits until its ctx ends: ErrUnavailable.
// It recovers within two seconds of the store. Failing over: see above. A claim
// whose reply is lost is ErrUnknown to a caller of Store.Claim, is not sent again, and
// means a hole; a Segment claims another range.
//
// Redis must not evict keys: RedisStore refuses any maxmemory-policy but noeviction.
//
// # Cost per call
//
//	call                    round trips  allocations
//	Next, TryNext           0            0
//	NextN                   0            1, the result
//	Permute, Invert         0            0
//	Claim, SQL, atomic      1
//	Claim, SQL, optimistic  2 a try
//	Claim, Redis            1
//
// Next costs some 6 ns, and 20 ns when two cores want ids of one Segment at once.
package idgen

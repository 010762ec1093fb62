// Package stock is inventory that never oversells, for a sale in which far more
// people order than there are units.
//
// An [Activity] is the stock of one sale. Stock can be taken at three moments, and
// a shop chooses one:
//
//   - at order: Deduct when the order is placed, Cancel if it is not paid for;
//   - at payment: Deduct when the payment arrived, refund it if nothing is left;
//   - hold, then pay: Reserve when the order is placed; Confirm when it is paid
//     for, else the units come back after Options.Hold.
//
// # What it promises
//
// Units sold and held never exceed what was loaded and restocked, and no unit is
// lost: left + reserved + sold is what was put in, after every call.
//
// An order id is settled once. Whoever asks again with the same content, in any
// process, is told the first outcome, whatever the stock is by then: with Order.Retry,
// which asks Redis in any case, the retry of the order that took the last unit is not
// told "sold out" either. The same id with other content is ErrConflict. Records are kept for Options.Retention.
//
// An order gets all of its items or none, or, with Order.Partial, whole items and
// the names of the others. Limits per user hold in the same step.
//
// A hold ends exactly once: confirmed, cancelled or expired. A Cancel that
// overtakes its Reserve wins: the Reserve is refused when it arrives.
//
// A refusal, an outage (ErrUnavailable: nothing happened) and a lost reply
// (ErrUnknown: it may have happened) are three different answers. A call whose
// reply is lost is sent again under its own token, for five seconds at most, and
// has one effect. If it is refused then, an attempt that is still on its way is
// refused as well.
//
// Everything that happened is in the journal, in order, written by the script that
// did it; each entry names the one before. A SKU that sells out or comes back
// leaves exactly one event there, with a version that only grows.
//
// RunJournal brings the journal to a [Sink], each entry once and in order, whatever
// is killed; stock/stocksql is one for SQL databases. A journal that does not continue
// what a sink has is noticed before anything of it gets there: orders are refused until
// Rebuild, which takes the sink's word for what was sold. Reconcile compares the two
// while the sale goes on. A process that starts asks Reconcile before it calls Load:
// where Redis lost everything it is ErrForked, while a Load would sell all units again
// until RunJournal has noticed.
//
// # Hot activities
//
// One hash tag is one slot of a Cluster, and so one processor. Options.Buckets
// divides an activity into several whole ones, in slots of their own that are spread
// over the masters. Each has a share of the stock, and its own records, limits, holds
// and journal. All orders of a user are settled in one bucket, the user's home, by one
// script, so that all of the above holds there as it stands; where home has not
// enough, stock moves to it first.
//
// Nothing is sold twice or lost on the way. A transfer is numbered by the bucket that
// gives, which writes down what is on its way, and taken once, whoever repeats it
// and however late. It is taken in the same step that settles the order which needs
// it. A transfer whose process died is finished by the next order that needs the
// units, and by Run.
//
// ErrInsufficient is the truth about all buckets at one moment during the call:
// home had not enough, and two looks around that moment saw nothing in any other
// bucket and nothing on its way, and no change between them. So the last unit sells,
// wherever it is. Where the last units do not hold still for that, the order gets
// ErrContended, and may be tried again. What a partial order misses was missing at
// moments of their own.
//
// What is different: that two users order under the same id is noticed (ErrConflict)
// only where they are at home in one bucket. A restock arrives in one bucket. Stock reads
// the buckets one by one, and may count twice, or not at all, what moves while it does: where
// it is wrong about whether anything is left, what is right has a higher version.
// There is a journal per bucket; see Options.Journals, Entries and Sink. MaxLag stops the orders of the
// buckets whose journal is behind, and Result.Durable speaks of home, not of the bucket
// that gave. Events come from looking at all buckets when something
// happened in one: OnEvent is told of a state that lasts, and may not be of one that
// passed within a tenth of a second, and versions are the sums of those of the
// buckets. Where a bucket cannot be reached, users at home there cannot order, and
// others cannot once their own bucket is out of stock: they get ErrUnavailable.
//
// A failover that loses writes breaks it as it does an undivided activity, and in one
// more way: where it loses that units were given, and the other bucket has them, they
// are sold twice; where it loses that they were taken, they are taken again, and
// what was sold of them meanwhile was lost with it. Such a transfer leaves a trace in
// the numbers of the two buckets, and RunJournal takes that for a fork like any other:
// no sink is told of a take before it has the give, a fork of one bucket halts the
// orders of all, and Rebuild makes all of them anew, with every unit where it was or
// was going, once.
//
// # What it does not
//
// It does not survive a failover that loses writes. Redis replicates asynchronously,
// and stock, orders and journal roll back together: acknowledged orders that are not
// yet in SQL can vanish, and their units be resold. Options.WaitReplicas (WAIT on the
// script's own connection) narrows it; if it is not met, Result.Durable is false and
// there is no error, since the deduct did happen. Orders that are in SQL do not
// vanish: the fork is noticed, and Rebuild brings them back. Without a sink nothing is
// noticed.
//
// It does not know about money, carts or delivery, and its records are not the
// shop's order table: stock/stocksql has the rows for one.
//
// Time is the Redis server's. A clock that is set forward ends holds early; one that
// is set back by more than a second makes them, and those made soon after, last
// longer by as much, and neither oversells.
//
// Holds are released by Run and by calls, at most 256 by one call: after an hour
// without either, an order may be refused although older holds are due.
//
// After ErrUnknown an attempt may still be on its way, for as long as a network can
// delay it. A new call of the same id settles the order once, whichever comes first,
// but if that new call is refused, the old attempt is not: Cancel forbids both.
//
// A refusal is not recorded. Calls of several processes, or of goroutines that do
// not wait for each other, are settled in the order in which they reach Redis.
//
// # Redis keys it writes
//
// All under <Prefix>:stock1:{<activity>}, one hash tag, until Drop:
//
//	:levels    hash    a field per SKU, and the activity's own state, with the
//	                   checkpoints of the sinks; ~80 B a SKU
//	:journal   stream  an entry per batch; ~45 B an order in a batch, ~115 B alone
//	:events    stream  the last thousand sell-outs and returns; ~60 B each
//	:holds     hash    a field per open hold; ~110 B
//	:orders:N  hash    a field per settled order; ~110 B; TTL: see below
//	:limits    hash    a field per user and limit, if limits are on; ~70 B
//	:eligible  set     a member per user, if EligibleOnly
//
// An order with its journal entry takes 130 bytes deducted and 145 reserved, with
// ids of 11 and users of 8 bytes, when calls are merged; 185 alone; 85 more with a
// limit per user. Each byte of id counts twice. The journal is kept whole
// until a sink is registered, by RunJournal; from then on what all sinks have is trimmed,
// but for the entries since the oldest open hold, and about a hundred more. A
// generation N of order records takes orders for one Retention and is read for
// another; it expires a minute later. The newest one stays until an order or a Run
// begins the next.
//
// With Buckets B, there are such keys for each bucket, its tag
// {<activity>%bB.<bucket>.<suffix>}, with two fields in :levels for each other bucket
// that it exchanged stock with, ~60 B; and :levels of the activity itself holds B and
// what was loaded in all.
//
// Commands, for an ACL: EVAL, EVALSHA, and inside scripts or by themselves TIME,
// HMGET, HGET, HSET, HDEL, HEXISTS, HLEN, HSCAN, SADD, SMISMEMBER, XADD, XLEN, XRANGE, XREVRANGE,
// XREAD, PEXPIRE, UNLINK; CONFIG GET or INFO in New; XTRIM for RunJournal, HGETALL for
// Reconcile, WAIT for WaitReplicas; TIME, HGETALL, RENAME, PERSIST, EXISTS for Rebuild,
// which writes keys :levels:<token>:… that expire after an hour if it dies.
//
// # When Redis is slow, down or fails over
//
// Slow: calls gather behind those in flight and share the next round trip; a
// caller whose ctx ends leaves at once. More than 65,536 waiting calls are refused
// with ErrUnavailable.
//
// Down: a call waits about a second for a server on which nothing ran, then
// ErrUnavailable. After a lost reply it tries for five seconds to find out, then
// ErrUnknown: make the same call again, ask Lookup, or Cancel.
//
// Failing over, restarting or moving slots: the same; see above for what a
// failover can lose. With WaitReplicas a call waits 100 ms at most for replicas, and the
// calls behind it in the queue wait as well.
//
// SQL slow or down: orders do not notice; the journal grows in Redis until the oldest
// entry that a sink lacks is Options.MaxLag old. Then new orders get ErrJournalFull, and
// confirms, cancels and restocks go on.
//
// Out of memory: orders get ErrUnavailable at once, nothing is half done; cancels
// too, and Run tries them again. The server must not evict keys: New refuses any
// maxmemory-policy but noeviction, since the retry of an evicted order would sell
// twice.
//
// # Cost per call
//
//	call                        round trips     script      allocations
//	Deduct, Reserve             1, shared       O(items)    35
//	Confirm, Cancel, Lookup     1, shared       O(items)    35
//	Restock                     1, shared       O(items)    35
//	order sold out, in memory   0               none        0
//	Load, up to 500 SKUs        1               O(SKUs)
//	Load, of n times 500        2 n             O(SKUs)
//	Stock, Entries, Holds       1 per page
//	Inspect                     1
//	RunJournal                  1 or 2 a batch  O(entries)
//	Reconcile                   1, 1 per page   O(SKUs)
//	Rebuild                     many            O(SKUs) to put it in place
//
// With buckets, and home out of stock:
//
//	order                       4, O(buckets) looks in one of them
//	order sold out              4, two of them O(buckets) looks
//	Load and Stock              1 more, and 1 per bucket
//	a restock                   2 more
//	Run, idle                   12 a second per bucket
//	a journal, idle             3 a second per bucket
//	a journal, of takes         2 more a batch and giver
//
// Shared means that the calls of one process that wait at the same time, up to 128
// or 16 KiB, are settled by one script. It keeps Redis busy for 2 µs an order in a
// batch of 64 and 17 µs for an order alone, three times that with limits per user.
// The allocations are those of a call alone; in a batch of 64 an order makes five.
// An idle Run makes two round trips a second, and so does an idle RunJournal.
package stock

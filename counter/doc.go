// Package counter counts likes, views and the like: far more increments than Redis
// could take one by one, without losing one to a lost reply.
//
// A [Counter] has three ways to count, and a field is counted in one of them:
//
//   - Add gathers increments in memory and sends one for all of them every
//     Options.Interval. Handle is the same for a counter that is hot.
//   - AddSync stores an increment before it returns, for what may not be lost.
//   - Toggle counts every member once, for the like that can be taken back; ToggleAt
//     does so for members with dense numbers. IsOn and IsOnAt tell whether one is on.
//
// # What it promises
//
// An increment counts once. A flush whose reply is lost is sent again unchanged, with
// its number; the script that adds it remembers the number in the same step. The
// next flush to that shard waits until this one is known to be stored. Resends end
// after 23 hours, the number lives for 24.
//
// A process that is killed loses what it added since its last flush, at most one
// Options.Interval while Redis answers. Close loses nothing that an Add accepted.
//
// A process reads its own writes: Get and GetMany return what is stored and exactly
// that part of this process's increments which is not, however flushes and replies
// interleave.
//
// Toggle changes membership and total in one step: the total is the number of
// members that are on, under any retries. (Plus what Add was given, which is why such
// a field should have none.)
//
// Totals are exact up to 2^53 - 1 either way. An increment that would leave that
// range changes nothing: AddSync and Toggle say ErrInvalid, for Add Stats.Refused
// counts it. A total below 0 is kept, and read as 0 unless the field is signed. Every
// int64 is an id.
//
// With Options.Cold the blocks of a Packed schema that have been idle leave Redis, and come
// back with the next call about them, through any lost reply and any process that is
// killed on the way. A block that should be in Redis and is not is ErrLost, never a
// zero: for reads, AddSync and Toggle of its objects, and for the flushes of its
// shard, which wait until it is back or its record in the store is deleted. Blocks at
// rest in the store survive the loss of all Redis.
//
// # What it does not
//
// It does not survive a failover that loses writes: Redis replicates
// asynchronously, and increments acknowledged in that moment are forgotten. A batch
// that is sent again after such a failover is counted, since the number that would
// tell was lost with it.
//
// Increments of other processes are seen when they are stored. Add does not know the
// total, so that it cannot be used to limit anything: that is ratelimit's and stock's
// work.
//
// Toggle and ToggleAt remember members, in what grows with them and stays in Redis when
// a block leaves. Counters are kept until somebody deletes their keys, and without
// Options.Cold a loss of Redis's memory reads as zeros.
//
// A batch whose outcome was unknown for 23 hours is given up, which Stats.Dropped
// counts. It may have been stored.
//
// # Redis keys it writes
//
// All under <Prefix>:counter1:{<schema>/<shard>}, of 64 shards; an object's shard
// follows from its id, in a Packed schema from id / 256. No TTL where none is named:
//
//	:c:<id>                hash    a field per field that was counted; ~105 B with one, ~150 with four
//	:b:<id/256>            string  the same of 256 objects if Packed; ~5.3 KB with four fields, 21 B an object
//	:o:<id/256>            hash    the totals beyond ±2^31 of these, ~30 B each
//	:c:<id>:<n>            hash    the same of a field with Spread, n from 1 to Spread
//	:e:<id/256>            string  where the block is, with Cold; ~110 B, kept while it is away
//	:i                     zset    the blocks that are here, with Cold; ~90 B each
//	:m:<id>:<field>        set     a member per member that is on; ~50 B each for names of 11 bytes
//	:d:<id>:<field>:<n>    string  a bit per member of ToggleAt, n the member / 65,536; at most 8 KB, and 16 KB of memory
//	:f:<process>           string  the number of a process's last flush; TTL 24 h
//	:a:<process><call>     string  the token of an AddSync or a Toggle; ~100 B; TTL 1 min
//
// Commands, for an ACL: EVAL, EVALSHA, and inside scripts GET, SET, STRLEN, SETRANGE,
// HMGET, HSET, SADD, SREM, SISMEMBER, GETBIT, SETBIT, of which IsOn and IsOnAt send two by
// themselves; with Options.Cold also SETNX,
// DEL, EXISTS, HGETALL, TIME, ZADD, ZREM, ZRANGEBYSCORE; CONFIG GET or INFO in New.
//
// # When Redis is slow, down or fails over
//
// Add notices nothing: increments gather. After Options.MaxOutage without storing
// anything for an object's shard, Add refuses more for it with ErrBacklog, until the
// shard's batch is stored. Memory is bounded by the number of different objects.
//
// AddSync, Toggle and Get wait about a second for a server on which nothing ran, then
// ErrUnavailable. After a lost reply AddSync and Toggle ask again for five seconds,
// then ErrUnknown. In a Cluster a server that is down delays the flushes to the
// others by as much: they share a round trip.
//
// When Options.Cold does not answer, calls about blocks that are away say ErrUnavailable,
// and the flushes of their shards wait.
//
// Out of memory: nothing is half done; increments stay pending and are sent again.
// The server must not evict keys: New refuses any maxmemory-policy but noeviction.
//
// # Cost per call
//
//	call           round trips                script      allocations
//	Add            0                          none        none; 6 for the first since a flush
//	Handle.Add     0                          none        none
//	Flush          1 per 200 objects a shard  O(objects)
//	AddSync        1, shared                  O(1)
//	Toggle         1, shared                  O(1)
//	ToggleAt       1, shared                  O(1)
//	Get, GetMany   1                          O(keys)
//	IsOn, IsOnAt   1                          none
//
// Shared means that the calls of one process that wait at the same time, up to 128, are
// one pipeline; in a Cluster those of one shard. AddSync of a field that spreads makes a
// second round trip, of its own.
//
// O(objects) with Schema.Packed is a GET of 1 KB a field for each block of 256 and a
// SETRANGE for each counter.
//
// For each block that is away three calls of Options.Cold come to it, and three round
// trips, one block after the other; for each that was never counted and is read, one call.
//
// The round trip of a flush, and of a GetMany, is one pipeline to each server, with a
// script for each of the shards it is about.
package counter

// Package hotkey finds the keys that are too hot for any one server and spreads
// their reads over copies.
//
//   - A [Detector] watches a process's traffic: Observe every key, ask Hot.
//   - [Copies] names the copies of a hot key: write all, read any.
//
// Both only compute. The caller talks to Redis, with the client it has.
//
// # What it promises
//
// A key with at least twice the share Options.Enter of the traffic is found within a
// second, 99 times in 100, if a second brings 50,000 observations: by default, a key
// with 1 % of the traffic. It stays hot until its share falls below Options.Leave, so
// that a key near the border does not come and go. What is past counts half after
// each Options.HalfLife.
//
// Memory is bounded: some 40 KiB for a Detector and 0.5 KiB at most for each of
// Options.Keys, whatever the number of keys in the traffic.
//
// The names of a key's copies lie in different Cluster slots, and on different
// masters as far as there are masters, if CopiesOptions.Master tells who has a slot.
// They are the same in every process with the same options.
//
// Accept refuses a version older than one that this process has accepted for the
// key, as long as the key is among the CopiesOptions.Keys most recently used.
//
// # What it does not
//
// Copies are for values that are read far more often than written and may be a
// moment old. NEVER make copies of stock, locks, limits, counters or anything else
// that is compared and set: the copies differ while they are written, and two
// callers would both be right. Package stock is made for hot stock: its calls merge,
// one SKU included.
//
// Writing all copies is not atomic. A copy whose write failed keeps the old value
// until it expires: give each the TTL that Copies.TTL returns, a few seconds, and
// fill a copy that is missing from the original. An older write that arrives after a
// newer one does the same harm and ends the same way; Accept shields a process that
// has seen the newer one. Versions must grow for ever, over deletion too: take the
// row's, or the time.
//
// The Detector sees its own process. What is hot only in the sum of many processes,
// each of which sees little of it, is not found. It is an estimate: keys at the
// border may be found late, or stay a little long. Nothing leaves while nothing is
// observed.
//
// # Redis keys it writes
//
// None. It names strings for the caller to write:
//
//	<Prefix>:hotkey1:{<key>#<number>}:copy
//
// # When Redis is slow, down or fails over
//
// Nothing changes here. When slots move to other masters, the copies of a key may
// come to share one; make new Copies to choose again.
//
// # Cost per call
//
//	call                        time                        allocations
//	Observe                     1 of Options.Sample counts  none
//	Hot                         O(1), no lock               none
//	Top                         O(Options.Keys)             the result
//	ReadKey, StickyKey, Accept  O(1), no lock               none
//	WriteKeys                   O(Copies), no lock          none beyond dst
//	the first use of a key      O(Copies + Keys)            its names
package hotkey

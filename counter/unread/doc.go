// Package unread tells users what they have not seen, and senders who has.
//
//   - [Unread]: how many messages of a conversation, by last-read sequence number.
//   - [RedDot]: whether there is something new in an area, by time.
//   - [FeedUnread]: how many new posts of those one follows, by snapshot.
//   - [Receipts]: who has read which message, a bit each.
//   - [Visitors]: how many different visitors a page had, about.
//
// Methods may be called from many goroutines and processes.
//
// # What it promises
//
// Nothing here counts one by one, so that nothing can be counted twice: every call
// raises a number to what the caller's database says, or sets a bit. Calls may be
// repeated, arrive late and in any order.
//
// What a user has seen does not go back before Options.TTL. A message that comes while a page is shown is
// not taken for seen, if the caller says what the page showed.
//
// # What it does not
//
// It stores no messages and gives out no sequence numbers. FeedUnread and Visitors
// have errors, which are named there. A key that has not changed for Options.TTL is
// forgotten: a conversation, area or author has nothing new then; a user who saw nothing
// at all for so long has everything unread that is not forgotten.
//
// It does not survive a failover that loses writes: Redis replicates
// asynchronously. The next call about the same thing repairs the number.
//
// # Redis keys it writes
//
// All under <Prefix>:unread1:{<thing>}, with Options.TTL from the last change:
//
//	:conversation, :area, :author  hash         one field; ~80 B
//	:reader, :viewer, :follower    hash         a field per thing that a user has seen; ~30 B and its name
//	:message:<n>                   bitmap       Receipts, ByMessage: members/8 B, up to twice that, and ~90
//	:member:<n>                    bitmap       Receipts, ByMember: messages/8 B, up to twice that, and ~90
//	:page                          HyperLogLog  up to 12 KB
//
// Commands, for an ACL: EVAL, EVALSHA, and inside scripts or by themselves HGET,
// HMGET, HSET, SETBIT, GETBIT, BITCOUNT, PFADD, PFCOUNT, PEXPIRE.
//
// # When Redis is slow, down or fails over
//
// Calls wait for Redis. What changes something waits about a second for a server on
// which nothing ran, then ErrUnavailable, and after a lost reply asks again for five
// seconds, then ErrUnknown; the same call can then be made again. Reads follow the
// client's own settings. An evicted key is forgotten as if its TTL had passed.
//
// # Cost per call
//
//	call                     round trips            script
//	Sent, Read               1                      O(1)
//	Publish, Seen            1                      O(1)
//	Posted                   1                      O(1)
//	Visit                    1, 1 per 500 authors   O(authors)
//	Mark                     1                      O(messages)
//	Add                      1                      O(visitors)
//	Counts, Lit, Count, Has  1                      none
package unread

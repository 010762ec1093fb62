// Package sale is the flash sale of a live room: products and their stock, the shelf,
// carts, orders, payments.
//
// The stock of an open room is a stock.Activity in Redis, named room-<id>. An order
// holds its units until it is paid for or Options.Hold is over; then they come back by
// themselves. What happened is in the activity's journal, which every server brings to
// SQL: into the ledger of stocksql, and from there into the table orders.
//
// Money moves in SQL, stock in Redis, and no transaction spans both. The order of
// events is therefore: a row in payments says what is about to happen; the wallet is
// charged; the order is confirmed. Whatever is killed in between, the row is found
// later, and is brought to one of two ends: the ledger has the confirm, or the money
// went back. An order is never given away unpaid, and never paid for twice.
//
// A coupon lessens the charge in its own transaction, and comes back with the refund.
//
// The stock of a star's room is in buckets where Redis is a Cluster of several masters,
// with a journal each: bucket.go tells what follows from it.
//
// A room's sale is open, then closing until its last order has met its end and SQL has
// everything, then ended: its figures are final, what was not sold is the host's again,
// and an hour later it is dropped from Redis. One that is open for a minute while its room,
// in the table of package room, is not, is closed.
//
// Who was told "paid" in the last moment before Redis lost everything, when SQL did not
// have the order yet, gets the money back; nothing is sold twice.
//
// What is checked before anything costly: whether the room is open, whether the user
// may buy, whether each product is on sale now, the largest quantity; all from memory.
// The limits per user are stock's, in the same step as the stock.
//
// Redis keys, beside those of stock, cache, delayqueue and lock:
//
//	liveshop:order:{<id>}          string  a token: whose it is; TTL 30 min, and once it is used 30 min behind the hold
//	liveshop:order:{<id>}:<uid>    string  what that user ordered with it; TTL the same
//	liveshop:cart:<room>:<uid>     hash  SKU → quantity; TTL 7 days
//	liveshop:warehouse:looks       zset  rooms with products that are sold elsewhere, by the last look
//	liveshop:warehouse:{<room>}:…  hash, string  what was seen there, and when; TTL 1 h
package sale

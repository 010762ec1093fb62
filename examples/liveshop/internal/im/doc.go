// Package im carries the messages of live rooms over WebSockets, through any number of
// server processes.
//
// # How a frame travels
//
// [Hub.Publish] runs one script on the room's keys: it numbers the frame, stores it and
// publishes it, in one step, to the channel of each server that has members of the
// room, and to no other. Frames that are published while a call is on its way go
// together in the next one: one message a server for all of them. A server's single
// receiving goroutine hands each frame to the queues of the room's sockets and never
// waits for one.
//
// # What is promised
//
// Reliable frames (gifts, PK, stock, rain) form a chain: each names the one before
// it. A server that sees a gap, because pub/sub lost something, reads the log in Redis
// before it goes on. A socket's queue never drops them; a socket that cannot keep up
// is closed instead, and its client resumes: it names the last number it saw and gets
// what it missed, and hello says whether that is all of it ("recovered").
// Each is acknowledged by the client, and sent once more if that takes over 2 s.
// A frame may therefore come twice: clients go by its id.
//
// What changes with every order, how much is left of something, nobody publishes: each
// server asks for it once a second and room, and hands it to its own sockets when it
// changed ([Hub.Show]).
//
// Barrage and figures are [Sampled]: dropped for all but their sender when there are
// too many, and first when a queue is filling up. Every one is counted: handed out =
// delivered + sampled out + left behind in sockets that closed (see [Check]).
//
// # Frames
//
// A client asks GET /rooms/{id}/im for an address and a token, and connects to
// <ws>?token=<token>, or to resume to <ws>?token=<token>&seq=<highest seen>&epoch=<of the
// last hello>. Frames are JSON, {"t","id","seq","prev","room","ts","d"}:
//
//	t         d                                          seq  may be dropped
//	hello     recovered, seq, tail, epoch, server_time, online
//	barrage   uid, name, text                            yes  under load, but not one's own
//	gift      from, name, to, gift, title, count, fen    yes
//	pk        round, a, a_name, b, b_name, left, right, state, winner, ends, version  yes
//	rain      id, room, starts, ends, total, count       yes
//	stock     sku, left, version                         yes
//	room      state                                      yes
//	left      items: sku, left, version, total, edited        under load
//	packet    uid, name, fen                                  under load
//	like      count                                           under load
//	online    count                                           under load
//	order     order_id, state; to one user
//	balance   fen; to one user
//	sampled   n: so many frames were dropped for this socket
//	system    text
//	pong
//	bye       reason: the server stops; resume at once, at another
//
// The first frame is hello. If it says recovered, what was missed follows, in order and
// before anything else. If it does not, and when a hello without it comes later, the page
// loads GET /rooms/{id} again. Frames with prev, and those without a room, are
// acknowledged, {"t":"ack","id"}, which covers the earlier ones too. A client may also send
// {"t":"barrage","d":{"text"}}, {"t":"read","seq"} and {"t":"ping"}: twenty a second.
//
// # Redis keys
//
//	liveshop:im:{room-<id>}:numbers  hash    seq, tail (the last reliable one), epoch; TTL 7 days
//	liveshop:im:{room-<id>}:log      zset    the last 4,096 reliable frames by seq; TTL 1 day
//	liveshop:im:{room-<id>}:last     list    the last 50 barrages, newest first; TTL 1 day
//	liveshop:im:{room-<id>}:servers  zset    servers with members, by when they last said so; TTL 1 min
//	liveshop:im:{room-<id>}:online   hash    how many sockets each of them has; TTL 1 min
//	liveshop:im:{room-<id>}:members  hash    a number per member, for receipts; TTL 90 days
//	liveshop:im:user:<uid>           set     servers that may have sockets of a user; TTL 150 s
//	liveshop:im:token:<sha256>       string  a one-time token; TTL 30 s
//	liveshop:im:counts               hash    what became of frames, by server
//	liveshop:im:to:<server>          channel
//
// and those of counter/unread. The epoch is when the numbers began: if Redis forgot
// them, a client's seq means nothing any more, and the epoch tells.
package im

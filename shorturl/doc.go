// Package shorturl makes short links and follows them.
//
// A [Service] is three things: methods that make and change links, Handler, which
// redirects /<code>, and API, the first as JSON over HTTP. What it needs it takes as
// small interfaces: IDs (idgen.Segment is one), a Store (SQLStore, MemoryStore), and if
// wanted a shared Cache, a Guard, and a receiver of Clicks.
//
// # What it promises
//
// No two links have one code. Sequential codes do not collide by construction: an id,
// shuffled over all codes of Options.Length characters, so that neighbours are
// unrelated and the number of links does not show. Digest and random codes that
// are taken are tried again, up to 16 times. Aliases never look like generated codes.
//
// With Request.OneToOne an owner has one link for a URL, also if many ask at once: a
// unique key in the Store decides, and the losers get the winner's link.
//
// A link leads to an http or https URL on a public host, or it is not made. Control
// characters, user names, other scripts in host names (they are to be written as
// xn--), addresses in any notation that browsers take, this service's own domains and
// local names are refused: what is kept reads the same to every program.
//
// A link with MaxClicks is followed so many times, counted in the Store before each
// redirect. A change is seen at once in this process and after Options.LocalTTL in
// others; a look that began before it does not bring the old link back, and answers
// nobody who comes after it.
//
// Callers who want the same code at the same time share one look into the Store, and
// each obeys its own ctx. Unknown codes are remembered for Options.NotFoundTTL.
//
// A redirect never waits for Clicks.
//
// # What it does not
//
// It does not resolve host names: a public name may point to a private address, now
// or later. Nor does it know what is behind a URL: Options.Ban asks whoever does.
//
// Codes are no secret. Of 10^8 links with 7 characters a random guess hits one with
// probability 3 in 100,000, and the shuffle deters but is no cryptography. Random
// codes of 10 characters are 59 bits. What must not be found wants its own lock.
//
// Clicks are lost when they come faster than Clicks takes them, and with a process
// that is killed; Stats counts the former. Bots that do not say so are counted.
//
// Options.Key and Options.Length are part of the codes. Another key or length may make
// a code that exists: it is then tried again.
//
// # Redis keys it writes
//
// None. SQLStore writes the table spillway_links: a row per link, ~150 bytes and the
// URL, its keys being code, digest, and (owner, code).
//
// # When Redis is slow, down or fails over
//
// Nothing changes, unless Cache or Guard live there: a Cache that is down should return
// false, a Guard true. When the Store is down, links at hand are followed until
// Options.LocalTTL; others, and links with MaxClicks, are answered 503. A look that
// hangs ends after 5 s, and so does counting a click.
//
// # Cost per call
//
//	call                      looks into the Store      allocations
//	Resolve, at hand          0                         0
//	redirect, at hand         0                         1 at most
//	Resolve, not at hand      1, shared
//	Resolve, with MaxClicks   1 (SQL: 2 statements)
//	Shorten                   1
//	Shorten, OneToOne, new    2, 1 if the Guard says no
//	Shorten, OneToOne, there  1
//	Update, Disable           2
//	Delete, List              1
//
// A redirect from memory takes about 0.3 µs beside net/http.
package shorturl

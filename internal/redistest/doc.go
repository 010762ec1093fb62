// Package redistest gives tests a Redis. No package of the library imports it.
//
// Which function to take:
//
//   - Each runs one test on miniredis, on a real server and on a real cluster of
//     one node. The usual choice: whatever talks to Redis is tested this way.
//   - Bubble runs a test on miniredis in virtual time. For timeouts, renewals,
//     delays, and everything else that would have to wait.
//   - Mini gives a miniredis to poke at: its clock, its errors, its keys.
//   - Shared gives the real server that Each uses. For what needs no other
//     servers but more than a client.
//   - Server gives a real server of the test's own. For restarts, pauses, memory
//     limits, persistence, other configuration, and counting executions.
//   - Cluster gives a real cluster. For failover, and for slots that move.
//   - Sentinel gives a master, a replica and sentinels. For failover again.
//   - Limited gives a server and a client that may do what doc.go says is enough.
//   - Start is Server for programs that are no tests.
//
// Costs reads the table of costs in doc.go; HoldTrips and HoldAllocations measure what
// is in it.
//
// Tests that share a server keep apart by key names, see Prefix, and leave its
// configuration alone. What mostly waits calls t.Parallel, unless it counts what the
// shared server executes, empties it, or replaces a variable of its package.
//
// Only Each, Mini and Bubble do something without a redis-server on PATH: everything
// else, and two thirds of Each, skips the test, or fails it if REDIS_REQUIRED=1.
//
// # What is different on miniredis
//
// It never raises CROSSSLOT, runs a script ten times slower than a server, lacks
// some commands (CONFIG, OBJECT, ROLE, BITFIELD, most of INFO), and does not
// overflow, format numbers or encode JSON as Redis does. A test that passes there
// has proved little until it has passed on a server.
//
// # Clients
//
// Clients have go-redis's default settings, since users have them too: in
// particular they retry, so that a script which was sent without protection
// runs twice when its reply is lost. There are two exceptions. A refused
// connection is not dialled again (DialerRetries: 1), which would take 0.4 s and
// a few log lines each time. And cluster clients reload the topology every
// second, as every user should make them do. A test about a single attempt sets
// MaxRetries: -1. The harness closes its clients.
//
// # Servers
//
// A server listens on 127.0.0.1, on a free port that no other harness takes
// until the server is closed, keeps nothing on disk by default, and ends with
// its test. On Linux the kernel also kills it when the test binary ends in any
// way, be it a panic or a SIGKILL; after such an end a small directory may be
// left in the system's temporary one. Elsewhere servers end by clean-up alone,
// and "shared" ones are the test's own.
//
// Starting takes 20 ms for a server, as much for a cluster of one, 0.2 s for a
// cluster of six, 0.1 s for a set with sentinels. A failover takes three seconds.
//
// A goroutine that holds one thread starts all servers and stays, idle, until the
// binary ends. It is the only thing that does. Servers cannot be started inside
// a bubble: that goroutine would belong to it.
package redistest

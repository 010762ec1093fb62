package redistest

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Fault is one way in which a command or a dial fails.
type Fault int

const (
	// CutBefore ends the connection before the command reaches the server.
	// Commands before it on the connection are answered first; what follows
	// it does not reach the server either.
	CutBefore Fault = iota + 1
	// CutAfter ends the connection instead of delivering the reply: the
	// server has executed the command. Commands behind it in the same write
	// have reached the server, and may have been executed.
	CutAfter
	// LoseReply throws the reply away: the server has executed the command.
	// The connection stays open and delivers nothing any more, so that the
	// client waits until it times out.
	LoseReply
	// DelayReply delivers the reply, and all that follow it on the
	// connection, by Rule.Delay later.
	DelayReply
	// RefuseDial refuses a connection. Behind a Proxy the client sees a
	// connection that is closed at once.
	RefuseDial
)

// A Rule says what fails.
type Rule struct {
	Do Fault
	// Match is a substring of the command as sent, its words joined by a
	// space ("evalsha", "incr my-key"), or of a dial's address. Empty matches
	// everything, including what go-redis sends to set up a connection.
	Match string
	Skip  int           // how many matches go well first
	Times int           // how many fail: 0 means one, -1 all
	P     float64       // a chance, drawn for each match after Skip; 0 means always
	Delay time.Duration // of DelayReply
}

// Faults is a plan of faults that all connections of a client or proxy share.
// The zero value fails nothing. It may be used and changed while connections
// are open; it works in a Bubble.
type Faults struct {
	// Seed decides the draws of Rule.P. What a seed repeats depends on the
	// order of the commands.
	Seed uint64

	mu    sync.Mutex
	rng   *rand.Rand
	rules []*Rule
	fired map[Fault]int
}

// Add adds a rule. Of several that match, the first added applies.
func (f *Faults) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Times == 0 {
		r.Times = 1
	}
	f.rules = append(f.rules, &r)
}

// Clear removes all rules; the counts of Fired stay. Connections that a
// LoseReply silenced stay silent.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Fired returns how often the fault has really happened: for CutAfter,
// LoseReply and DelayReply, how many replies of the server were hit. A test of a
// fault demands that it is not 0.
func (f *Faults) Fired(do Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired[do]
}

// Options makes a client of o suffer the faults; it is a modify of the
// harness's Client functions. It keeps o's Dialer below the faults.
func (f *Faults) Options(o *redis.Options) { o.Dialer = f.Dialer(o.Dialer) }

// ClusterOptions is Options for a cluster.
func (f *Faults) ClusterOptions(o *redis.ClusterOptions) { o.Dialer = f.Dialer(o.Dialer) }

// A Dialer is what go-redis's options call one.
type Dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// Dialer returns base with the faults; a nil base dials the network.
func (f *Faults) Dialer(base Dialer) Dialer {
	if base == nil {
		base = (&net.Dialer{}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if f.dial(addr) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		c, err := base(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newFaultConn(c, f), nil
	}
}

// dial reports whether to refuse a dial.
func (f *Faults) dial(addr string) bool {
	r := f.pick(addr, func(do Fault) bool { return do == RefuseDial })
	if r.Do == RefuseDial {
		f.fire(RefuseDial)
		return true
	}
	return false
}

// command returns the rule that applies to a command, or a Rule that does nothing.
func (f *Faults) command(text string) Rule {
	return f.pick(text, func(do Fault) bool { return do != RefuseDial })
}

func (f *Faults) pick(text string, of func(Fault) bool) Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		if r.Times == 0 || !of(r.Do) || !strings.Contains(text, r.Match) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.P > 0 {
			if f.rng == nil {
				f.rng = rand.New(rand.NewPCG(f.Seed, 0))
			}
			if f.rng.Float64() >= r.P {
				continue
			}
		}
		if r.Times > 0 {
			r.Times--
		}
		return *r
	}
	return Rule{}
}

func (f *Faults) fire(do Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fired == nil {
		f.fired = map[Fault]int{}
	}
	f.fired[do]++
}

package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/bus"
)

const (
	// heartbeat is how often a process says how many deletes it has published.
	heartbeat = time.Second
	// patience is how long a process may hear neither its own heartbeat nor one of
	// somebody it has heard before.
	patience = 3 * heartbeat
	// cutTTL is how long a value is kept locally while nobody could say that it was
	// deleted.
	cutTTL = time.Second
	// maxExcluded is how many failed messages a heartbeat names one by one.
	maxExcluded = 64
)

// invalidations tells the other processes what was deleted or written, and
// hears it from them.
//
// Redis's pub/sub may lose messages: all while a connection is down, and in a
// Cluster those that a broken link between two nodes should have carried. So
// messages are numbered, and each process says once a second up to which number
// it has published, and which it has not for sure. Who then lacks one, or hears
// somebody no more, or was reconnected, counts everything it has as old. Who
// does not even hear itself in time is cut off, and keeps nothing for longer than a
// second until it does again.
//
// Messages, words separated by spaces: "D" id number name; "H" id sent from to, and
// numbers in [from, to) not to be counted on, or "*" if they are too many. sent is
// when, by the sender's own clock and for itself alone: what it hears may be late.
type invalidations struct {
	rdb     redis.UniversalClient
	channel string
	id      string
	heard   func(name string)
	gap     func()

	isCut atomic.Bool
	begun time.Time

	mu       sync.Mutex
	next     uint64              // number of the next message
	open     map[uint64]struct{} // on their way
	failed   []uint64            // not known to be published; a few more than maxExcluded
	vague    uint64              // below it there are failed ones that were not noted
	from     uint64              // what heartbeats have told is below it
	to       uint64              // what the next one tells is below it
	peers    map[string]*peer
	watchdog *time.Timer
	stopped  bool
	ended    chan struct{} // closed by stop
}

// A peer is another process that was heard.
type peer struct {
	last time.Time
	next uint64 // its messages below were accounted for
	got  map[uint64]struct{}
}

func newInvalidations(rdb redis.UniversalClient, channel string, heard func(string), gap func()) *invalidations {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	v := &invalidations{
		rdb: rdb, channel: channel, id: hex.EncodeToString(b), heard: heard, gap: gap,
		begun: time.Now(), open: map[uint64]struct{}{}, peers: map[string]*peer{}, ended: make(chan struct{}),
	}
	v.isCut.Store(true) // until it hears itself
	return v
}

// cut reports whether this process may be missing deletes.
func (v *invalidations) cut() bool { return v != nil && v.isCut.Load() }

// compose returns the message that name was deleted or written, and its number,
// which must be settled.
func (v *invalidations) compose(name string) (uint64, string) {
	v.mu.Lock()
	n := v.next
	v.next++
	v.open[n] = struct{}{}
	v.mu.Unlock()
	return n, "D " + v.id + " " + strconv.FormatUint(n, 10) + " " + name
}

func (v *invalidations) settle(n uint64, published bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.open, n)
	switch {
	case published:
	case len(v.failed) <= maxExcluded:
		v.failed = append(v.failed, n)
	default: // an outage must not grow the list
		v.vague = max(v.vague, n+1)
	}
}

// run listens and sends heartbeats until stop is called.
func (v *invalidations) run(ctx context.Context) {
	v.mu.Lock()
	if v.stopped {
		v.mu.Unlock()
		return
	}
	v.watchdog = time.AfterFunc(patience, v.lose)
	v.mu.Unlock()
	b := bus.New(v.rdb)
	defer b.Close()
	sub := b.Subscribe(v.channel, v.deliver)
	defer sub.Close()
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	select { // who is not heard yet need not speak
	case <-sub.Ready():
	case <-tick.C:
	case <-v.ended:
		return
	}
	for {
		v.beat(ctx)
		v.miss()
		select {
		case <-tick.C:
		case <-v.ended:
			return
		}
	}
}

// beat publishes a heartbeat. If that fails, the next one tells all the more. It
// tells of messages that were settled a heartbeat ago: in a Cluster it takes
// another way than they do, and may be faster.
func (v *invalidations) beat(ctx context.Context) {
	v.mu.Lock()
	settled := v.next
	for n := range v.open {
		settled = min(settled, n)
	}
	from, to := v.from, v.to
	vague := v.vague > from
	var excluded []uint64
	for _, n := range v.failed {
		if n < to {
			excluded = append(excluded, n)
		}
	}
	v.mu.Unlock()

	var text strings.Builder
	fmt.Fprintf(&text, "H %s %d %d %d", v.id, time.Since(v.begun), from, to)
	if vague || len(excluded) > maxExcluded {
		text.WriteString(" *")
	} else {
		for _, n := range excluded {
			text.WriteByte(' ')
			text.WriteString(strconv.FormatUint(n, 10))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	err := v.rdb.Publish(ctx, v.channel, text.String()).Err()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.to = settled
	if err != nil {
		return
	}
	v.from = to
	v.failed = slices.DeleteFunc(v.failed, func(n uint64) bool { return n < to })
}

// deliver takes what the bus hears.
func (v *invalidations) deliver(e bus.Event) {
	if e.Gap {
		v.gap()
		return
	}
	kind, rest, _ := strings.Cut(e.Payload, " ")
	id, rest, _ := strings.Cut(rest, " ")
	own := id == v.id
	switch {
	case kind == "H":
		sent, rest, _ := strings.Cut(rest, " ")
		if own {
			ns, err := strconv.ParseInt(sent, 10, 64)
			if err == nil {
				v.hearItself(time.Since(v.begun) - time.Duration(ns))
			}
		} else if !v.account(id, strings.Fields(rest)) {
			v.gap()
		}
	case kind == "D" && !own: // this process knows what it does itself
		number, name, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return
		}
		v.heard(name)
		v.mu.Lock()
		p := v.peer(id)
		p.got[n] = struct{}{}
		v.mu.Unlock()
	}
}

// peer returns what is known of another process, which was heard just now.
func (v *invalidations) peer(id string) *peer {
	p := v.peers[id]
	if p == nil {
		p = &peer{got: map[uint64]struct{}{}}
		v.peers[id] = p
	}
	p.last = time.Now()
	return p
}

// account compares a heartbeat with the messages that came, and reports whether
// all have come.
func (v *invalidations) account(id string, words []string) bool {
	if len(words) < 2 {
		return false
	}
	from, err := strconv.ParseUint(words[0], 10, 64)
	to, err2 := strconv.ParseUint(words[1], 10, 64)
	if err != nil || err2 != nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.peer(id)
	whole := from <= p.next // else a heartbeat was lost, and maybe more
	for _, w := range words[2:] {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			whole = false // "*"
			break
		}
		p.got[n] = struct{}{}
	}
	// to is at most as far as its messages: a number that nobody sent ends the loop.
	for n := max(from, p.next); n < to && whole; n++ {
		_, whole = p.got[n]
	}
	for n := range p.got {
		if n < to {
			delete(p.got, n)
		}
	}
	p.next = max(p.next, to)
	return whole
}

// miss notices who is heard no more.
func (v *invalidations) miss() {
	v.mu.Lock()
	lost := false
	for id, p := range v.peers {
		if time.Since(p.last) > patience {
			delete(v.peers, id)
			lost = true
		}
	}
	v.mu.Unlock()
	if lost {
		v.gap()
	}
}

// hearItself ends a cut, unless what is heard was sent too long ago: all that was
// published before that has been heard, and nothing else.
func (v *invalidations) hearItself(late time.Duration) {
	if late >= patience {
		return
	}
	v.mu.Lock()
	if !v.stopped {
		v.watchdog.Reset(patience - late)
	}
	v.mu.Unlock()
	if v.isCut.Load() {
		v.gap() // before it is trusted again
		v.isCut.Store(false)
	}
}

// lose begins a cut: nothing was heard for too long.
func (v *invalidations) lose() {
	if !v.isCut.Swap(true) {
		v.gap()
	}
}

// stop makes run return.
func (v *invalidations) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	close(v.ended)
	if v.watchdog != nil {
		v.watchdog.Stop()
	}
}

// heard takes the news that another process has deleted or written a name.
func (c *Cache[K, V]) heard(name string) {
	c.stats.heard.Add(1)
	c.guard.add(name)
	c.forget(name, c.local.hash(name))
}

// gap takes the news that some may not have been heard.
func (c *Cache[K, V]) gap() {
	c.stats.gaps.Add(1)
	c.guard.distrust()
	c.local.flush()
}

package cache

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A node is one process in a history: this package's cache, or a naive one.
type node interface {
	Get(ctx context.Context, key string) (int, error)
	Set(ctx context.Context, key string, value int) error
	Delete(ctx context.Context, keys ...string) error
	// inRedis returns what Redis has, past all local levels.
	inRedis(ctx context.Context, key string) (value int, ok bool)
}

type cacheNode struct{ *Cache[string, int] }

func (n cacheNode) inRedis(ctx context.Context, key string) (int, bool) {
	e, err := n.remote.read(ctx, key)
	if err != nil {
		return 0, false
	}
	it := n.unpack(key, e, n.local.now())
	return func() int {
		if it == nil {
			return 0
		}
		return it.value
	}(), it != nil
}

// A history is a source whose rows only grow, with the oracle of what a read must
// not be older than.
type history struct {
	mu      sync.Mutex
	rows    map[string]int
	writing map[string]chan struct{} // writers of one row follow each other; no mutex, which stops a bubble's time
	own     map[node]map[string]int  // by node: what its deletes and writes have confirmed
	all     map[string]int           // what any node's have
	heard   map[string]int           // what any node's have, so long ago that all have heard it
	told    map[string][]confirmed   // what came after that, in order
	wrong   []string
	done    int
}

type confirmed struct {
	at    time.Time
	value int
}

// heardWithin is what Delete's comment says of other processes: the patience, the
// second for which a value may be kept then, and what a read may take that began
// before (a load, a lost reply).
const heardWithin = patience + cutTTL + time.Second

func newHistory() *history {
	h := &history{rows: map[string]int{}, writing: map[string]chan struct{}{}, own: map[node]map[string]int{}, all: map[string]int{}, heard: map[string]int{}, told: map[string][]confirmed{}}
	for _, key := range slices.Concat(busyKeys, calmKeys) {
		h.rows[key] = 1
		h.writing[key] = make(chan struct{}, 1)
	}
	return h
}

// Busy keys change all the time, for whatever happens at once. Calm ones change
// every few seconds: what a process missed of them no later change makes up for.
var busyKeys, calmKeys = keyNames("busy", 6), keyNames("calm", 40)

func keyNames(kind string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = kind + strconv.Itoa(i)
	}
	return names
}

// load reads a row, and takes its time to bring it.
func (h *history) load(ctx context.Context, key string) (int, error) {
	h.mu.Lock()
	v := h.rows[key]
	h.mu.Unlock()
	if !sleep(ctx, rand.N(30*time.Millisecond)) {
		return 0, ctx.Err()
	}
	return v, nil
}

func (h *history) update(ctx context.Context, n node, key string, set bool) {
	h.writing[key] <- struct{}{}
	defer func() { <-h.writing[key] }()
	h.mu.Lock()
	h.rows[key]++
	v := h.rows[key]
	h.mu.Unlock()
	var err error
	if set {
		err = n.Set(ctx, key, v)
	} else {
		err = n.Delete(ctx, key)
	}
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own[n] == nil {
		h.own[n] = map[string]int{}
	}
	h.own[n][key], h.all[key] = v, v
	h.told[key] = append(h.told[key], confirmed{time.Now(), v})
}

// read checks one read against what was confirmed before it began.
func (h *history) read(ctx context.Context, n node, key string, raw bool) {
	h.mu.Lock()
	floor := h.own[n][key]
	if raw {
		floor = h.all[key]
	}
	for len(h.told[key]) > 0 && time.Since(h.told[key][0].at) > heardWithin {
		h.heard[key] = h.told[key][0].value // writers of a row follow each other: it grows
		h.told[key] = h.told[key][1:]
	}
	floor = max(floor, h.heard[key])
	h.mu.Unlock()
	var v int
	var err error
	ok := true
	if raw {
		v, ok = n.inRedis(ctx, key)
	} else {
		v, err = n.Get(ctx, key)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done++
	if err != nil || !ok {
		return
	}
	if v < floor || v > h.rows[key] {
		h.wrong = append(h.wrong, fmt.Sprintf("%s: read %d (raw %v), but %d was confirmed before, and %d is the newest", key, v, raw, floor, h.rows[key]))
	}
}

// A wire knows the connections of a client, to cut them also when nothing is
// sent. What the one that listens hears it can delay or swallow.
type wire struct {
	mu     sync.Mutex
	open   []net.Conn
	cuts   int
	lag    time.Duration
	silent bool
}

func (w *wire) Options(o *redis.Options) {
	dial := o.Dialer
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err == nil {
			conn = &wiredConn{Conn: conn, wire: w}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.open = append(w.open, conn)
		}
		return conn, err
	}
}

// bus delays what is heard by at least lag, or swallows it.
func (w *wire) bus(lag time.Duration, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag, w.silent = lag, silent
}

type wiredConn struct {
	net.Conn
	wire    *wire
	listens atomic.Bool
}

func (c *wiredConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("subscribe")) {
		c.listens.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *wiredConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n == 0 || !c.listens.Load() {
			return n, err
		}
		c.wire.mu.Lock()
		lag, silent := c.wire.lag, c.wire.silent
		c.wire.mu.Unlock()
		if !silent {
			time.Sleep(lag)
			return n, err
		}
	}
}

func (w *wire) cut() {
	w.mu.Lock()
	open := w.open
	w.open = nil
	w.cuts++
	w.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close()
	}
}

// trouble makes the network of a node bad for a while.
func trouble(ctx context.Context, f *redistest.Faults, w *wire, r *rand.Rand) {
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	for sleep(ctx, upTo(6*time.Second)) {
		switch r.IntN(5) {
		case 0: // cut off
			f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
			f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
			w.cut()
			sleep(ctx, upTo(10*time.Second))
		case 1: // everything is lost that was under way
			w.cut()
		case 2: // the bus falls silent, while its connection lasts
			w.bus(0, true)
			sleep(ctx, upTo(5*time.Second))
		case 3: // the bus is slow, by a little or by more than anybody waits
			w.bus(upTo([]time.Duration{300 * time.Millisecond, 6 * time.Second}[r.IntN(2)]), false)
			sleep(ctx, upTo(20*time.Second))
		case 4: // replies get lost
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.1, Times: -1})
			f.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha", P: 0.01, Times: -1})
			sleep(ctx, upTo(3*time.Second))
		}
		f.Clear()
		w.bus(0, false)
	}
}

// A pace is how a history goes.
type pace struct {
	calm     bool // with long pauses: it takes a minute instead of seconds
	troubled bool // with a bad network
}

// run lets three nodes read and write until so many reads are done, and returns
// what the oracle found.
func run(t *testing.T, seed uint64, reads int, p pace, open func(rdb *redis.Client, h *history) (node, func())) (h *history) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		h = newHistory()
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		for i := range 3 {
			f, w := &redistest.Faults{Seed: seed}, &wire{}
			rdb := env.Client(w.Options, f.Options, func(o *redis.Options) {
				o.ReadTimeout, o.DialTimeout = 100*time.Millisecond, 100*time.Millisecond
			})
			n, done := open(rdb, h)
			defer done()
			defer f.Clear()
			if p.troubled {
				wg.Go(func() {
					trouble(ctx, f, w, rand.New(rand.NewPCG(seed, uint64(i))))
					t.Logf("node %d: %d cuts, %d replies lost, %d and cut, %d dials refused", i, w.cuts,
						f.Fired(redistest.LoseReply), f.Fired(redistest.CutAfter), f.Fired(redistest.RefuseDial))
				})
			}
			for g := range 4 {
				r := rand.New(rand.NewPCG(seed, uint64(10*i+g+100)))
				wg.Go(func() {
					for !h.over(reads) {
						h.step(context.WithoutCancel(ctx), n, r)
						pause := 10 * time.Millisecond
						if p.calm && r.IntN(50) == 0 {
							pause = 5 * time.Second
						}
						sleep(ctx, time.Duration(r.Int64N(int64(pause))))
					}
					cancel()
				})
			}
		}
		wg.Wait()
		t.Logf("%d reads in %v", h.done, time.Since(begun).Round(time.Second))
		time.Sleep(2 * time.Second) // go-redis dials once more after too many failures
	})
	return h
}

func (h *history) over(reads int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done >= reads
}

// step does one thing at random.
func (h *history) step(ctx context.Context, n node, r *rand.Rand) {
	keys, deletes, sets := busyKeys, 8, 11
	if r.IntN(3) == 0 {
		keys, deletes, sets = calmKeys, 1, 1
	}
	key := keys[r.IntN(len(keys))]
	switch p := r.IntN(100); {
	case p < deletes:
		h.update(ctx, n, key, false)
	case p < sets:
		h.update(ctx, n, key, true)
	case p < 25:
		h.read(ctx, n, key, true)
	default:
		h.read(ctx, n, key, false)
	}
}

func soak(small, full int) int {
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		return full
	}
	return small
}

func freshSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return seed
}

// After Delete or Set returns nil, no read from Redis, and none by that process, is
// older; none by another one is, once it must have heard.
func TestHistories(t *testing.T) {
	// Short TTLs for all that happens at their ends; long ones so that nothing but
	// the messages makes a process forget.
	short := Options{TTL: 2 * time.Second, LocalTTL: 500 * time.Millisecond, NotFoundTTL: 300 * time.Millisecond, RefreshAfter: time.Second}
	long := Options{TTL: time.Hour, LocalTTL: time.Hour}
	for _, c := range []struct {
		name string
		opts Options
		pace pace
	}{
		{"quiet", short, pace{}},
		{"troubled", short, pace{calm: true, troubled: true}},
		{"troubled, long TTLs", long, pace{calm: true, troubled: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opts.OutageLoads, c.opts.Timeout = 10_000, 300*time.Millisecond
			var nodes []*Cache[string, int]
			h := run(t, freshSeed(t), soak(10_000, 350_000), c.pace, func(rdb *redis.Client, h *history) (node, func()) {
				c, err := New(rdb, "rows", Source[string, int]{Load: h.load}, c.opts)
				require.NoError(t, err)
				nodes = append(nodes, c)
				return cacheNode{c}, func() { require.NoError(t, c.Close(context.Background())) }
			})
			for _, w := range h.wrong {
				t.Error(w)
			}
			var gaps uint64
			for _, n := range nodes {
				s := n.Stats()
				t.Logf("%+v", s)
				require.Positive(t, s.LocalHits)
				require.Positive(t, s.Heard)
				gaps += s.Gaps
			}
			if c.pace.troubled {
				require.Greater(t, gaps, uint64(3), "the first of each is that it has heard itself begin")
			}
		})
	}
}

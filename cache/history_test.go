package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
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
	told    map[string][]confirmed   // in order
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

func newHistory(keys int) *history {
	h := &history{rows: map[string]int{}, writing: map[string]chan struct{}{}, own: map[node]map[string]int{}, all: map[string]int{}, told: map[string][]confirmed{}}
	for i := range keys {
		h.rows["k"+strconv.Itoa(i)] = 1
		h.writing["k"+strconv.Itoa(i)] = make(chan struct{}, 1)
	}
	return h
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
	for _, c := range h.told[key] {
		if time.Since(c.at) > heardWithin {
			floor = max(floor, c.value)
		}
	}
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

// trouble makes the network of a node bad for a while.
func trouble(ctx context.Context, f *redistest.Faults, r *rand.Rand) {
	for {
		if !sleep(ctx, time.Duration(r.Int64N(int64(4*time.Second)))) {
			return
		}
		switch r.IntN(4) {
		case 0: // cut off
			f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
			f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
			sleep(ctx, time.Duration(r.Int64N(int64(6*time.Second))))
			f.Clear()
		case 1: // the bus falls silent
			f.Add(redistest.Rule{Do: redistest.LoseReply, Match: "ping", Times: 1})
		case 2: // the bus is slow
			f.Add(redistest.Rule{Do: redistest.DelayReply, Match: "subscribe", Delay: time.Duration(r.Int64N(int64(300 * time.Millisecond)))})
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "ping"})
		case 3: // replies get lost
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", P: 0.1, Times: -1})
			f.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha", P: 0.01, Times: -1})
			sleep(ctx, time.Duration(r.Int64N(int64(3*time.Second))))
			f.Clear()
		}
	}
}

// run lets three nodes read and write until so many reads are done, and returns
// what the oracle found.
func run(t *testing.T, seed uint64, reads int, troubled bool, open func(rdb *redis.Client, h *history) (node, func())) (h *history) {
	redistest.Bubble(t, func(t *testing.T, env *redistest.Env) {
		env.Mini.SetTime(time.Now())
		h = newHistory(6)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		for i := range 3 {
			f := &redistest.Faults{Seed: seed}
			rdb := env.Client(f.Options, func(o *redis.Options) {
				o.ReadTimeout, o.DialTimeout = 100*time.Millisecond, 100*time.Millisecond
			})
			n, done := open(rdb, h)
			defer done()
			defer f.Clear()
			if troubled {
				wg.Go(func() { trouble(ctx, f, rand.New(rand.NewPCG(seed, uint64(i)))) })
			}
			for w := range 4 {
				r := rand.New(rand.NewPCG(seed, uint64(10*i+w+100)))
				wg.Go(func() {
					for {
						h.mu.Lock()
						over := h.done >= reads
						h.mu.Unlock()
						if over {
							cancel()
							return
						}
						key := "k" + strconv.Itoa(r.IntN(6))
						switch p := r.IntN(100); {
						case p < 8:
							h.update(context.WithoutCancel(ctx), n, key, false)
						case p < 11:
							h.update(context.WithoutCancel(ctx), n, key, true)
						case p < 25:
							h.read(context.WithoutCancel(ctx), n, key, true)
						default:
							h.read(context.WithoutCancel(ctx), n, key, false)
						}
						sleep(ctx, time.Duration(r.Int64N(int64(10*time.Millisecond))))
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(2 * time.Second) // go-redis dials once more after too many failures
	})
	return h
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
	for _, troubled := range []bool{false, true} {
		t.Run(fmt.Sprintf("troubled=%v", troubled), func(t *testing.T) {
			var nodes []*Cache[string, int]
			h := run(t, freshSeed(t), soak(10_000, 500_000), troubled, func(rdb *redis.Client, h *history) (node, func()) {
				c, err := New(rdb, "rows", Source[string, int]{Load: h.load}, Options{
					TTL: 2 * time.Second, LocalTTL: 500 * time.Millisecond, NullTTL: 300 * time.Millisecond, RefreshAfter: time.Second,
					OutageLoads: 10_000, Timeout: 300 * time.Millisecond,
				})
				require.NoError(t, err)
				nodes = append(nodes, c)
				return cacheNode{c}, func() { require.NoError(t, c.Close(context.Background())) }
			})
			for _, w := range h.wrong {
				t.Error(w)
			}
			for _, c := range nodes {
				t.Logf("%+v", c.Stats())
			}
		})
	}
}

// The oracle finds what is wrong with the usual ways.
func TestHistoriesCatchNaiveCaches(t *testing.T) {
	for kind, open := range map[string]func(rdb *redis.Client, h *history) (node, func()){
		"cache-aside": func(rdb *redis.Client, h *history) (node, func()) {
			return &naive{rdb: rdb, load: h.load}, func() {}
		},
		"SETNX after DEL": func(rdb *redis.Client, h *history) (node, func()) {
			return &naive{rdb: rdb, load: h.load, setnx: true}, func() {}
		},
		"local cleared before Redis": func(rdb *redis.Client, h *history) (node, func()) {
			c, err := New(rdb, "rows", Source[string, int]{Load: h.load}, Options{TTL: 2 * time.Second})
			require.NoError(t, err)
			return clearsFirst{cacheNode{c}}, func() { require.NoError(t, c.Close(context.Background())) }
		},
	} {
		t.Run(kind, func(t *testing.T) {
			h := run(t, freshSeed(t), 5000, false, open)
			require.NotEmpty(t, h.wrong)
			t.Logf("%d of %d reads, such as %s", len(h.wrong), h.done, h.wrong[0])
		})
	}
}

// clearsFirst is this cache with the steps of Delete in the order that comes to
// mind first.
type clearsFirst struct{ cacheNode }

func (n clearsFirst) Delete(ctx context.Context, keys ...string) error {
	n.forget(keys[0], n.local.hash(keys[0]))
	sleep(ctx, time.Millisecond) // the way to Redis, which takes no time in a bubble
	return n.remote.drop(ctx, keys)[0]
}

// naive is a cache as one writes it in an afternoon.
type naive struct {
	rdb   *redis.Client
	load  func(context.Context, string) (int, error)
	setnx bool
}

func (n *naive) Get(ctx context.Context, key string) (int, error) {
	v, err := n.rdb.Get(ctx, key).Int()
	if !errors.Is(err, redis.Nil) {
		return v, err
	}
	if v, err = n.load(ctx, key); err != nil {
		return 0, err
	}
	if n.setnx {
		return v, n.rdb.SetNX(ctx, key, v, 2*time.Second).Err()
	}
	return v, n.rdb.Set(ctx, key, v, 2*time.Second).Err()
}

func (n *naive) Set(ctx context.Context, key string, v int) error {
	return n.rdb.Set(ctx, key, v, 2*time.Second).Err()
}

func (n *naive) Delete(ctx context.Context, keys ...string) error {
	return n.rdb.Del(ctx, keys...).Err()
}

func (n *naive) inRedis(ctx context.Context, key string) (int, bool) {
	v, err := n.rdb.Get(ctx, key).Int()
	return v, err == nil
}

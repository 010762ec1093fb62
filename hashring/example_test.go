package hashring_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/hashring"
)

// A fleet of caches behind a ring: who has a key, who has its replicas, and what a
// failing cache changes.
func Example() {
	ring, err := hashring.New([]hashring.Node{
		{ID: "cache-a"}, {ID: "cache-b"}, {ID: "cache-c"}, {ID: "cache-big", Weight: 2},
	}, hashring.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	where := func() string {
		var ids []string
		for _, key := range []string{"user:1", "user:2", "user:3", "user:4"} {
			n, _ := ring.Get(key)
			ids = append(ids, n.ID)
		}
		return strings.Join(ids, " ")
	}
	fmt.Println("keys are on:", where())

	var replicas [2]hashring.Node
	for _, n := range ring.GetN("user:1", len(replicas), replicas[:0]) {
		fmt.Println("user:1 replica on", n.ID)
	}

	// Health checks report; a node comes back after Options.Rise good reports.
	if err := ring.SetDown("cache-big", true); err != nil {
		fmt.Println(err)
	}
	fmt.Println("big is down:", where())
	for range 3 {
		if err := ring.SetDown("cache-big", false); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("big is back:", where())

	// One cache replaces another, in one step.
	if err := ring.Update([]hashring.Node{{ID: "cache-d"}}, []string{"cache-a"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println("d for a:    ", where())
	// Output:
	// keys are on: cache-big cache-big cache-c cache-big
	// user:1 replica on cache-big
	// user:1 replica on cache-b
	// big is down: cache-b cache-b cache-c cache-a
	// big is back: cache-big cache-big cache-c cache-big
	// d for a:     cache-d cache-big cache-d cache-big
}

// One key is asked for by everybody: with Acquire its work spreads over the nodes
// that come next, and none gets more than a quarter above the average.
func ExampleRing_Acquire() {
	ring, err := hashring.New([]hashring.Node{{ID: "worker-1"}, {ID: "worker-2"}, {ID: "worker-3"}}, hashring.Options{LoadFactor: 1.25})
	if err != nil {
		fmt.Println(err)
		return
	}
	var dones []func()
	for range 12 {
		_, done, ok := ring.Acquire("the star's room")
		if !ok {
			fmt.Println("no workers")
			return
		}
		dones = append(dones, done)
	}
	s := ring.Stats()
	for _, n := range s.Nodes {
		fmt.Printf("%s has %d, at most 5 of %d\n", n.ID, n.Load, s.UnderWay)
	}
	for _, done := range dones {
		done()
	}
	fmt.Println("then", ring.Stats().UnderWay)
	// Output:
	// worker-1 has 5, at most 5 of 12
	// worker-2 has 2, at most 5 of 12
	// worker-3 has 5, at most 5 of 12
	// then 0
}

// Independent Redis servers: commands are routed by key, with clients that are
// made once.
func ExampleNew_redisServers() {
	ctx := context.Background()
	clients, nodes := map[string]*redis.Client{}, []hashring.Node{}
	for _, id := range []string{"redis-a", "redis-b", "redis-c"} {
		server, err := miniredis.Run()
		if err != nil {
			fmt.Println(err)
			return
		}
		defer server.Close()
		// The id is a name that stays when the server moves to another address.
		clients[id] = redis.NewClient(&redis.Options{Addr: server.Addr()})
		defer clients[id].Close()
		nodes = append(nodes, hashring.Node{ID: id})
	}
	ring, err := hashring.New(nodes, hashring.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	of := func(key string) *redis.Client {
		n, _ := ring.Get(key)
		return clients[n.ID]
	}
	for i := range 300 {
		key := fmt.Sprintf("user:%d", i)
		if err := of(key).Set(ctx, key, i, 0).Err(); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(of("user:42").Get(ctx, "user:42").Val())
	for _, n := range ring.Stats().Nodes {
		fmt.Println(n.ID, "has", clients[n.ID].DBSize(ctx).Val())
	}
	_, err = hashring.New(nodes, hashring.Options{LoadFactor: 0.5})
	fmt.Println(errors.Is(err, hashring.ErrInvalid), err)
	// Output:
	// 42
	// redis-a has 103
	// redis-b has 103
	// redis-c has 94
	// true hashring: invalid argument: Options.LoadFactor 0.5, want 1 to 100
}

// byRing is what go-redis's Ring asks for as its hash: it makes a new one whenever
// a server comes or goes.
type byRing struct{ ring *hashring.Ring }

func (h byRing) Get(key string) string {
	n, _ := h.ring.Get(key)
	return n.ID
}

// go-redis's own Ring does the health checks; the keys go where this ring says.
func ExampleRing_Get_goRedisRing() {
	addrs := map[string]string{}
	for _, name := range []string{"shard-1", "shard-2", "shard-3"} {
		server, err := miniredis.Run()
		if err != nil {
			fmt.Println(err)
			return
		}
		defer server.Close()
		addrs[name] = server.Addr()
	}
	rdb := redis.NewRing(&redis.RingOptions{
		Addrs: addrs,
		NewConsistentHash: func(shards []string) redis.ConsistentHash {
			nodes := make([]hashring.Node, len(shards))
			for i, name := range shards {
				nodes[i].ID = name
			}
			ring, err := hashring.New(nodes, hashring.Options{})
			if err != nil { // no shard names but its own
				panic(err)
			}
			return byRing{ring}
		},
	})
	defer rdb.Close()
	ctx := context.Background()
	for i := range 100 {
		if err := rdb.Set(ctx, fmt.Sprintf("user:%d", i), i, 0).Err(); err != nil {
			fmt.Println(err)
		}
	}
	var total atomic.Int64
	err := rdb.ForEachShard(ctx, func(ctx context.Context, shard *redis.Client) error {
		total.Add(shard.DBSize(ctx).Val())
		return nil
	})
	fmt.Println(rdb.Get(ctx, "user:42").Val(), total.Load(), err)
	// Output:
	// 42 100 <nil>
}

package counter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/counter"
)

// connect stands for the client that a service has.
func connect() (rdb redis.UniversalClient, end func()) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		panic(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	return client, func() { _ = client.Close(); server.Close() }
}

var post = counter.Schema{
	Name: "post",
	Fields: []counter.Field{
		{Name: "likes"},
		{Name: "views", Spread: 4}, // many processes at once: over four slots
		{Name: "karma", Signed: true},
	},
}

// Views are gathered, likes are counted once a member, and what may not be lost is
// stored at once.
func Example() {
	rdb, end := connect()
	defer end()
	c, err := counter.New(rdb, post, counter.Options{Interval: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()

	views := c.Handle(42, "views") // a hot post: no look-up for each view
	for range 1000 {
		if err := views.Add(1); err != nil {
			fmt.Println(err)
		}
	}
	if err := c.Add(42, "karma", -3); err != nil {
		fmt.Println(err)
	}
	for _, member := range []string{"ann", "bob", "ann"} {
		changed, err := c.Toggle(ctx, 42, "likes", member, true)
		fmt.Println(member, "likes it:", changed, err)
	}
	hearts, err := c.IsOn(ctx, "likes", "ann", 41, 42, 43) // of a page, for one reader
	fmt.Println(hearts, err)
	changed, err := c.ToggleAt(ctx, 44, "likes", 17, true) // for members with small numbers
	fmt.Println("member 17 likes 44:", changed, err)
	hearts, err = c.IsOnAt(ctx, "likes", 17, 43, 44)
	fmt.Println(hearts, err)
	values, err := c.Get(ctx, 42) // with what is not stored yet
	fmt.Println(values, err)

	total, err := c.AddSync(ctx, 43, "likes", 2)
	fmt.Println(total, err)
	if err := c.Flush(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("pending:", c.Pending(), "refused:", c.Stats().Refused)
	many, err := c.GetMany(ctx, []int64{42, 43, 44})
	fmt.Println(len(many), many[1]["likes"], many[2]["likes"], err)

	if err := c.Close(ctx); err != nil { // sends what is pending
		fmt.Println(err)
	}
	// Output:
	// ann likes it: true <nil>
	// bob likes it: true <nil>
	// ann likes it: false <nil>
	// [false true false] <nil>
	// member 17 likes 44: true <nil>
	// [false true] <nil>
	// map[karma:-3 likes:2 views:1000] <nil>
	// 2 <nil>
	// pending: 0 refused: 0
	// 3 2 1 <nil>
}

// What a caller tells apart.
func ExampleCounter_AddSync() {
	rdb, end := connect()
	defer end()
	c, err := counter.New(rdb, post, counter.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	_, err = c.AddSync(ctx, 1, "shares", 1)
	switch {
	case errors.Is(err, counter.ErrInvalid):
		fmt.Println("a mistake:", err)
	case errors.Is(err, counter.ErrUnavailable):
		fmt.Println("nothing happened: try again later")
	case errors.Is(err, counter.ErrUnknown):
		fmt.Println("it may have been counted: again might count twice")
	}
	if err := c.Close(ctx); err != nil {
		fmt.Println(err)
	}
	err = c.Add(1, "likes", 1)
	// ErrBacklog: Redis has been down for Options.MaxOutage.
	fmt.Println(errors.Is(err, counter.ErrClosed), errors.Is(err, counter.ErrBacklog))
	// Output:
	// a mistake: counter: invalid argument: schema "post" has no field "shares"
	// true false
}

// A shelf keeps blocks in memory; counter/countersql keeps them in a database.
type shelf struct {
	mu     sync.Mutex
	blocks map[int64]counter.ColdBlock
}

func (s *shelf) Load(_ context.Context, _ string, block int64) (counter.ColdBlock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks[block], nil
}

func (s *shelf) Save(_ context.Context, _ string, block int64, b counter.ColdBlock) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocks[block].Revision != b.Revision-1 {
		return false, nil
	}
	s.blocks[block] = b
	return true, nil
}

// Old posts leave Redis, and come back when somebody reads them.
func ExampleColdStore() {
	rdb, end := connect()
	defer end()
	store := &shelf{blocks: map[int64]counter.ColdBlock{}}
	old := counter.Schema{Name: "post", Packed: true, Fields: []counter.Field{{Name: "likes"}, {Name: "views"}}}
	c, err := counter.New(rdb, old, counter.Options{Cold: store, ColdAfter: 7 * 24 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	total, err := c.AddSync(ctx, 42, "likes", 1)
	fmt.Println(total, err)
	switch b, _ := store.Load(ctx, "spillway:post", 0); b.State {
	case counter.Hot:
		fmt.Println("posts 0 to 255 are in Redis")
	case counter.Leaving:
		fmt.Println("they may still be, or have left at version", b.Version)
	case counter.Cold:
		fmt.Println("they are on the shelf")
	}
	rdb.FlushAll(ctx) // an accident
	_, err = c.Get(ctx, 42)
	fmt.Println(errors.Is(err, counter.ErrLost))
	if err := c.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 <nil>
	// posts 0 to 255 are in Redis
	// true
}

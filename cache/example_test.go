package cache_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/cache"
)

// connect stands for your own client of your own Redis.
func connect() (rdb redis.UniversalClient, done func()) {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: server.Addr()})
	return rdb, func() {
		_ = rdb.Close()
		server.Close()
	}
}

// A User is what the examples keep.
type User struct {
	ID   int64
	Name string
}

// A table stands for your database.
type table struct {
	mu    sync.Mutex
	users map[int64]User
	reads int
}

func newTable(names ...string) *table {
	t := &table{users: map[int64]User{}}
	for i, name := range names {
		t.users[int64(i+1)] = User{int64(i + 1), name}
	}
	return t
}

func (t *table) load(_ context.Context, id int64) (User, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	u, ok := t.users[id]
	if !ok {
		return u, cache.ErrNotFound
	}
	return u, nil
}

func (t *table) loadMany(_ context.Context, ids []int64) (map[int64]User, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads++
	found := map[int64]User{}
	for _, id := range ids {
		if u, ok := t.users[id]; ok {
			found[id] = u
		}
	}
	return found, nil
}

func (t *table) save(u User) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[u.ID] = u
}

// Store makes the table a cache.Sink.
func (t *table) Store(_ context.Context, batch []cache.Write[int64, User]) error {
	for _, w := range batch {
		t.save(w.Value)
	}
	return nil
}

func (t *table) ids() []int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.users))
}

func open(rdb redis.UniversalClient, t *table, opts cache.Options) *cache.Cache[int64, User] {
	c, err := cache.New(rdb, "users", cache.Source[int64, User]{Load: t.load, LoadMany: t.loadMany}, opts)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// User profiles: loaded once, then answered from this process.
func Example() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	users := newTable("ann", "bob")
	c := open(rdb, users, cache.Options{TTL: time.Hour, StaleFor: time.Hour})
	defer c.Close(ctx)

	for range 3 {
		ann, err := c.Get(ctx, 1)
		fmt.Println(ann.Name, err)
	}
	_, err := c.Get(ctx, 99) // nobody, which is remembered as well
	fmt.Println(errors.Is(err, cache.ErrNotFound))

	both, err := c.GetMany(ctx, []int64{1, 2, 99})
	var failed *cache.BatchError[int64]
	if errors.As(err, &failed) {
		fmt.Println("some keys failed:", failed.Errors)
	}
	fmt.Println(len(both), "users,", users.reads, "reads,", c.Stats().Loads, "loads")
	// Output:
	// ann <nil>
	// ann <nil>
	// ann <nil>
	// true
	// 2 users, 3 reads, 3 loads
}

// Update the database, then delete: the next Get of this process sees the change.
func ExampleCache_Delete() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	users := newTable("ann")
	c := open(rdb, users, cache.Options{})
	defer c.Close(ctx)

	before, _ := c.Get(ctx, 1)
	users.save(User{1, "anna"}) // commit first
	if err := c.Delete(ctx, 1); err != nil {
		// Nobody is told a lie by this process, and the delete goes on in the
		// background. What another process has may be old until then.
		log.Print(err)
	}
	after, _ := c.Get(ctx, 1)
	fmt.Println(before.Name, after.Name)

	// If users are read from a replica, a load can still bring the old row back.
	// Delete again when the replica must have caught up.
	lag := 100*time.Millisecond + 3*c.Stats().LoadP99
	fmt.Println(c.DeleteTwice(ctx, lag, 1))
	// Output:
	// ann anna
	// <nil>
}

// A writer who knows the new value says it. Peek looks without loading.
func ExampleCache_Set() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	users := newTable()
	c := open(rdb, users, cache.Options{})
	defer c.Close(ctx)

	users.save(User{1, "ann"})
	fmt.Println(c.Set(ctx, 1, User{1, "ann"}))
	added, err := c.Add(ctx, 1, User{1, "somebody else"}) // not over a writer's value
	fmt.Println(added, err)
	entry, ok, err := c.Peek(ctx, 1)
	fmt.Println(entry.Value.Name, entry.Stale, ok, err)

	users.save(User{1, "anna"})
	u, err := c.Refresh(ctx, 1) // loads, whatever is there
	fmt.Println(u.Name, err)
	// Output:
	// <nil>
	// false <nil>
	// ann false true <nil>
	// anna <nil>
}

// A star opens her room at eight: what everybody will ask for is there before,
// and stays.
func ExampleCache_RunWarm() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	rooms := newTable("the star's room")
	c := open(rdb, rooms, cache.Options{TTL: time.Minute})
	defer c.Close(context.Background())

	ended := make(chan error)
	go func() {
		ended <- c.RunWarm(ctx, 20*time.Second, func(context.Context) ([]int64, error) { return []int64{1}, nil })
	}()
	for c.Stats().Loads == 0 {
		runtime.Gosched()
	}
	room, err := c.Get(ctx, 1)
	fmt.Println(room.Name, err, c.Stats().Loads)
	for _, name := range c.Hot() {
		fmt.Println("hot:", name) // once thousands ask for it
	}
	stop()
	fmt.Println(<-ended)
	// Output:
	// the star's room <nil> 1
	// <nil>
}

// Keys that do not exist cost nothing: neither Redis nor the source is asked.
func ExampleCache_RunGuard() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	users := newTable("ann")
	c := open(rdb, users, cache.Options{Guard: 1000})
	defer c.Close(context.Background())

	ended := make(chan error)
	go func() {
		ended <- c.RunGuard(ctx, time.Hour, func(context.Context) iter.Seq2[int64, error] {
			return func(yield func(int64, error) bool) {
				for _, id := range users.ids() {
					if !yield(id, nil) {
						return
					}
				}
			}
		})
	}()
	for id := int64(1000); c.Stats().Guarded == 0; id++ { // until it is filled
		_, _ = c.Get(ctx, id)
	}
	before := c.Stats().Loads
	_, err := c.Get(ctx, -7)
	fmt.Println(errors.Is(err, cache.ErrNotFound), c.Stats().Loads-before)
	stop()
	fmt.Println(<-ended)
	// Output:
	// true 0
	// <nil>
}

// Scores of a game change all the time: the cache has them now, the table soon.
func ExampleCache_WriteBehind() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	users := newTable("ann")
	c := open(rdb, users, cache.Options{Pending: 100})
	defer c.Close(context.Background())

	for i := range 50 {
		if err := c.WriteBehind(ctx, 1, User{1, fmt.Sprint("ann, level ", i)}); err != nil {
			log.Fatal(err)
		}
	}
	now, err := c.Get(ctx, 1)
	fmt.Println(now.Name, err)

	ended := make(chan error)
	go func() { ended <- c.RunWriteBehind(ctx, users) }()
	stop() // it drains
	fmt.Println(<-ended, users.users[1].Name)
	// Output:
	// ann, level 49 <nil>
	// <nil> ann, level 49
}

// Large values that compress well.
func ExampleCompress() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	c, err := cache.New(rdb, "pages", cache.Source[string, []User]{
		Load: func(context.Context, string) ([]User, error) {
			return slices.Repeat([]User{{1, "ann"}}, 1000), nil
		},
		Codec: cache.Compress(cache.JSON[[]User](), 4<<10),
	}, cache.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	page, err := c.Get(ctx, "all")
	fmt.Println(len(page), err)
	size, err := rdb.StrLen(ctx, "spillway:cache1:{pages:all}:v").Result()
	fmt.Println(size < 1000, err)
	// Output:
	// 1000 <nil>
	// true <nil>
}

// Without Redis it is a local cache that loads once; with other policies.
func ExampleNew() {
	ctx := context.Background()
	users := newTable("ann")
	c := open(nil, users, cache.Options{
		Mode:     cache.Lease,
		WhenDown: cache.OutageStale,
	})
	defer c.Close(ctx)
	_, err := c.Get(ctx, 1)
	entry, ok, _ := c.Peek(ctx, 1)
	fmt.Println(err, entry.Value.Name, entry.Level == cache.Local, ok)

	rdb, done := connect()
	defer done()
	for _, opts := range []cache.Options{
		{Mode: cache.AddRefill, Local: -1, WhenDown: cache.OutageLoad},
		{Mode: cache.Plain, Local: -1, WhenDown: cache.OutageFail, Prefix: "other"},
	} {
		c := open(rdb, users, opts)
		_, err = c.Get(ctx, 1)
		entry, ok, _ = c.Peek(ctx, 1)
		fmt.Println(err, entry.Value.Name, entry.Level == cache.Redis, ok)
		_ = c.Close(ctx)
	}
	_, err = c.Get(ctx, 1)
	switch {
	case errors.Is(err, cache.ErrClosed), errors.Is(err, cache.ErrInvalid):
		log.Fatal("a mistake of this program: ", err)
	case errors.Is(err, cache.ErrUnavailable), errors.Is(err, cache.ErrUnknown):
		fmt.Println("Redis is down")
	case errors.Is(err, cache.ErrLoad), errors.Is(err, cache.ErrOverloaded):
		fmt.Println("try later")
	}
	// Output:
	// <nil> ann true true
	// <nil> ann true true
	// <nil> ann true true
}

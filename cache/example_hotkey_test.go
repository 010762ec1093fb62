package cache_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/hashring/hotkey"
)

// A star's room is asked for by everybody. Each process answers from its memory for a
// moment, and what it then loads comes from one of six copies in six Cluster slots, so
// that thousands of processes do not meet at one server.
func Example_hotKeys() {
	ctx := context.Background()
	rdb, done := connect()
	defer done()
	copies, err := hotkey.NewCopies(hotkey.CopiesOptions{Copies: 6})
	if err != nil {
		log.Fatal(err)
	}
	rooms := stage{rdb, copies}
	// The level in Redis is the copies themselves, and so the cache has none.
	near, err := cache.New(nil, "rooms", cache.Source[string, room]{Load: rooms.load}, cache.Options{TTL: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer near.Close(ctx)

	rooms.save(ctx, "room:star", room{1, "opens soon"})
	for range 3 {
		r, err := near.Get(ctx, "room:star")
		fmt.Println(r.Title, err)
	}
	rooms.save(ctx, "room:star", room{2, "live"})
	if err := near.Delete(ctx, "room:star"); err != nil { // the other processes see it within a second
		log.Fatal(err)
	}
	r, err := near.Get(ctx, "room:star")
	fmt.Println(r.Title, err)

	// A copy that could not be written and is old: who has seen the newer one reads the
	// original.
	for _, name := range copies.WriteKeys("room:star", nil) {
		rdb.HSet(ctx, name, room{1, "opens soon"})
	}
	if err := near.Delete(ctx, "room:star"); err != nil {
		log.Fatal(err)
	}
	r, err = near.Get(ctx, "room:star")
	fmt.Println(r.Title, err, "after", near.Stats().Loads, "loads")
	// Output:
	// opens soon <nil>
	// opens soon <nil>
	// opens soon <nil>
	// live <nil>
	// live <nil> after 3 loads
}

// A room is read by everybody and written by one.
type room struct {
	Version int64  `redis:"version"`
	Title   string `redis:"title"`
}

// A stage keeps rooms in Redis: the original, and copies of those that are hot.
type stage struct {
	rdb    redis.UniversalClient
	copies *hotkey.Copies
}

func (s stage) save(ctx context.Context, key string, r room) {
	s.rdb.HSet(ctx, key, r)
	pipe := s.rdb.Pipeline() // a copy that cannot be written expires soon
	for _, name := range s.copies.WriteKeys(key, nil) {
		pipe.HSet(ctx, name, r)
		pipe.PExpire(ctx, name, s.copies.TTL())
	}
	_, _ = pipe.Exec(ctx)
}

func (s stage) load(ctx context.Context, key string) (r room, err error) {
	for _, name := range []string{s.copies.ReadKey(key), key} {
		if err := s.rdb.HGetAll(ctx, name).Scan(&r); err != nil {
			return r, err
		}
		if r.Version > 0 && s.copies.Accept(key, r.Version) {
			return r, nil
		}
	}
	return r, cache.ErrNotFound
}

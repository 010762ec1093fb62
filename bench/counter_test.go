//go:build unix

package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	counting "github.com/spillway-go/spillway/counter" // another file declares a counter
)

// posts are counted: 1,000 of them, in an order in which each has its turn.
const posts = 1000

var postSchema = counting.Schema{Name: "post", Fields: []counting.Field{{Name: "likes"}, {Name: "comments"}, {Name: "reposts"}, {Name: "views"}}}

func newCounter(b *testing.B, rdb *redis.Client) *counting.Counter {
	b.Helper()
	c, err := counting.New(rdb, postSchema, counting.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.WithoutCancel(b.Context())) })
	return c
}

// BenchmarkCounterAdd adds one view to a post an operation, from 64 goroutines. In
// Spillway's rows a flush every 200 ms is in the CPU time, and a row ends with one.
func BenchmarkCounterAdd(b *testing.B) {
	b.Run("spillway", func(b *testing.B) {
		rdb := newClient(b)
		c := newCounter(b, rdb)
		run(b, rdb, load{goroutines: 64, commands: []string{"evalsha"}}, func(i int) error {
			return added(b, c, i, c.Add(int64(i%posts), "views", 1))
		})
		total(b, c)
	})
	b.Run("spillway-handle", func(b *testing.B) {
		rdb := newClient(b)
		c := newCounter(b, rdb)
		handles := make([]*counting.Handle, posts)
		for i := range handles {
			handles[i] = c.Handle(int64(i), "views")
		}
		run(b, rdb, load{goroutines: 64, commands: []string{"evalsha"}}, func(i int) error {
			return added(b, c, i, handles[i%posts].Add(1))
		})
		total(b, c)
	})
	b.Run("spillway-sync", func(b *testing.B) {
		rdb := newClient(b)
		c := newCounter(b, rdb)
		run(b, rdb, load{goroutines: 64, commands: []string{"evalsha"}}, func(i int) error {
			_, err := c.AddSync(b.Context(), int64(i%posts), "views", 1)
			return err
		})
		total(b, c)
	})
	b.Run("incr", func(b *testing.B) {
		rdb, keys := newClient(b), numbered("post:", 4, posts)
		run(b, rdb, load{goroutines: 64, commands: []string{"hincrby"}}, func(i int) error {
			return rdb.HIncrBy(b.Context(), keys[i%posts], "views", 1).Err()
		})
	})
	// Pipelines of 100, which the caller has to gather and to lose.
	b.Run("incr-pipelined", func(b *testing.B) {
		rdb, keys := newClient(b), numbered("post:", 4, posts)
		pipes := sync.Pool{New: func() any { return rdb.Pipeline() }}
		run(b, rdb, load{goroutines: 64, commands: []string{"hincrby"}}, func(i int) error {
			pipe := pipes.Get().(redis.Pipeliner)
			defer pipes.Put(pipe)
			pipe.HIncrBy(b.Context(), keys[i%posts], "views", 1)
			if pipe.Len() < 100 && i < b.N-1 {
				return nil
			}
			_, err := pipe.Exec(b.Context())
			return err
		})
	})
}

// added ends the row with what is not stored yet.
func added(b *testing.B, c *counting.Counter, i int, err error) error {
	if err == nil && i == b.N-1 {
		err = c.Flush(b.Context())
	}
	return err
}

// total fails a row that lost an increment.
func total(b *testing.B, c *counting.Counter) {
	b.Helper()
	ids := make([]int64, posts)
	for i := range ids {
		ids[i] = int64(i)
	}
	all, err := c.GetMany(b.Context(), ids)
	if err != nil {
		b.Fatal(err)
	}
	sum := int64(0)
	for _, v := range all {
		sum += v["views"]
	}
	if sum != int64(b.N) {
		b.Fatalf("%d views counted, want %d", sum, b.N)
	}
}

// BenchmarkCounterMemory writes posts with four counters each and reports what a post
// takes in Redis.
func BenchmarkCounterMemory(b *testing.B) {
	const objects = 10_000
	fields := []string{"likes", "comments", "reposts", "views"}
	values := []int64{120, 14, 3, 5200}
	for _, row := range []struct {
		name  string
		write func(b *testing.B, rdb *redis.Client)
	}{
		{"spillway", func(b *testing.B, rdb *redis.Client) {
			c := newCounter(b, rdb)
			for id := range int64(objects) {
				for i, f := range fields {
					if err := c.Add(1e9+id, f, values[i]); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := c.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}},
		{"hash", func(b *testing.B, rdb *redis.Client) {
			pipe := rdb.Pipeline()
			for id := range objects {
				for i, f := range fields {
					pipe.HIncrBy(b.Context(), "post:"+strconv.Itoa(1e9+id), f, values[i])
				}
			}
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}},
		{"strings", func(b *testing.B, rdb *redis.Client) {
			pipe := rdb.Pipeline()
			for id := range objects {
				for i, f := range fields {
					pipe.IncrBy(b.Context(), fmt.Sprintf("post:%d:%s", 1_000_000_000+id, f), values[i])
				}
			}
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			rdb := newClient(b)
			for range b.N {
				if err := rdb.FlushAll(b.Context()).Err(); err != nil {
					b.Fatal(err)
				}
				row.write(b, rdb)
			}
			b.ReportMetric(float64(stored(b, rdb))/objects, "B/object")
			b.ReportMetric(float64(b.N*objects)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

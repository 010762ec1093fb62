package unread_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/counter/unread"
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

// check stands for what a service does with an error.
func check(err error) {
	switch {
	case errors.Is(err, unread.ErrInvalid), errors.Is(err, unread.ErrClosed):
		panic(err)
	case errors.Is(err, unread.ErrUnavailable), errors.Is(err, unread.ErrUnknown):
		fmt.Println("the same call again does no harm:", err)
	}
}

// Unread notices: how many messages of each conversation.
func Example() {
	rdb, end := connect()
	defer end()
	ctx := context.Background()
	u, err := unread.NewUnread(rdb, unread.Options{})
	check(err)
	check(u.Sent(ctx, "family", 7)) // message 7 is in the database
	check(u.Sent(ctx, "work", 120))
	check(u.Read(ctx, "ann", "work", 118))
	counts, err := u.Counts(ctx, "ann", []string{"family", "work"})
	check(err)
	fmt.Println("family:", counts[0], "work:", counts[1])
	// Output: family: 7 work: 2
}

func ExampleRedDot() {
	rdb, end := connect()
	defer end()
	ctx := context.Background()
	d, err := unread.NewRedDot(rdb, unread.Options{})
	check(err)
	check(d.Publish(ctx, "shop", time.Now()))
	lit, newest, err := d.Lit(ctx, "ann", []string{"friends", "shop"})
	check(err)
	fmt.Println(lit)
	check(d.Seen(ctx, "ann", "shop", newest[1])) // she opened the tab
	lit, _, err = d.Lit(ctx, "ann", []string{"friends", "shop"})
	check(err)
	fmt.Println(lit)
	// Output:
	// [false true]
	// [false false]
}

func ExampleFeedUnread() {
	rdb, end := connect()
	defer end()
	ctx := context.Background()
	f, err := unread.NewFeedUnread(rdb, unread.Options{})
	check(err)
	following := []string{"bob", "cat"}
	check(f.Posted(ctx, "bob", 40))
	_, err = f.Visit(ctx, "ann", following)
	check(err)
	check(f.Posted(ctx, "bob", 42))
	check(f.Posted(ctx, "cat", 1))
	n, err := f.Count(ctx, "ann", following)
	check(err)
	fmt.Println(n, "new posts")
	// Output: 3 new posts
}

func ExampleReceipts() {
	rdb, end := connect()
	defer end()
	ctx := context.Background()
	r, err := unread.NewReceipts(rdb, unread.ByMessage, unread.Options{}) // or ByMember, for small rooms
	check(err)
	check(r.Mark(ctx, "team", 3, 0, 1, 2)) // member 3 has read messages 0 to 2
	check(r.Mark(ctx, "team", 5, 2))
	n, err := r.Count(ctx, "team", 2, 10)
	check(err)
	has, err := r.Has(ctx, "team", 5, 1)
	check(err)
	fmt.Println(n, "of 10 have read message 2; member 5 has read message 1:", has)
	other, err := unread.NewReceipts(rdb, unread.ByMember, unread.Options{Prefix: "other"})
	check(err)
	n, err = other.Count(ctx, "team", 2, 10)
	check(err)
	fmt.Println(n)
	// Output:
	// 2 of 10 have read message 2; member 5 has read message 1: false
	// 0
}

func ExampleVisitors() {
	rdb, end := connect()
	defer end()
	ctx := context.Background()
	v, err := unread.NewVisitors(rdb, unread.Options{})
	check(err)
	check(v.Add(ctx, "home/2026-11-20", "ann", "bob", "ann"))
	n, err := v.Count(ctx, "home/2026-11-20")
	check(err)
	fmt.Println(n)
	// Output: [2]
}

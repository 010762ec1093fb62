package idgen_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/idgen"
)

// miniStore returns a store on a miniredis, for examples that run anywhere.
func miniStore() (idgen.Store, func()) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		panic(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	store, err := idgen.RedisStore(rdb, idgen.RedisOptions{})
	if err != nil {
		panic(err)
	}
	return store, func() { _ = rdb.Close(); m.Close() }
}

func ExampleNewSegment() {
	store, end := miniStore()
	defer end()
	ctx := context.Background()
	orders, err := idgen.NewSegment(store, "order", idgen.Options{MinStep: 100, TargetDuration: time.Minute})
	if err != nil {
		panic(err)
	}
	defer orders.Close(ctx)

	id, err := orders.Next(ctx)
	switch {
	case errors.Is(err, idgen.ErrUnavailable):
		fmt.Println("the store is down, and ctx ended before it came back")
	case errors.Is(err, idgen.ErrClosed), errors.Is(err, idgen.ErrInvalid), errors.Is(err, idgen.ErrExhausted):
		fmt.Println("waiting does not help:", err)
	}
	more, _ := orders.NextN(ctx, 3)
	last, ok := orders.TryNext()
	fmt.Println(id, more, last, ok)
	fmt.Println(orders.Stats().Left, orders.Runway() > 0)

	// Who claims by hand sees what a Segment deals with.
	r, err := store.Claim(ctx, "invoice", 10)
	switch {
	case errors.Is(err, idgen.ErrUnknown): // a hole at worst: claim again
	case errors.Is(err, idgen.ErrContended): // optimistic, and all tries were lost
	case errors.Is(err, idgen.ErrWentBack): // logged by a Segment: was a backup restored?
	}
	fmt.Println(r.First, r.Count)
	// Output:
	// 1 [2 3 4] 5 true
	// 95 true
	// 1 10
}

// The database is the application's own, with a driver of its choice.
func ExampleSQLStore() {
	open := func(ctx context.Context, db *sql.DB) (*idgen.Segment, error) {
		if err := idgen.Migrate(ctx, db, idgen.MySQL); err != nil {
			return nil, err
		}
		store, err := idgen.SQLStore(db, idgen.MySQL, idgen.Atomic)
		if err != nil {
			return nil, err
		}
		return idgen.NewSegment(store, "order", idgen.Options{})
	}
	_ = open

	_, err := idgen.SQLStore(nil, idgen.PostgreSQL, idgen.Optimistic)
	fmt.Println(err)
	_, err = idgen.SQLStore(&sql.DB{}, idgen.SQLite, -1)
	fmt.Println(err)
	// Output:
	// idgen: invalid argument: db is nil
	// idgen: invalid argument: mode -1, want Atomic, Optimistic or 1 to 1000 tries
}

// Two Redis servers that know nothing of each other: either may be down.
func ExampleSteppedStore() {
	a, endA := miniStore()
	defer endA()
	b, endB := miniStore()
	defer endB()
	store, err := idgen.SteppedStore(a, b)
	if err != nil {
		panic(err)
	}
	for range 3 {
		r, _ := store.Claim(context.Background(), "order", 3)
		fmt.Println(r.First, r.First+r.Stride, r.First+2*r.Stride)
	}
	// Output:
	// 2 4 6
	// 3 5 7
	// 8 10 12
}

// Order numbers of nine digits that do not tell how much is sold.
func ExamplePermuter() {
	p, err := idgen.NewPermuter([]byte("the shop's secret"), 1_000_000_000)
	if err != nil {
		panic(err)
	}
	for id := range int64(3) {
		n, _ := p.Permute(id)
		back, _ := p.Invert(n)
		fmt.Printf("%09d is order %d\n", n, back)
	}
	// Output:
	// 631255913 is order 0
	// 057687526 is order 1
	// 533147321 is order 2
}

// A token that is handed out with the form makes a double click one order: the id
// exists before the order does, and the table refuses it the second time.
func Example_orderToken() {
	store, end := miniStore()
	defer end()
	ctx := context.Background()
	ids, err := idgen.NewSegment(store, "order", idgen.Options{})
	if err != nil {
		panic(err)
	}
	defer ids.Close(ctx)

	errDuplicate := errors.New("duplicate key")
	table := map[int64]string{} // stands for a table whose primary key is the order id
	insert := func(id int64, what string) error {
		if _, ok := table[id]; ok {
			return errDuplicate
		}
		table[id] = what
		return nil
	}

	token, _ := ids.Next(ctx) // goes into the form; sign it, or bind it to the session
	for range 2 {             // the buyer clicks twice
		err := insert(token, "two cups")
		if errors.Is(err, errDuplicate) {
			fmt.Println("already ordered:", table[token])
			continue
		}
		fmt.Println("ordered:", table[token])
	}
	fmt.Println(len(table), "order")
	// Output:
	// ordered: two cups
	// already ordered: two cups
	// 1 order
}

package countersql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/counter"
	"github.com/spillway-go/spillway/counter/countersql"
)

// What a counter asks of its store, and what an operator may ask.
func ExampleStore_Load() {
	accept := func(ctx context.Context, store *countersql.Store, block int64) error {
		b, err := store.Load(ctx, "spillway:post", block)
		if err != nil || b.State != counter.Leaving {
			return err
		}
		// Redis is gone, and with it what came after the block was written down. Accept that.
		b.Revision, b.State = b.Revision+1, counter.Cold
		_, err = store.Save(ctx, "spillway:post", block, b)
		return err
	}
	_ = accept
	// Output:
}

// A counter whose idle blocks rest in a database. Any driver of database/sql will do.
func ExampleStore() {
	open := func(ctx context.Context, rdb redis.UniversalClient, db *sql.DB) (*counter.Counter, error) {
		if err := countersql.Migrate(ctx, db, countersql.MySQL); err != nil {
			return nil, err
		}
		store, err := countersql.New(db, countersql.MySQL)
		if err != nil {
			return nil, err
		}
		posts := counter.Schema{Name: "post", Packed: true, Fields: []counter.Field{{Name: "likes"}, {Name: "views"}}}
		return counter.New(rdb, posts, counter.Options{Cold: store, ColdAfter: 7 * 24 * time.Hour})
	}
	_ = open

	_, err := countersql.New(nil, countersql.PostgreSQL)
	fmt.Println(errors.Is(err, counter.ErrInvalid), err)
	err = countersql.Migrate(context.Background(), &sql.DB{}, countersql.SQLite+1)
	fmt.Println(err)
	var d countersql.Dialect
	fmt.Println(d.Known())
	// Output:
	// true counter: invalid argument: db is nil
	// counter: invalid argument: dialect 4, want MySQL, PostgreSQL or SQLite
	// false
}

package stocksql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	"github.com/spillway-go/spillway/stock"
	"github.com/spillway-go/spillway/stock/stocksql"
)

// One of these goes with every process that sells. The database is the application's
// own, with a driver of its choice.
func Example() {
	journal := func(ctx context.Context, a *stock.Activity, db *sql.DB) error {
		if err := stocksql.Migrate(ctx, db, stocksql.MySQL); err != nil {
			return err
		}
		store, err := stocksql.New(db, stocksql.MySQL)
		if err != nil {
			return err
		}
		for {
			err := a.RunJournal(ctx, store)
			if !errors.Is(err, stock.ErrForked) {
				return err // nil: ctx ended
			}
			// A failover lost what the database has. Orders are refused now.
			lost, err := a.Rebuild(ctx, store)
			if err != nil {
				return err
			}
			for _, op := range lost {
				log.Printf("tell %s: %s of order %s is undone", op.User, op.Kind, op.ID)
			}
		}
	}
	_ = journal

	_, err := stocksql.New(nil, stocksql.PostgreSQL)
	fmt.Println(errors.Is(err, stock.ErrInvalid))
	// Output: true
}

// A night's look: does the database agree with Redis while the sale goes on?
func Example_reconcile() {
	check := func(ctx context.Context, a *stock.Activity, store *stocksql.Store) error {
		diff, err := a.Reconcile(ctx, store)
		if err != nil {
			return err
		}
		for sku := range diff.Redis {
			log.Printf("%s: Redis %+v, levels %+v, rows %+v", sku, diff.Redis[sku], diff.Kept[sku], diff.Counted[sku])
		}
		return nil
	}
	_ = check
	fmt.Println(stocksql.SQLite)
	// Output: SQLite
}

// A loud store tells the rest of the shop what has just come into the database. It is
// told again of what a process that died had not passed on: nothing is lost, and what
// listens must bear repetition.
type loud struct {
	*stocksql.Store
	told string
	tell func(stock.Op)
}

func (l *loud) Name() string { return l.Store.Name() + "-loud" }

func (l *loud) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	if err := l.Store.Apply(ctx, journal, from, batch); err != nil {
		return err
	}
	for _, e := range batch {
		for _, op := range e.Ops {
			l.tell(op)
		}
		l.told = e.ID
	}
	return nil
}

// A Store can be part of another sink, and be read like any ledger.
func ExampleStore() {
	export := func(ctx context.Context, store *stocksql.Store, activity string) error {
		at, kept, _, err := store.Levels(ctx, activity)
		if err != nil {
			return err
		}
		fmt.Println("as of", at, kept)
		for entry, err := range store.Entries(ctx, activity) {
			if err != nil {
				return err
			}
			fmt.Println(entry.At, entry.Ops)
		}
		now, err := store.Checkpoint(ctx, activity)
		fmt.Println("meanwhile it is at", now)
		return err
	}
	_ = export
	var sink stock.Sink = &loud{Store: &stocksql.Store{}}
	fmt.Println(sink.Name())
	// Output: sql-loud
}

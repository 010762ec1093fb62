package delayqueue_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/spillway-go/spillway/delayqueue"
)

// A shop keeps its orders in a database, and their timeouts in a queue.
type shop struct {
	db *sql.DB
	q  *delayqueue.Queue
}

// place commits the order, and the intention to add its timeout, in one transaction:
// a process that dies after the commit leaves a row that relay finds.
func (s *shop) place(ctx context.Context, order string) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", order); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO outbox (id) VALUES (?)", order); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return s.relay(ctx, order) // usually this is all: relay is for what it leaves behind
}

// relay adds the timeout and then forgets the intention. It may do so twice.
func (s *shop) relay(ctx context.Context, order string) error {
	_, err := s.q.Add(ctx, delayqueue.Job{ID: order, Delay: time.Millisecond})
	switch {
	case err == nil, errors.Is(err, delayqueue.ErrDuplicate):
		_, err = s.db.ExecContext(ctx, "DELETE FROM outbox WHERE id = ?", order)
		return err
	case errors.Is(err, delayqueue.ErrInvalid), errors.Is(err, delayqueue.ErrClosed):
		return err // a bug, or the end of this process
	case errors.Is(err, delayqueue.ErrUnavailable), errors.Is(err, delayqueue.ErrUnknown):
		return nil // the row stays: again later
	}
	return err
}

// timeout cancels the order in the transaction that notes that it did.
func (s *shop) timeout(ctx context.Context, d *delayqueue.Delivery) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	first, err := d.OnceSQL(ctx, tx, "INSERT IGNORE INTO done (id) VALUES (?)")
	if err != nil || !first {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM orders WHERE id = ?", d.ID); err != nil {
		return err
	}
	fmt.Println("cancelled", d.ID)
	return tx.Commit()
}

// The producer's outbox: the job must follow the commit, whatever dies in between.
func Example_outbox() {
	rdb, stop := demo()
	defer stop()
	ctx := context.Background()
	q, err := delayqueue.New(rdb, "timeouts", delayqueue.Options{})
	if err != nil {
		log.Fatal(err)
	}
	s := &shop{db: openTables(), q: q}
	if err := s.place(ctx, "o-1"); err != nil {
		log.Fatal(err)
	}
	if err := s.relay(ctx, "o-1"); err != nil { // once too often
		log.Fatal(err)
	}
	done := make(chan struct{})
	runUntil(q, func(ctx context.Context, d *delayqueue.Delivery) error {
		defer close(done)
		if err := s.timeout(ctx, d); err != nil {
			return err
		}
		return s.timeout(ctx, d) // as if it ran again
	}, delayqueue.RunOptions{}, done)
	// Output:
	// cancelled o-1
}

// What a payment learns from the timeout that it cancels, and a handler from the end of
// its context.
func Example_errors() {
	payment := func(err error) string {
		switch {
		case err == nil:
			return "paid in time"
		case errors.Is(err, delayqueue.ErrActive):
			return "the timeout runs right now"
		case errors.Is(err, delayqueue.ErrFinished), errors.Is(err, delayqueue.ErrDead):
			return "too late"
		case errors.Is(err, delayqueue.ErrCancelled), errors.Is(err, delayqueue.ErrNotFound):
			return "no timeout was waiting"
		}
		return "try again"
	}
	handler := func(ctx context.Context) string {
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, delayqueue.ErrLeaseLost):
			return "another worker may have it: stop"
		case errors.Is(cause, delayqueue.ErrMaxRun):
			return "took too long: stop"
		case errors.Is(cause, delayqueue.ErrDraining):
			return "return an error, and another worker goes on"
		}
		return "go on"
	}
	fmt.Println(payment(delayqueue.ErrActive))
	fmt.Println(handler(context.Background()))
	for _, s := range []delayqueue.State{delayqueue.Waiting, delayqueue.Running, delayqueue.Dead, delayqueue.Finished, delayqueue.Cancelled} {
		fmt.Print(s, " ")
	}
	// Output:
	// the timeout runs right now
	// go on
	// waiting running dead finished cancelled
}

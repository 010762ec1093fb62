package stock_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"strings"

	"github.com/spillway-go/spillway/stock"
)

// A topic stands for a log like Kafka, to which a transaction appends messages together
// with the offset that they reach.
type topic struct {
	messages []string
	offset   string
	full     chan struct{}
}

func (t *topic) Name() string { return "orders-topic" }

func (t *topic) Checkpoint(context.Context, string) (string, error) { return t.offset, nil }

func (t *topic) Apply(_ context.Context, journal, from string, batch []stock.Entry) error {
	if from != t.offset && t.offset != "" {
		return stock.ErrMoved // another process was faster
	}
	for _, e := range batch {
		for _, op := range e.Ops {
			if left, reserved, sold := op.Move(); op.ID != "" {
				t.messages = append(t.messages, fmt.Sprintf("%s %s %s: %+d left, %+d reserved, %+d sold",
					journal, op.Kind, op.ID, left*op.Items[0].Qty, reserved*op.Items[0].Qty, sold*op.Items[0].Qty))
			}
		}
		t.offset = e.ID
	}
	if len(t.messages) == 3 {
		close(t.full)
	}
	return nil
}

// The journal goes wherever a checkpoint can be moved together with what it stands for.
func ExampleActivity_RunJournal() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{})
	defer a.Close(ctx)
	if _, err := a.Reserve(ctx, order("o1", "ann", "tea", 2)); err != nil {
		log.Fatal(err)
	}
	if _, err := a.Confirm(ctx, stock.Ref{ID: "o1", User: "ann"}); err != nil {
		log.Fatal(err)
	}
	if _, err := a.Deduct(ctx, order("o2", "bob", "tea", 1)); err != nil {
		log.Fatal(err)
	}

	t := &topic{full: make(chan struct{})}
	go func() {
		<-t.full
		stop()
	}()
	err := a.RunJournal(ctx, t)
	switch {
	case errors.Is(err, stock.ErrForked): // a failover lost what the topic has: Rebuild
	case errors.Is(err, stock.ErrTrimmed): // the topic was away for too long
	}
	fmt.Println(strings.Join(t.messages, "\n"))
	fmt.Println(err)

	// When the topic is given up, the journal is not kept for it any more.
	err = a.RemoveSink(context.Background(), t.Name())
	fmt.Println(err)
	// Output:
	// summer-sale reserve o1: -2 left, +2 reserved, +0 sold
	// summer-sale confirm o1: +0 left, -2 reserved, +2 sold
	// summer-sale deduct o2: -1 left, +0 reserved, +1 sold
	// <nil>
	// <nil>
}

// An archive is a topic that can be read: a stock.Ledger.
type archive struct {
	topic
	entries []stock.Entry
}

func (r *archive) Apply(ctx context.Context, journal, from string, batch []stock.Entry) error {
	r.entries = append(r.entries, batch...)
	return r.topic.Apply(ctx, journal, from, batch)
}

func (r *archive) Entries(context.Context, string) iter.Seq2[stock.Entry, error] {
	return func(yield func(stock.Entry, error) bool) {
		for _, e := range r.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (r *archive) Levels(context.Context, string) (string, map[string]stock.Level, map[string]stock.Level, error) {
	levels := map[string]stock.Level{}
	for _, e := range r.entries {
		for _, op := range e.Ops {
			left, reserved, sold := op.Move()
			for _, it := range op.Items {
				l := levels[it.SKU]
				levels[it.SKU] = stock.Level{
					Left: l.Left + left*it.Qty, Reserved: l.Reserved + reserved*it.Qty, Sold: l.Sold + sold*it.Qty,
				}
			}
		}
	}
	return r.offset, levels, levels, nil
}

// Redis loses everything, and the ledger brings it back.
func ExampleActivity_Rebuild() {
	ctx, stop := context.WithCancel(context.Background())
	rdb, done := connect()
	defer done()
	a := newSale(rdb, stock.Options{MaxLag: 0})
	for _, id := range []string{"o1", "o2", "o3"} {
		if _, err := a.Deduct(ctx, order(id, "ann", "tea", 1)); err != nil {
			log.Fatal(err)
		}
	}
	ledger := &archive{topic: topic{full: make(chan struct{})}}
	go func() {
		<-ledger.full
		stop()
	}()
	fmt.Println("journal:", a.RunJournal(ctx, ledger))

	ctx = context.Background()
	diff, err := a.Reconcile(ctx, ledger)
	fmt.Println("they agree:", diff.None(), err)
	if err := a.Drop(ctx); err != nil { // an accident
		log.Fatal(err)
	}
	err = a.RunJournal(ctx, ledger)
	fmt.Println("noticed:", errors.Is(err, stock.ErrForked))
	_, err = a.Deduct(ctx, order("o4", "bob", "tea", 1))
	fmt.Println("halted:", errors.Is(err, stock.ErrHalted), errors.Is(err, stock.ErrJournalFull))

	lost, err := a.Rebuild(ctx, ledger)
	fmt.Println("rebuilt:", len(lost), "lost", err)
	res, err := a.Deduct(ctx, order("o1", "ann", "tea", 1))
	fmt.Println("the retry of an old order:", res.State, res.Replayed, err)
	levels, err := a.Stock(ctx)
	fmt.Println("tea:", levels["tea"].Left, "left,", levels["tea"].Sold, "sold", err)
	// Output:
	// journal: <nil>
	// they agree: true <nil>
	// noticed: true
	// halted: true false
	// rebuilt: 0 lost <nil>
	// the retry of an old order: sold true <nil>
	// tea: 7 left, 3 sold <nil>
}

package stock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

//go:embed feed.lua
var feedLua string

var feedScript = script.New(script.State, feedLua)

// A Sink is where the journal goes: a database, a log, a queue. It owns its
// checkpoint, which is the id of the last entry that it has taken in. stock/stocksql
// has one for SQL databases.
//
// journal is the name of the activity. Each bucket of an activity with buckets has a
// journal and a checkpoint of its own; Options.Journals names them. One sink may serve
// several activities.
type Sink interface {
	// Name tells the sink from the others of the activity: the journal is kept until
	// each has it. It is 1 to 64 letters, digits, dots, dashes and underscores.
	Name() string
	// Checkpoint returns the id of the last entry taken in, "" or "0-0" if there is
	// none.
	Checkpoint(ctx context.Context, journal string) (string, error)
	// Apply takes in batch, and moves the checkpoint to the ID of its last entry, both
	// or neither. It must not do so unless the checkpoint is from: if it is not, another
	// process was faster, and the error is ErrMoved. An error that wraps ErrForked says
	// that these entries cannot follow what the sink has. After any other error the
	// checkpoint is read again.
	Apply(ctx context.Context, journal, from string, batch []Entry) error
}

// What bounds one batch for a sink. The ops matter where each becomes a row.
const (
	batchEntries = 100
	batchOps     = 1000
)

var sinkName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// RunJournal gives the journal to sink, in order and each entry once, until ctx ends.
// It may run in any number of processes: one of them gets its batch in, the others
// notice.
//
// A batch is 100 entries, or fewer with 1,000 ops, or what there is when its first
// entry is Options.Linger old. While the sink fails the batch is tried again, every
// half second. The entries that every sink has are trimmed, save those that the
// schedule of holds still needs.
//
// It returns nil after ctx ended. ErrForked says that the journal does not continue what
// the sink has, as after a failover that lost writes, or a Drop: orders are refused
// with ErrHalted from then on, until Rebuild. ErrTrimmed says that entries which the sink
// lacks are not kept any more.
//
// Where there are buckets it brings the journals of all to the sink, at the same time, an
// OpTake never before its OpGive. One that forked halts all of them.
func (a *Activity) RunJournal(ctx context.Context, sink Sink) error {
	if sink == nil || !sinkName.MatchString(sink.Name()) {
		return fmt.Errorf("%w: a sink with a name of 1 to 64 letters, digits, dots, dashes and underscores is wanted", ErrInvalid)
	}
	if a.buckets != nil {
		return a.runJournals(ctx, sink)
	}
	f := feed{a: a, sink: sink, name: sink.Name()}
	return f.run(ctx)
}

// RemoveSink forgets the checkpoint of a sink that will not run again, which would
// else keep the journal from being trimmed. One round trip, for each bucket.
func (a *Activity) RemoveSink(ctx context.Context, name string) error {
	if !sinkName.MatchString(name) {
		return fmt.Errorf("%w: name %q of a sink", ErrInvalid, name)
	}
	return together(a.wholes(), func(b *Activity) error {
		f := feed{a: b, name: name}
		_, _, err := f.read(ctx, "")
		return err
	})
}

// A feed brings one journal to a sink.
type feed struct {
	a    *Activity
	of   *Activity  // whose bucket a is, or nil
	sunk []progress // of the buckets of of
	sink Sink
	name string
	at   string        // the sink's checkpoint; empty if it has to be asked
	back string        // a checkpoint that was found too old
	idle time.Duration // the last pause
}

func (f *feed) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := f.step(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, ErrForked) || errors.Is(err, ErrTrimmed) || errors.Is(err, ErrInvalid) {
				return err
			}
			f.at = "" // it may have moved
			f.a.troubled(ctx, "feed sink "+f.name, err)
		}
	}
	return nil
}

// step brings at most one batch to the sink.
func (f *feed) step(ctx context.Context) error {
	a := f.a
	if f.at == "" {
		at, err := f.checkpoint(ctx, a)
		if err != nil {
			return err
		}
		f.at = at
	}
	batch, now, err := f.read(ctx, "")
	if err != nil || f.at == "" {
		return err
	}
	if len(batch) == 0 {
		f.pause(ctx, nil)
		return nil
	}
	if wait := a.opts.Linger - now.Sub(batch[0].At); len(batch) < batchEntries && opCount(batch) < batchOps && wait > 0 {
		sleep(ctx, min(wait, a.opts.Linger)) // not longer if a clock is wrong
		if batch, _, err = f.read(ctx, ""); err != nil || f.at == "" || len(batch) == 0 {
			return err
		}
	}
	batch = upTo(batch, batchOps)
	if f.of != nil {
		var more <-chan struct{}
		if batch, more, err = f.given(ctx, batch); err == nil && len(batch) == 0 {
			f.pause(ctx, more)
			return nil
		}
	}
	f.idle = 0
	if err == nil {
		err = f.sink.Apply(ctx, a.journal, f.at, batch)
	}
	switch {
	case errors.Is(err, ErrMoved):
		f.at = ""
		f.moved()
		sleep(ctx, a.opts.Linger)
		return nil
	case errors.Is(err, ErrForked):
		if _, _, markErr := f.read(ctx, "1"); markErr != nil && !errors.Is(markErr, ErrForked) {
			err = fmt.Errorf("%w (and the activity was not halted: %w)", err, markErr)
		}
		return fmt.Errorf("stock: journal %q, sink %q: %w", a.journal, f.name, err)
	case err != nil:
		return fmt.Errorf("stock: journal %q, sink %q: apply: %w", a.journal, f.name, err)
	}
	f.at, f.back = batch[len(batch)-1].ID, ""
	f.moved()
	a.stats.journaled.Add(uint64(opCount(batch)))
	return nil
}

// pause waits, longer with each time that there is nothing to do, or until more is closed.
func (f *feed) pause(ctx context.Context, more <-chan struct{}) {
	linger := f.a.opts.Linger
	f.idle = min(max(2*f.idle, linger), max(linger, maxSleep/2))
	ctx, stop := context.WithTimeout(ctx, f.idle)
	defer stop()
	select {
	case <-more:
	case <-ctx.Done():
	}
}

// moved tells the other feeds that the sink has more of this journal.
func (f *feed) moved() {
	if f.of != nil {
		f.sunk[f.a.bucket].made()
	}
}

// checkpoint asks the sink for the checkpoint of the journal of an activity or bucket.
func (f *feed) checkpoint(ctx context.Context, of *Activity) (string, error) {
	at, err := f.sink.Checkpoint(ctx, of.journal)
	if err != nil {
		return "", fmt.Errorf("stock: journal %q, sink %q: checkpoint: %w", of.journal, f.name, err)
	}
	if at == "" {
		at = "0-0"
	}
	if !entryID.MatchString(at) {
		return "", fmt.Errorf("stock: journal %q, sink %q: %w: checkpoint %q is not the ID of an Entry", of.journal, f.name, ErrInvalid, at)
	}
	return at, nil
}

// read returns the entries after the checkpoint. It empties f.at if that has to be
// asked for again. refused is not empty if the sink cannot take what comes next.
func (f *feed) read(ctx context.Context, refused string) ([]Entry, time.Time, error) {
	a := f.a
	fail := func(err error) ([]Entry, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf("stock: journal %q, sink %q: %w", a.journal, f.name, err)
	}
	sent := time.Now()
	reply, err := feedScript.Run(ctx, a.rdb, script.Call{
		Keys: []string{a.keys.levels, a.keys.stream},
		Args: []any{f.name, f.at, batchEntries, refused},
	})
	if err != nil {
		return fail(err)
	}
	r, ok := reply.([]any)
	if !ok || len(r) == 0 {
		return fail(fmt.Errorf("%w: reply %v of feed.lua", ErrUnknown, reply))
	}
	switch r[0] {
	case int64(1):
		// Another process may have brought the sink on since it was asked.
		if f.back == f.at {
			return fail(fmt.Errorf("%w: it has entries up to %s", ErrTrimmed, f.at))
		}
		f.back, f.at = f.at, ""
		return nil, sent, nil
	case int64(2):
		if len(r) > 2 {
			return fail(fmt.Errorf("%w: %w", ErrForked, errRebuilding))
		}
		return fail(fmt.Errorf("%w: entry %s, which the sink has, is not followed by what came next: Rebuild", ErrForked, r[1]))
	}
	raw, _ := r[1].([]any)
	entries := make([]Entry, 0, len(raw))
	for _, v := range raw {
		e, err := entryOf(v)
		e.Bucket = a.bucket
		if err != nil {
			return fail(err)
		}
		if len(entries) > 0 && e.Prev != entries[len(entries)-1].ID {
			break // a fork within the page is one at its beginning next time
		}
		entries = append(entries, e)
	}
	return entries, sent, nil
}

// entryOf reads an entry as a script returns it: id, and field and value in turn.
func entryOf(v any) (Entry, error) {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return Entry{}, fmt.Errorf("stock: cannot read journal entry %v, written by another version?", v)
	}
	id, _ := pair[0].(string)
	fields, _ := pair[1].([]any)
	values := make(map[string]any, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		name, _ := fields[i].(string)
		values[name] = fields[i+1]
	}
	return parseEntry(id, values)
}

func opCount(batch []Entry) (n int) {
	for i := range batch {
		n += len(batch[i].Ops)
	}
	return n
}

// upTo cuts batch after the entry with which it has n ops.
func upTo(batch []Entry, n int) []Entry {
	for i := range batch {
		if n -= len(batch[i].Ops); n <= 0 {
			return batch[:i+1]
		}
	}
	return batch
}

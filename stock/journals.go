package stock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// The journals of buckets go to a sink side by side. What ties them together are the
// transfers: a sink must not have units that were taken and not those that were given,
// or a giver that forgets them in a failover sells them once more, in the sink too; and
// a bucket that lost a transfer must not go on because its own chain is whole.

// errRebuilding goes with ErrForked where a Rebuild is at work: it has halted all that has
// to be.
var errRebuilding = errors.New("a Rebuild is at work")

// runJournals is RunJournal of an activity with buckets.
func (a *Activity) runJournals(ctx context.Context, sink Sink) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	sunk := make([]progress, len(a.buckets))
	err := together(append([]*Activity{a}, a.buckets...), func(b *Activity) error {
		defer stop() // one that ended ends the others
		if b == a {
			return a.watchTransfers(inner)
		}
		f := feed{a: b, of: a, sunk: sunk, sink: sink, name: sink.Name()}
		return f.run(inner)
	})
	if errors.Is(err, ErrForked) && !errors.Is(err, errRebuilding) {
		for ctx.Err() == nil {
			haltErr := together(a.buckets, func(b *Activity) error {
				_, err := b.fork(ctx, "", "halt")
				return err
			})
			if haltErr == nil {
				break
			}
			a.troubled(ctx, "halt all buckets", haltErr)
		}
	}
	return err
}

// A progress wakes those who wait until the sink has more of a journal. Without it a unit
// that went to and fro n times, within a moment of the sale, would take n times Linger to
// get to the sink.
type progress struct {
	mu   sync.Mutex
	more chan struct{} // nil while nobody waits
}

// next returns a channel that the next made closes.
func (p *progress) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more == nil {
		p.more = make(chan struct{})
	}
	return p.more
}

func (p *progress) made() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

// watchTransfers looks for transfers that a bucket lost in a failover. A sink may have
// been too far behind to see it by the chain of the journal.
func (a *Activity) watchTransfers(ctx context.Context) error {
	var before []look
	for ctx.Err() == nil {
		now := a.look(ctx, nil)
		for i := range now {
			if now[i].gap != "" {
				return a.lostIn(i, now[i].gap)
			}
		}
		if from, to, lost := lostTransfer(before, now); lost {
			return a.lostIn(from, fmt.Sprintf("%d>%d", from, to))
		}
		before = now
		sleep(ctx, maxSleep)
	}
	return nil
}

func (a *Activity) lostIn(bucket int, transfer string) error {
	return fmt.Errorf("stock: activity %q: %w: bucket %d tells of a transfer that was lost, %s: Rebuild", a.name, ErrForked, bucket, transfer)
}

// lostTransfer tells of a transfer that one of its buckets knows of and the other forgot.
// Numbers only grow, and the giver is never more than one ahead: what one look saw of
// either, the next must see of the other.
func lostTransfer(before, now []look) (from, to int, lost bool) {
	for from := range before {
		for to := range now {
			if now[from].links == nil || now[to].links == nil || before[from].links == nil || before[to].links == nil {
				continue
			}
			if before[to].links[from].took > now[from].links[to].gave || before[from].links[to].gave > now[to].links[from].took+1 {
				return from, to, true
			}
		}
	}
	return 0, 0, false
}

// given returns the beginning of batch in which the sink has what was given for each take,
// and, if that is not all of it, a channel that is closed once the sink has more of the
// journal in which the next take's units were given. Another process may bring that on too,
// of which the channel knows nothing.
func (f *feed) given(ctx context.Context, batch []Entry) ([]Entry, <-chan struct{}, error) {
	sunk := make([]string, len(f.of.buckets))
	next := make([]<-chan struct{}, len(f.of.buckets))
	views := make([]look, len(f.of.buckets))
	for n, e := range batch {
		for _, o := range e.Ops {
			if o.Kind != OpTake {
				continue
			}
			t, err := transferOf(o)
			if err != nil || t.to != f.a.bucket || t.from >= len(sunk) || !entryID.MatchString(t.after) {
				return nil, nil, fmt.Errorf("stock: cannot read take %q in journal %q, written by another version?", o.ID, f.a.journal)
			}
			if sunk[t.from] == "" {
				next[t.from] = f.sunk[t.from].next()
				// The checkpoint first: what the giver knows of after that it knew then.
				if sunk[t.from], err = f.checkpoint(ctx, f.of.buckets[t.from]); err != nil {
					return nil, nil, err
				}
				views[t.from] = f.of.lookAt(ctx, t.from, nil)
				if err := views[t.from].err; err != nil {
					return nil, nil, err
				}
				if gap := views[t.from].gap; gap != "" {
					return nil, nil, f.of.lostIn(t.from, gap)
				}
			}
			l := views[t.from].links[t.to]
			if l.gave < t.seq || l.gave == t.seq && l.after != t.after {
				return nil, nil, f.of.lostIn(t.from, o.ID)
			}
			if !idLess(t.after, sunk[t.from]) {
				return batch[:n], next[t.from], nil
			}
		}
	}
	return batch, nil, nil
}

// transferOf reads what an OpGive or OpTake says of a transfer.
func transferOf(o Op) (transfer, error) {
	t := transfer{items: o.Items, after: o.Reason}
	n, err := fmt.Sscanf(o.ID, "%d>%d#%d", &t.from, &t.to, &t.seq)
	if err != nil || n != 3 || t.from < 0 || t.to < 0 {
		return t, errors.Join(err, errors.New("not a transfer"))
	}
	return t, nil
}

func (t transfer) id() string { return fmt.Sprintf("%d>%d#%d", t.from, t.to, t.seq) }

// reconcileBuckets compares each bucket at a position of its own, and adds them up.
func (a *Activity) reconcileBuckets(ctx context.Context, l Ledger) (Diff, error) {
	all := make([]comparison, len(a.buckets))
	err := together(a.buckets, func(b *Activity) (err error) {
		all[b.bucket], err = b.compare(ctx, l)
		return err
	})
	if err != nil {
		return Diff{}, err
	}
	total := Diff{Redis: map[string]Level{}, Kept: map[string]Level{}, Counted: map[string]Level{}}
	sums := []map[string]Level{total.Redis, total.Kept, total.Counted}
	wrong := map[string]bool{}
	var at []string
	for i, c := range all {
		at = append(at, fmt.Sprintf("%d/%s", i, c.at))
		d := c.diff()
		for _, side := range []map[string]Level{d.Redis, d.Kept, d.Counted} {
			for sku := range side {
				wrong[sku] = true
			}
		}
	}
	for sku := range wrong {
		for _, c := range all {
			for i, side := range c.sides {
				if l, ok := side[sku]; ok {
					s := sums[i][sku]
					sums[i][sku] = Level{Left: s.Left + l.Left, Reserved: s.Reserved + l.Reserved, Sold: s.Sold + l.Sold}
				}
			}
		}
	}
	total.At = strings.Join(at, " ")
	return total, nil
}

package lock

import (
	"context"
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/script"
)

// pipelined is how many renewals share a round trip.
const pipelined = 128

// A wheel renews the terms of a Locker, all that are due in one pipeline, and
// tells those whose validity ends.
type wheel struct {
	l    *Locker
	kick chan struct{} // holds a token when next may be too late

	mu        sync.Mutex
	started   bool
	terms     map[*term]struct{}
	next      time.Time // when the goroutine wakes; zero: not before a kick
	abandoned error     // why no term is renewed any more
}

func newWheel(l *Locker) *wheel {
	return &wheel{l: l, kick: make(chan struct{}, 1), terms: map[*term]struct{}{}}
}

// add has t renewed until it is over. A term lives for a third of its TTL before
// it needs anything and the wheel wakes at least that often while there are any,
// so that it is hardly ever woken for a new one.
func (w *wheel) add(t *term) {
	t.mu.Lock()
	due := t.renewAt
	t.mu.Unlock()
	w.mu.Lock()
	if cause := w.abandoned; cause != nil {
		w.mu.Unlock()
		t.lose(cause)
		return
	}
	defer w.mu.Unlock()
	w.terms[t] = struct{}{}
	if !w.started {
		w.started = w.l.group.Go(w.run)
	}
	if w.next.IsZero() || due.Before(w.next) {
		w.next = due
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// remove forgets a term that is over.
func (w *wheel) remove(t *term) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.terms, t)
}

// abandon loses all terms, those that are added later too.
func (w *wheel) abandon(cause error) {
	w.mu.Lock()
	w.abandoned = cause
	terms := make([]*term, 0, len(w.terms))
	for t := range w.terms {
		terms = append(terms, t)
	}
	clear(w.terms)
	w.mu.Unlock()
	for _, t := range terms {
		t.lose(cause)
	}
}

func (w *wheel) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-timer.C:
		}
		lost, due, next := w.scan(time.Now())
		for _, t := range lost {
			t.lose(ErrLost)
		}
		for s, terms := range due {
			for len(terms) > 0 {
				n := min(len(terms), pipelined)
				batch := terms[:n]
				terms = terms[n:]
				// Not waited for: a connection that hangs must not keep the next
				// attempt, or other leases, from their renewal.
				w.l.group.Go(func(ctx context.Context) { w.renew(ctx, s, batch) })
			}
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// scan looks at every term, and tells when to do so again.
func (w *wheel) scan(now time.Time) (lost []*term, due map[*script.Script][]*term, next time.Time) {
	ttl := w.l.opts.TTL
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.terms {
		what, at := t.due(now, ttl)
		switch what {
		case removal:
			delete(w.terms, t)
			continue
		case loss:
			delete(w.terms, t)
			lost = append(lost, t)
			continue
		case renewal:
			if due == nil {
				due = map[*script.Script][]*term{}
			}
			due[t.renewal] = append(due[t.renewal], t)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	w.next = next
	return lost, due, next
}

// renew extends the terms, which have one script. What fails is left to the next
// attempt; "not yours" is an answer, and ends the term at once.
func (w *wheel) renew(ctx context.Context, s *script.Script, terms []*term) {
	ttl := w.l.opts.TTL
	ctx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	calls := make([]script.Call, len(terms))
	for i, t := range terms {
		calls[i] = t.call
	}
	sent := time.Now()
	replies, errs := s.RunMany(ctx, w.l.rdb, calls)
	for i, t := range terms {
		switch {
		case errs[i] != nil:
			w.l.troubled("renew", errs[i])
		case replies[i] == int64(1):
			w.l.stats.renewals.Add(1)
			t.renewed(sent, ttl)
		default:
			t.lose(ErrLost)
		}
	}
}

// troubled reports that background work failed.
func (l *Locker) troubled(what string, err error) {
	l.stats.failures.Add(1)
	l.opts.Logger.Warn("lock: background work failed", "work", what, "error", err)
}

package shorturl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
)

// loadPatience ends a look into Cache and Store that hangs, and a click that is counted.
const loadPatience = 5 * time.Second

// Resolve returns the link that a code leads to: ErrNotFound, ErrGone, or what the
// Store said when it failed. A link with MaxClicks is counted by it, in the Store;
// any other one comes from this process's memory if it was resolved within
// Options.LocalTTL: no lock, no round trip, no allocation.
func (s *Service) Resolve(ctx context.Context, code string) (Link, error) {
	now := time.Now()
	e := s.atHand(code, now)
	if e == nil {
		var err error
		if e, err = s.load(ctx, code); err != nil {
			return Link{}, err
		}
		now = time.Now()
	}
	e, err := s.follow(ctx, e, now)
	if err != nil {
		return Link{}, err
	}
	return e.link, nil
}

// atHand returns what this process remembers of code; an entry without a code in its
// link says that there is none.
func (s *Service) atHand(code string, now time.Time) *entry {
	if e := s.links.get(code, now); e != nil {
		s.hits.Add(1)
		return e
	}
	if e := s.misses.get(code, now); e != nil {
		s.missed.Add(1)
		return e
	}
	return nil
}

// follow uses a link once, at the time now.
func (s *Service) follow(ctx context.Context, e *entry, now time.Time) (*entry, error) {
	switch l := &e.link; {
	case l.Code == "":
		return nil, fmt.Errorf("shorturl: %q: %w", e.code, ErrNotFound)
	case l.Disabled, !l.Expires.IsZero() && !now.Before(l.Expires):
		return nil, fmt.Errorf("shorturl: %q: %w", e.code, ErrGone)
	case l.MaxClicks == 0:
		return e, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	l, err := s.opts.Store.Count(ctx, e.code, now)
	if err != nil {
		return nil, wrap("count", e.code, err)
	}
	return newEntry(l, now), nil
}

func newEntry(l Link, until time.Time) *entry {
	return &entry{code: l.Code, link: l, until: until, location: []string{l.URL}}
}

// flights makes the callers that want one code at the same time share one look. What
// looks and changes do to the tables they do under mu.
type flights struct {
	mu      sync.Mutex
	by      map[string]*flight
	writing map[string]int // looks that are writing into Cache, by code
}

type flight struct {
	done      chan struct{}
	stale     bool // the link was changed since: what was read may be the old one; under mu
	pastCache bool // Cache may be given an old link at the moment
	e         *entry
	err       error
}

// load looks code up in Guard, Cache and Store, and remembers what it found.
func (s *Service) load(ctx context.Context, code string) (*entry, error) {
	if !wellFormed(code) {
		return nil, fmt.Errorf("shorturl: %.64q: %w", code, ErrNotFound)
	}
	s.loads.mu.Lock()
	f := s.loads.by[code]
	if f == nil {
		f = &flight{done: make(chan struct{}), pastCache: s.loads.writing[code] > 0}
		run := func(ctx context.Context) {
			f.e, f.err = s.look(ctx, code, f)
			s.land(code, f)
			close(f.done)
		}
		s.loads.by[code] = f
		s.loads.mu.Unlock()
		// Whoever comes first may leave; the others still want the answer.
		ctx, cancel := lifetime.Within(ctx, loadPatience)
		if !s.group.Go(func(closing context.Context) {
			defer context.AfterFunc(closing, cancel)()
			defer cancel()
			run(ctx)
		}) {
			defer cancel()
			run(ctx) // closed: without a goroutine that nobody would end
		}
	} else {
		s.loads.mu.Unlock()
	}
	select {
	case <-f.done:
		return f.e, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("shorturl: get %q: %w", code, context.Cause(ctx))
	}
}

func (s *Service) look(ctx context.Context, code string, f *flight) (*entry, error) {
	if s.opts.Guard != nil && !s.opts.Guard.Has(ctx, "code:"+code) {
		s.missed.Add(1)
		return &entry{code: code}, nil
	}
	s.loaded.Add(1)
	if s.opts.Cache != nil && !f.pastCache {
		if l, ok := s.opts.Cache.Get(ctx, code); ok && l.Code == code {
			return newEntry(l, time.Now().Add(s.opts.LocalTTL)), nil
		}
	}
	l, err := s.opts.Store.Get(ctx, code)
	switch {
	case errors.Is(err, ErrNotFound):
		return &entry{code: code, until: time.Now().Add(s.opts.NotFoundTTL)}, nil
	case err != nil:
		s.opts.Logger.Warn("shorturl: the store failed", "code", code, "error", err)
		return nil, wrap("get", code, err)
	}
	if s.opts.Cache != nil {
		s.share(ctx, l, f)
	}
	return newEntry(l, time.Now().Add(s.opts.LocalTTL)), nil
}

// share writes l into Cache, and takes it back if a change overtook it. Until then
// looks go past Cache.
func (s *Service) share(ctx context.Context, l Link, f *flight) {
	s.loads.mu.Lock()
	stale := f.stale
	if !stale {
		s.loads.writing[l.Code]++
	}
	s.loads.mu.Unlock()
	if stale {
		return
	}
	s.opts.Cache.Set(ctx, l)
	s.loads.mu.Lock()
	stale = f.stale
	s.loads.mu.Unlock()
	if stale {
		s.opts.Cache.Delete(ctx, l.Code)
	}
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if s.loads.writing[l.Code]--; s.loads.writing[l.Code] == 0 {
		delete(s.loads.writing, l.Code)
	}
}

// land ends a flight, and remembers what it found unless that may be an old link.
func (s *Service) land(code string, f *flight) {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if f.stale {
		return
	}
	delete(s.loads.by, code)
	switch {
	case f.err != nil || f.e.until.IsZero(): // nothing that holds for longer
	case f.e.link.Code == "":
		s.misses.put(f.e, time.Now())
	default:
		s.links.put(f.e, time.Now())
	}
}

// drop removes what is remembered of code. What is being looked up will not be
// remembered, nor told to anyone who comes from now on.
func (s *Service) drop(code string) {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if f := s.loads.by[code]; f != nil {
		f.stale = true
		delete(s.loads.by, code)
	}
	s.links.remove(code)
	s.misses.remove(code)
}

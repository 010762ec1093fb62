package shorturl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxOwner = 128  // bytes
	maxList  = 1000 // links
)

// Shorten makes a link, or, with Request.OneToOne, returns the one that is there.
// A lost race for it returns the winner's link. A URL that is not plainly safe is
// ErrUnsafe, an alias that is in use or reserved ErrTaken.
func (s *Service) Shorten(ctx context.Context, r Request) (Link, error) {
	select {
	case <-s.closing:
		return Link{}, ErrClosed
	default:
	}
	l, err := s.link(ctx, r)
	if err != nil {
		return Link{}, err
	}
	if r.Alias != "" {
		if err := s.checkAlias(r.Alias); err != nil {
			return Link{}, err
		}
	}
	digest := ""
	if r.OneToOne {
		if r.Alias != "" || !r.Expires.IsZero() || r.MaxClicks != 0 {
			return Link{}, fmt.Errorf("%w: Request.OneToOne excludes Alias, Expires and MaxClicks", ErrInvalid)
		}
		digest = digestOf(l.URL, l.Owner)
		if s.opts.Guard == nil || s.opts.Guard.Has(ctx, "digest:"+digest) {
			found, err := s.opts.Store.Find(ctx, digest)
			if !errors.Is(err, ErrNotFound) {
				return found, wrap("find", l.URL, err)
			}
		}
	}
	l.Created = time.Now().UTC().Truncate(time.Millisecond)
	for try := range tries {
		l.Code = r.Alias
		if r.Alias == "" {
			if l.Code, err = s.code(ctx, l, try); err != nil {
				return Link{}, wrap("make a code for", l.URL, err)
			}
			if s.reserved[strings.ToLower(l.Code)] {
				continue
			}
		}
		// Before the insert: a link that is there but unknown to the Guard would not be
		// found, while one that the Guard expects in vain costs one look.
		if s.opts.Guard != nil {
			s.opts.Guard.Add(ctx, "code:"+l.Code)
			if digest != "" {
				s.opts.Guard.Add(ctx, "digest:"+digest)
			}
		}
		got, err := s.opts.Store.Insert(ctx, l, digest)
		if errors.Is(err, ErrTaken) && r.Alias == "" {
			continue
		}
		if err != nil {
			return Link{}, wrap("insert", l.Code, err)
		}
		s.forget(ctx, got.Code)
		return got, nil
	}
	return Link{}, fmt.Errorf("shorturl: %d codes in a row: %w; Options.Length %d is too short", tries, ErrTaken, s.opts.Length)
}

// Update gives a link another URL, end, MaxClicks, Permanent and PassQuery: those of
// the Request, whose other fields are ignored except that Owner, if not empty, must be
// the link's. A disabled link stays disabled. Other processes see it after
// Options.LocalTTL at the latest.
func (s *Service) Update(ctx context.Context, code string, r Request) (Link, error) {
	want, err := s.link(ctx, r)
	if err != nil {
		return Link{}, err
	}
	l, err := s.Get(ctx, code)
	if err != nil {
		return Link{}, err
	}
	if r.Owner != "" && r.Owner != l.Owner {
		return Link{}, fmt.Errorf("shorturl: update %q: %w", code, ErrNotFound)
	}
	l.URL, l.Expires, l.MaxClicks, l.Permanent, l.PassQuery = want.URL, want.Expires, want.MaxClicks, want.Permanent, want.PassQuery
	return l, s.update(ctx, l)
}

// Disable ends a link for good: ErrGone from then on, in other processes after
// Options.LocalTTL at the latest.
func (s *Service) Disable(ctx context.Context, code string) error {
	l, err := s.Get(ctx, code)
	if err != nil {
		return err
	}
	l.Disabled = true
	return s.update(ctx, l)
}

// Delete removes a link; one that is not there is no error. An alias is free
// again; a generated code is not made a second time by Sequential.
func (s *Service) Delete(ctx context.Context, code string) error {
	if !wellFormed(code) {
		return nil
	}
	err := s.opts.Store.Delete(ctx, code)
	s.forget(ctx, code)
	return wrap("delete", code, err)
}

// Get returns a link as the Store has it, whether it is alive or not.
func (s *Service) Get(ctx context.Context, code string) (Link, error) {
	if !wellFormed(code) {
		return Link{}, fmt.Errorf("shorturl: %.64q: %w", code, ErrNotFound)
	}
	l, err := s.opts.Store.Get(ctx, code)
	return l, wrap("get", code, err)
}

// List returns up to limit links of an owner, 1 to 1,000, by code; after is the code
// to go on from, empty to begin.
func (s *Service) List(ctx context.Context, owner, after string, limit int) ([]Link, error) {
	switch {
	case limit < 1 || limit > maxList:
		return nil, fmt.Errorf("%w: limit %d, want 1 to %d", ErrInvalid, limit, maxList)
	case !isOwner(owner):
		return nil, fmt.Errorf("%w: owner %.128q, want at most %d bytes of UTF-8 without NUL", ErrInvalid, owner, maxOwner)
	case after != "" && !wellFormed(after):
		return nil, fmt.Errorf("%w: after %.64q, want the code of a link", ErrInvalid, after)
	}
	links, err := s.opts.Store.List(ctx, owner, after, limit)
	return links, wrap("list", owner, err)
}

// link checks what Shorten and Update have in common.
func (s *Service) link(ctx context.Context, r Request) (Link, error) {
	url, err := s.normalise(ctx, r.URL)
	switch {
	case err != nil:
		return Link{}, err
	case !isOwner(r.Owner):
		return Link{}, fmt.Errorf("%w: Request.Owner %.128q, want at most %d bytes of UTF-8 without NUL", ErrInvalid, r.Owner, maxOwner)
	case r.MaxClicks < 0:
		return Link{}, fmt.Errorf("%w: Request.MaxClicks %d, want at least 0", ErrInvalid, r.MaxClicks)
	case !r.Expires.IsZero() && (r.Expires.Unix() < 1 || r.Expires.UTC().Year() > 9999):
		return Link{}, fmt.Errorf("%w: Request.Expires %v, want a time after 1970 and before the year 10000", ErrInvalid, r.Expires)
	}
	l := Link{URL: url, Owner: r.Owner, MaxClicks: r.MaxClicks, Permanent: r.Permanent, PassQuery: r.PassQuery}
	if !r.Expires.IsZero() {
		l.Expires = r.Expires.UTC().Truncate(time.Millisecond)
	}
	return l, nil
}

// isOwner reports whether every Store can keep owner.
func isOwner(owner string) bool {
	return len(owner) <= maxOwner && utf8.ValidString(owner) && !strings.ContainsRune(owner, 0)
}

func (s *Service) update(ctx context.Context, l Link) error {
	err := s.opts.Store.Update(ctx, l)
	s.forget(ctx, l.Code)
	return wrap("update", l.Code, err)
}

// forget makes every Resolve that begins after it ask the Store. It drops twice: what
// has read the old link before must not give it to Cache after the Delete, and what
// began before the Delete may have read it there.
func (s *Service) forget(ctx context.Context, code string) {
	s.drop(code)
	if s.opts.Cache != nil {
		s.opts.Cache.Delete(ctx, code)
		s.drop(code)
	}
}

func wrap(verb, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("shorturl: %s %q: %w", verb, what, err)
}

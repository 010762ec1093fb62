package shorturl

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// looks counts the calls that reach a Store.
type looks struct {
	store Store
	n     int
}

func (l *looks) Insert(ctx context.Context, link Link, digest string) (Link, error) {
	l.n++
	return l.store.Insert(ctx, link, digest)
}

func (l *looks) Get(ctx context.Context, code string) (Link, error) {
	l.n++
	return l.store.Get(ctx, code)
}

func (l *looks) Find(ctx context.Context, digest string) (Link, error) {
	l.n++
	return l.store.Find(ctx, digest)
}

func (l *looks) Update(ctx context.Context, link Link) error {
	l.n++
	return l.store.Update(ctx, link)
}

func (l *looks) Delete(ctx context.Context, code string) error {
	l.n++
	return l.store.Delete(ctx, code)
}

func (l *looks) List(ctx context.Context, owner, after string, limit int) ([]Link, error) {
	l.n++
	return l.store.List(ctx, owner, after, limit)
}

func (l *looks) Count(ctx context.Context, code string, now time.Time) (Link, error) {
	l.n++
	return l.store.Count(ctx, code, now)
}

// What doc.go says that calls cost.
func TestCostPerCall(t *testing.T) {
	store := &looks{store: MemoryStore()}
	s := service(t, Options{Store: store})
	ctx := t.Context()
	known, cold := shorten(t, s, Request{}), shorten(t, s, Request{})
	few := shorten(t, s, Request{MaxClicks: 10})
	for _, code := range []string{known.Code, few.Code} {
		_, err := s.Resolve(ctx, code)
		require.NoError(t, err)
	}
	resolve := func(code string) func() error {
		return func() error { _, err := s.Resolve(ctx, code); return err }
	}
	make := func(r Request) func() error {
		r.URL = "https://example.com/cost"
		return func() error { _, err := s.Shorten(ctx, r); return err }
	}
	for _, step := range []struct {
		name  string
		looks int
		call  func() error
	}{
		{"Resolve, at hand", 0, resolve(known.Code)},
		{"Resolve, not at hand", 1, resolve(cold.Code)},
		{"Resolve, MaxClicks", 1, resolve(few.Code)},
		{"Shorten", 1, make(Request{})},
		{"Shorten, OneToOne, new", 2, make(Request{OneToOne: true})},
		{"Shorten, OneToOne, there", 1, make(Request{OneToOne: true})},
		{"Update", 2, func() error { _, err := s.Update(ctx, known.Code, Request{URL: "https://example.com"}); return err }},
		{"Disable", 2, func() error { return s.Disable(ctx, known.Code) }},
		{"Delete", 1, func() error { return s.Delete(ctx, known.Code) }},
		{"List", 1, func() error { _, err := s.List(ctx, "", "", 10); return err }},
	} {
		before := store.n
		require.NoError(t, step.call(), step.name)
		assert.Equal(t, step.looks, store.n-before, step.name)
	}
}

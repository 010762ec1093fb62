package shorturl

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// MemoryStore returns a Store in this process's memory, for tests and small tools.
// List is O(links).
func MemoryStore() Store {
	return &memoryStore{links: map[string]*kept{}, digests: map[string]string{}}
}

type memoryStore struct {
	mu      sync.Mutex
	links   map[string]*kept
	digests map[string]string // to codes
}

type kept struct {
	Link
	digest string
}

func (m *memoryStore) Insert(_ context.Context, l Link, digest string) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if code, ok := m.digests[digest]; ok && digest != "" {
		return m.links[code].Link, nil
	}
	if m.links[l.Code] != nil {
		return Link{}, ErrTaken
	}
	m.links[l.Code] = &kept{l, digest}
	if digest != "" {
		m.digests[digest] = l.Code
	}
	return l, nil
}

func (m *memoryStore) Get(_ context.Context, code string) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.links[code]; k != nil {
		return k.Link, nil
	}
	return Link{}, ErrNotFound
}

func (m *memoryStore) Find(_ context.Context, digest string) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if code, ok := m.digests[digest]; ok {
		return m.links[code].Link, nil
	}
	return Link{}, ErrNotFound
}

func (m *memoryStore) Update(_ context.Context, l Link) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.links[l.Code]
	if k == nil {
		return ErrNotFound
	}
	l.Disabled = l.Disabled || k.Disabled
	if !keepsDigest(l) || l.URL != k.URL {
		delete(m.digests, k.digest)
		k.digest = ""
	}
	l.Owner, l.Created, l.Clicks = k.Owner, k.Created, k.Clicks
	k.Link = l
	return nil
}

// keepsDigest reports whether others may still be given l for its URL.
func keepsDigest(l Link) bool { return !l.Disabled && l.Expires.IsZero() && l.MaxClicks == 0 }

func (m *memoryStore) Delete(_ context.Context, code string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.links[code]; k != nil {
		delete(m.digests, k.digest)
		delete(m.links, code)
	}
	return nil
}

func (m *memoryStore) List(_ context.Context, owner, after string, limit int) ([]Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Link
	for _, k := range m.links {
		if k.Owner == owner && k.Code > after {
			out = append(out, k.Link)
		}
	}
	slices.SortFunc(out, func(a, b Link) int { return strings.Compare(a.Code, b.Code) })
	return out[:min(limit, len(out))], nil
}

func (m *memoryStore) Count(_ context.Context, code string, now time.Time) (Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.links[code]
	switch {
	case k == nil:
		return Link{}, ErrNotFound
	case !k.alive(now):
		return Link{}, ErrGone
	}
	k.Clicks++
	return k.Link, nil
}

// alive reports whether l may be followed.
func (l *Link) alive(now time.Time) bool {
	return !l.Disabled && (l.Expires.IsZero() || now.Before(l.Expires)) && (l.MaxClicks == 0 || l.Clicks < l.MaxClicks)
}

package idgen

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errDown = errors.New("down")

// A memory is a Store for tests that can be slow, be down and forget.
type memory struct {
	mu       sync.Mutex
	next     map[string]int64
	down     bool
	delay    time.Duration
	claims   int
	inFlight int
	most     int // claims in flight at once
	naive    bool
}

func (m *memory) Claim(ctx context.Context, biz string, step int64) (Range, error) {
	m.mu.Lock()
	m.claims++
	m.inFlight++
	m.most = max(m.most, m.inFlight)
	delay, down := m.delay, m.down
	read := m.next[biz]
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.inFlight--
		m.mu.Unlock()
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return Range{}, ctx.Err()
		}
	}
	if down {
		return Range{}, errDown
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.next == nil {
		m.next = map[string]int64{}
	}
	if !m.naive {
		read = m.next[biz]
	}
	m.next[biz] = read + step
	return Range{First: read + 1, Count: step}, nil
}

func (m *memory) set(f func(m *memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// counts are what a test asks a memory.
type counts struct {
	next                   int64
	claims, inFlight, most int
}

func (m *memory) get() counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return counts{m.next["order"], m.claims, m.inFlight, m.most}
}

package coalesce

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// naive merges calls with a mistake of choice.
type naive struct {
	flush   flusher
	opts    Options
	mistake string

	mu     sync.Mutex
	queues map[string][]*naiveCall // the queue of a lane, there while it flies
	ids    map[string]*naiveCall
}

type naiveCall struct {
	q       request
	tries   int
	sent    bool
	waiters int
	done    chan struct{}
	r       reply
	err     error
}

func (m *naive) Do(ctx context.Context, lane, id string, q request, size int) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, ErrUnsent
	}
	key := q.key()
	if m.mistake == "joins by lane only" {
		key = lane
	}
	m.mu.Lock()
	c := m.ids[key]
	if c == nil || c.sent && m.mistake != "joins an id that flies" {
		c = &naiveCall{q: q, done: make(chan struct{})}
		m.ids[key] = c
		queue, flies := m.queues[lane]
		m.queues[lane] = append(queue, c)
		if !flies || m.mistake == "opens flights at will" {
			go m.fly(context.WithoutCancel(ctx), lane)
		}
	}
	c.waiters++
	m.mu.Unlock()
	if m.mistake == "does not let go" {
		<-c.done
		return c.r, c.err
	}
	select {
	case <-c.done:
		return c.r, c.err
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		c.waiters--
		if c.sent || c.waiters > 0 {
			return reply{}, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
		}
		if m.mistake != "sends what was left" && m.ids[key] == c {
			delete(m.ids, key)
		}
		return reply{}, fmt.Errorf("%w: %w", ErrUnsent, ctx.Err())
	}
}

func (m *naive) fly(ctx context.Context, lane string) {
	m.mu.Lock()
	var batch []*naiveCall
	var qs []request
	bytes := 0
	queue := m.queues[lane]
	for len(queue) > 0 {
		c := queue[0]
		if c.waiters > 0 || m.mistake == "sends what was left" {
			full := len(batch) == m.opts.MaxItems || len(batch) > 0 && bytes+c.q.size > m.opts.MaxBytes
			if full && m.mistake != "knows no limit" {
				break
			}
			c.sent = true
			bytes += c.q.size
			batch, qs = append(batch, c), append(qs, c.q)
		}
		queue = queue[1:]
	}
	m.queues[lane] = queue
	if len(batch) == 0 {
		delete(m.queues, lane)
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	defer m.fly(ctx, lane) // also after a Goexit
	rs, err := m.try(ctx, lane, qs)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range batch {
		if c.tries++; err != nil && c.waiters > 0 && c.tries < 3 && m.mistake == "merges what failed with what is new" {
			c.sent = false
			m.queues[lane] = append([]*naiveCall{c}, m.queues[lane]...)
			continue
		}
		if c.err = err; err == nil {
			c.r = rs[i]
			if m.mistake == "mixes up results" {
				c.r = rs[len(rs)-1-i]
			}
		}
		for key, other := range m.ids {
			if other == c {
				delete(m.ids, key)
			}
		}
		close(c.done)
		if err != nil && m.mistake == "fails who waits as well" {
			for _, other := range m.queues[lane] {
				other.r, other.err, other.waiters = reply{}, err, 0
				close(other.done)
				delete(m.ids, other.q.key())
			}
			m.queues[lane] = nil
		}
	}
}

// try survives what the server does to it, in a goroutine of its own.
func (m *naive) try(ctx context.Context, lane string, qs []request) (rs []reply, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if e, is := recover().(error); is {
				err = e
			}
		}()
		err = ErrUnknown
		rs, err = m.flush(ctx, lane, qs)
	}()
	<-done
	return rs, err
}

// Without a mistake naive is right, and with any of them the oracle of the
// stress sees it: nearly always within a hundredth of the stress' calls, and
// surely within a twentieth.
func TestTheOracleCatchesNaiveMerging(t *testing.T) {
	for mistake, fault := range map[string]string{
		"":                                    "",
		"joins by lane only":                  "got the result of request",
		"merges what failed with what is new": "was sent twice",
		"joins an id that flies":              "which was sent before it was made",
		"sends what was left":                 "was sent after its callers left",
		"opens flights at will":               "opened beside",
		"knows no limit":                      "items of",
		"does not let go":                     "with a patience of",
		"mixes up results":                    "got the result of request",
		"fails who waits as well":             "in which it was not",
	} {
		t.Run(mistake, func(t *testing.T) {
			if mistake == "" {
				o := judge(t, 1, 48, 40, stressed, buildNaive(mistake))
				require.Empty(t, o.faults)
				return
			}
			var faults []string
			for seed := range uint64(5) {
				o := judge(t, seed, 48, 4, stressed, buildNaive(mistake))
				faults = slices.AppendSeq(faults, maps.Values(o.faults))
				if strings.Contains(strings.Join(faults, "\n"), fault) {
					break
				}
			}
			require.Contains(t, strings.Join(faults, "\n"), fault)
		})
	}
}

func buildNaive(mistake string) func(flusher, Options) doer {
	return func(f flusher, opts Options) doer {
		return &naive{flush: f, opts: opts, mistake: mistake, queues: map[string][]*naiveCall{}, ids: map[string]*naiveCall{}}
	}
}

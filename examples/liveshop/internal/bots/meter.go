package bots

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
)

// A meter knows how long the calls took, and how they ended.
type meter struct {
	mu    sync.Mutex
	calls map[string]*call // by pattern, without numbers
	total int
}

type call struct {
	took   []time.Duration // of those that were answered
	status map[string]int
}

var number = regexp.MustCompile(`/\d+`)

func (m *meter) saw(pattern string, took time.Duration, err error) {
	pattern = number.ReplaceAllString(pattern, "/{id}")
	status, refused := "200", new(api.Error)
	switch {
	case errors.As(err, &refused):
		status = fmt.Sprintf("%d %s", refused.Status, refused.Code)
	case err != nil:
		status = "no answer"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == nil {
		m.calls = map[string]*call{}
	}
	c := m.calls[pattern]
	if c == nil {
		c = &call{status: map[string]int{}}
		m.calls[pattern] = c
	}
	c.status[status]++
	m.total++
	if err == nil || refused.Status < 500 && refused.Status > 0 {
		c.took = append(c.took, took)
	}
}

// quantile returns how long p of 100 answered calls of a pattern took at most.
func (c *call) quantile(p int) time.Duration {
	if len(c.took) == 0 {
		return 0
	}
	slices.Sort(c.took)
	return c.took[(len(c.took)-1)*p/100]
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// print writes a line per pattern.
func (m *meter) print(out io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var patterns []string
	for pattern := range m.calls {
		patterns = append(patterns, pattern)
	}
	slices.Sort(patterns)
	fmt.Fprintf(out, "%-24s %9s %9s %9s  %s\n", "call", "count", "p50", "p99", "answers")
	for _, pattern := range patterns {
		c, total := m.calls[pattern], 0
		var answers []string
		for status, n := range c.status {
			total += n
			answers = append(answers, fmt.Sprintf("%s: %d", status, n))
		}
		slices.Sort(answers)
		ms := func(p int) string { return fmt.Sprintf("%.1f ms", float64(c.quantile(p).Microseconds())/1000) }
		fmt.Fprintf(out, "%-24s %9d %9s %9s  %s\n", pattern, total, ms(50), ms(99), strings.Join(answers, ", "))
	}
}

package bots

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A shared writer is for several goroutines.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// A progress writes a line a second.
type progress struct {
	out   io.Writer
	began time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out, time.Now()} }

// show shows what line returns, until stop is called, and then once more.
func (p *progress) show(line func() string) (stop func()) {
	print := func() { fmt.Fprintf(p.out, "%5.1f s  %s\n", time.Since(p.began).Seconds(), line()) }
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for t := time.NewTicker(time.Second); ; {
			select {
			case <-t.C:
				print()
			case <-ended:
				t.Stop()
				print()
				return
			}
		}
	}()
	return func() { close(ended); <-gone }
}

// line tells how the sale stands.
func (c *Crowd) line() string {
	paid := c.paid.Load()
	bar := int(20 * paid / max(c.units, 1))
	return fmt.Sprintf("[%-20s] paid %d of %d; %s customers were there, %d walked away without paying, %s calls",
		strings.Repeat("#", min(bar, 20)), paid, c.units, grouped(c.tried.Load()), c.left.Load(), grouped(int64(c.meter.count())))
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

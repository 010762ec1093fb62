package cache

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
)

const (
	maxRedo   = 100_000 // names that wait to be deleted again
	redoBatch = 500
	minRedo   = 100 * time.Millisecond
	maxRedoIn = 5 * time.Second
)

// redo deletes names again for which it failed: the cache is told, and so is the
// caller, who may have nobody to tell. A name stands in it once, and leaves it when
// any later delete or write of it succeeds.
type redo struct {
	group *lifetime.Group
	drop  func(ctx context.Context, names []string) []error
	log   *slog.Logger

	mu      sync.Mutex
	names   map[string]struct{}
	running bool
	lost    uint64
	ended   chan struct{}
	stopped bool
}

func newRedo(group *lifetime.Group, drop func(context.Context, []string) []error, log *slog.Logger) *redo {
	return &redo{group: group, drop: drop, log: log, names: map[string]struct{}{}, ended: make(chan struct{})}
}

func (r *redo) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.names[name]; !ok && len(r.names) >= maxRedo {
		r.lost++
		r.log.Error("cache: a delete that failed is not tried again: too many wait", "key", name)
		return
	}
	r.names[name] = struct{}{}
	if !r.running && !r.stopped {
		r.running = r.group.Go(r.run)
	}
}

func (r *redo) done(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.names, name)
}

// waiting returns how many names wait, and how many were given up.
func (r *redo) waiting() (n int, lost uint64) {
	if r == nil {
		return 0, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.names), r.lost
}

func (r *redo) run(ctx context.Context) {
	pause := minRedo
	for {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-r.ended:
			t.Stop()
			return
		}
		names := r.some()
		if len(names) == 0 {
			return
		}
		failed := slices.DeleteFunc(r.drop(ctx, names), func(err error) bool { return err == nil })
		if len(failed) == 0 { // each of them called done
			pause = minRedo
			continue
		}
		pause = min(2*pause, maxRedoIn)
		r.log.Warn("cache: deleting again failed", "keys", len(failed), "error", failed[0])
	}
}

// some returns names to try, or ends the run.
func (r *redo) some() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, min(len(r.names), redoBatch))
	for name := range r.names {
		if len(names) == redoBatch {
			break
		}
		names = append(names, name)
	}
	r.running = len(names) > 0 && !r.stopped
	return names
}

func (r *redo) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped {
		r.stopped = true
		close(r.ended)
	}
}

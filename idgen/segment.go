package idgen

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
)

// Options of a Segment. The zero value of a field is its default.
type Options struct {
	// Segments is how many a process holds at most, the one in use included; 2 if 0,
	// a double buffer, and 2 to 16. It loses at most so many when it is killed.
	Segments int
	// TargetDuration is how long a segment should last; 15 minutes if 0. One that was
	// used up sooner doubles the next claim, one that lasted twice as long halves it.
	TargetDuration time.Duration
	// MinStep and MaxStep bound the numbers in a claim; 1,000 and 1,000,000 if 0, or
	// as much as the other one demands. The first claim is one of MinStep.
	MinStep, MaxStep int64
	// Logger is told of failing claims; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Segments == 0 {
		o.Segments = 2
	}
	if o.TargetDuration == 0 {
		o.TargetDuration = 15 * time.Minute
	}
	if o.MinStep == 0 {
		o.MinStep = 1000
		if o.MaxStep > 0 {
			o.MinStep = min(o.MinStep, o.MaxStep)
		}
	}
	if o.MaxStep == 0 {
		o.MaxStep = max(1_000_000, o.MinStep)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Segments < 2 || o.Segments > 16:
		return o, fmt.Errorf("%w: Options.Segments %d, want 2 to 16", ErrInvalid, o.Segments)
	case o.TargetDuration < time.Millisecond:
		return o, fmt.Errorf("%w: Options.TargetDuration %v, want at least 1ms", ErrInvalid, o.TargetDuration)
	case o.MinStep < 1 || o.MinStep > maxStep:
		return o, fmt.Errorf("%w: Options.MinStep %d, want 1 to 2^32", ErrInvalid, o.MinStep)
	case o.MaxStep < o.MinStep || o.MaxStep > maxStep:
		return o, fmt.Errorf("%w: Options.MaxStep %d, want MinStep = %d to 2^32", ErrInvalid, o.MaxStep, o.MinStep)
	}
	return o, nil
}

// Stats are counters of this process since NewSegment, and the state of the moment.
type Stats struct {
	Claims   uint64 // ranges that the store handed out
	Failures uint64 // claims that failed, ErrWentBack included
	Waits    uint64 // calls that found no id at hand and had to wait
	Step     int64  // numbers that the next claim asks for
	Left     int64  // ids at hand
}

// A Segment hands out the ids of one biz from ranges that it claims ahead of time,
// so that an id costs a few nanoseconds and an outage of the store is not noticed
// until Runway is over.
//
//   - Next waits for an id if none is at hand.
//   - NextN is Next for many.
//   - TryNext never waits.
//
// Make one per biz and process; a second one wastes segments. Methods may be called
// from many goroutines. Ids increase strictly within a process, unless the store
// is a SteppedStore, and are unique everywhere.
type Segment struct {
	// cur is the segment in use. It is replaced only after the last of its ids was
	// taken, which is why ids increase.
	cur atomic.Pointer[buffer]

	store   Store
	biz     string
	opts    Options
	group   *lifetime.Group
	closing chan struct{}
	waits   atomic.Uint64

	mu      sync.Mutex // guards what follows, and every change of cur
	ahead   []*buffer
	filling bool          // a refill is under way: there is only one
	arrived chan struct{} // closed when waiters should look again
	failure error         // of the latest claim
	final   error         // a failure that does not pass
	closed  bool
	step    int64
	rate    float64         // ids a second of the segment before
	slowest window          // of the latest claims
	seen    map[int64]int64 // the largest number claimed, by the remainder of its stride
	stats   Stats
}

// A buffer is a claimed range that is being used up.
type buffer struct {
	next    atomic.Int64 // index of the next id; runs past count when it is used up
	first   int64
	stride  int64
	count   int64
	trigger int64 // index from which on the next range should be on its way
	asked   atomic.Bool
	since   time.Time // in use
}

// left returns how many ids b still has.
func (b *buffer) left() int64 { return max(0, b.count-b.next.Load()) }

// NewSegment returns a source of ids of the biz, which is 1 to 128 bytes of UTF-8.
// It claims nothing before the first id is asked for.
func NewSegment(store Store, biz string, opts Options) (*Segment, error) {
	if store == nil {
		return nil, fmt.Errorf("%w: store is nil", ErrInvalid)
	}
	if err := checkBiz(biz); err != nil {
		return nil, err
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Segment{
		store: store, biz: biz, opts: opts, step: opts.MinStep, group: lifetime.New(),
		closing: make(chan struct{}), arrived: make(chan struct{}), seen: map[int64]int64{},
	}
	s.cur.Store(new(buffer))
	return s, nil
}

// Next returns an id. It waits while none is at hand, until ctx ends: then
// ErrUnavailable, with the cause of the last failed claim. An id that is at hand is
// returned even if ctx has ended. No round trip, no allocation.
func (s *Segment) Next(ctx context.Context) (int64, error) {
	b := s.cur.Load()
	if i := b.next.Add(1) - 1; i < b.trigger {
		return b.first + i*b.stride, nil
	} else if i < b.count {
		s.approach(b)
		return b.first + i*b.stride, nil
	}
	return s.wait(ctx)
}

// NextN returns n ids in ascending order, 1 to 1,000,000; they need not be
// consecutive. If ctx ends first, those taken so far are lost. It allocates the
// result.
func (s *Segment) NextN(ctx context.Context, n int) ([]int64, error) {
	if n < 1 || n > 1_000_000 {
		return nil, fmt.Errorf("%w: n %d, want 1 to 1,000,000", ErrInvalid, n)
	}
	ids := make([]int64, 0, n)
	for {
		b, want := s.cur.Load(), int64(n-len(ids))
		i := b.next.Add(want) - want
		for end := min(i+want, b.count); i < end; i++ {
			ids = append(ids, b.first+i*b.stride)
		}
		if i >= b.trigger && i <= b.count {
			s.approach(b)
		}
		if len(ids) == n {
			return ids, nil
		}
		id, err := s.wait(ctx)
		if err != nil {
			return nil, err
		}
		if ids = append(ids, id); len(ids) == n {
			return ids, nil
		}
	}
}

// TryNext returns an id if one is at hand, and otherwise sees to it that one will
// be. It never waits.
func (s *Segment) TryNext() (int64, bool) {
	id, _, err := s.take()
	return id, id != 0 && err == nil
}

// Runway returns how long the ids at hand last at the present rate: how long an
// outage of the store goes unnoticed. The rate is that of the segment in use, or in its
// first second that of the one before; in the first second of all it is a guess.
// Without ids used it is the longest Duration.
func (s *Segment) Runway() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	rate := s.rate
	b := s.cur.Load()
	if lasted := time.Since(b.since); b.count > 0 && (lasted >= time.Second || rate == 0) {
		rate = perSecond(b.count-b.left(), lasted)
	}
	left := float64(s.left())
	if left > 0 && left >= rate*(math.MaxInt64/1e9) {
		return math.MaxInt64
	}
	if left == 0 {
		return 0
	}
	return time.Duration(left / rate * 1e9)
}

// Stats returns the counters. It does no I/O.
func (s *Segment) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Waits, st.Step, st.Left = s.waits.Load(), s.step, s.left()
	return st
}

// Close ends waiting calls and later ones with ErrClosed. The ids at hand are
// lost. It waits for a claim in flight, and cancels it when ctx ends. The store
// stays open.
func (s *Segment) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.ahead = nil
		s.cur.Store(new(buffer))
		s.wake()
		close(s.closing)
	}
	s.mu.Unlock()
	if err := s.group.Drain(ctx); err != nil {
		return fmt.Errorf("idgen: biz %q: a claim was cancelled by Close: %w", s.biz, err)
	}
	return nil
}

// left is under s.mu.
func (s *Segment) left() int64 {
	n := s.cur.Load().left()
	for _, b := range s.ahead {
		n += b.count
	}
	return n
}

package overload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("overload: invalid argument")
	// ErrClosed is a Redis client that was closed.
	ErrClosed = errors.New("overload: closed")
	// ErrUnavailable is Redis refusing to flip a switch: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is Redis not answering: the switch may be flipped. Flip it again.
	ErrUnknown = script.ErrUnknown
)

// Options of Switches. The zero value of a field is its default.
type Options struct {
	// Prefix of the key; "spillway" if empty.
	Prefix string
	// Name keeps the switches of services apart; "switches" if empty.
	Name string
	// Every is how often Run reads the switches; 1 s if 0, at least 10 ms.
	Every time.Duration
	// OnChange is told of every switch that changes in this process, one after the
	// other. It must neither block long nor flip a switch.
	OnChange func(name string, on bool)
}

// Switches name what can be left out under load: recommendations, say. All are off
// until somebody flips them. Methods may be called from many goroutines.
type Switches struct {
	rdb  redis.UniversalClient
	opts Options
	key  string
	on   atomic.Pointer[map[string]bool] // what counts
	read atomic.Int64                    // when Redis was, in Unix ns

	mu    sync.Mutex
	fleet map[string]bool // as Redis said
	here  map[string]bool // of this process
	sets  int             // so far: what was read before one is too old
}

// NewSwitches returns the switches of that name on Redis, or, if rdb is nil, of this
// process alone. It makes no call: Run does.
func NewSwitches(rdb redis.UniversalClient, opts Options) (*Switches, error) {
	if rdb != nil && script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is a nil %T; nil itself means this process alone", ErrInvalid, rdb)
	}
	if opts.Name == "" {
		opts.Name = "switches"
	}
	if opts.Every == 0 {
		opts.Every = time.Second
	}
	if opts.Every < 10*time.Millisecond {
		return nil, fmt.Errorf("%w: Options.Every %v, want at least 10ms", ErrInvalid, opts.Every)
	}
	s := &Switches{rdb: rdb, opts: opts, here: make(map[string]bool),
		key: key.New(opts.Prefix, "overload", 1, opts.Name).Key("switches")}
	s.on.Store(&map[string]bool{})
	return s, nil
}

// On reports whether a switch is on. It costs a look-up.
func (s *Switches) On(name string) bool { return (*s.on.Load())[name] }

// All returns the switches that somebody has flipped, and how they stand.
func (s *Switches) All() map[string]bool { return maps.Clone(*s.on.Load()) }

// Set flips a switch for all processes, for this one at once. One round trip; without
// Redis it is SetHere. A switch without a name is ErrInvalid.
func (s *Switches) Set(ctx context.Context, name string, on bool) error {
	if name == "" {
		return fmt.Errorf("%w: the name of the switch is empty", ErrInvalid)
	}
	if s.rdb == nil {
		s.SetHere(name, on)
		return nil
	}
	value := "0"
	if on {
		value = "1"
	}
	// Setting it twice is setting it, so that go-redis may repeat this.
	if err := s.rdb.HSet(ctx, s.key, name, value).Err(); err != nil {
		outcome := ErrUnknown
		var reply redis.Error
		switch {
		case errors.Is(err, redis.ErrClosed):
			outcome = ErrClosed
		case errors.As(err, &reply):
			outcome = ErrUnavailable
		}
		return fmt.Errorf("overload: switch %.200q: %w: %w", name, outcome, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fleet := maps.Clone(s.fleet)
	if fleet == nil {
		fleet = make(map[string]bool)
	}
	fleet[name] = on
	s.fleet = fleet
	s.sets++
	s.apply()
	return nil
}

// SetHere flips a switch in this process, whatever the fleet's says, until Follow.
func (s *Switches) SetHere(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here[name] = on
	s.apply()
}

// Follow ends a SetHere.
func (s *Switches) Follow(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.here, name)
	s.apply()
}

// apply makes what was set count, and tells of what changed.
func (s *Switches) apply() {
	was := *s.on.Load()
	now := maps.Clone(s.fleet)
	if now == nil {
		now = make(map[string]bool)
	}
	maps.Copy(now, s.here)
	s.on.Store(&now)
	if s.opts.OnChange == nil {
		return
	}
	for name, on := range now {
		if was[name] != on {
			s.opts.OnChange(name, on)
		}
	}
	for name, on := range was {
		if _, ok := now[name]; !ok && on {
			s.opts.OnChange(name, false)
		}
	}
}

// Run reads the switches from Redis until ctx ends, and returns nil. While Redis does
// not answer they stay as they are. Without Redis it only waits.
func (s *Switches) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opts.Every)
	defer tick.Stop()
	for {
		if s.rdb != nil {
			s.mu.Lock()
			sets := s.sets
			s.mu.Unlock()
			if values, err := s.rdb.HGetAll(ctx, s.key).Result(); err == nil {
				s.replace(values, sets)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// replace takes in what was read when so many sets had been made.
func (s *Switches) replace(values map[string]string, sets int) {
	fleet := make(map[string]bool, len(values))
	for name, v := range values {
		fleet[name] = v == "1"
	}
	s.read.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if sets == s.sets && !maps.Equal(fleet, s.fleet) {
		s.fleet = fleet
		s.apply()
	}
}

// Read returns when Run last read the switches from Redis; zero if never.
func (s *Switches) Read() time.Time {
	if ns := s.read.Load(); ns > 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

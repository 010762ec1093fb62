package hotkey

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// CopiesOptions are the options of Copies. Give every process the same. The zero
// value of a field is its default.
type CopiesOptions struct {
	// Prefix of every name; "spillway" if empty.
	Prefix string
	// Copies is how many a key has; 6 if 0, from 2 to 64.
	Copies int
	// TTL is what Copies.TTL returns, more or less: how long a copy may be stale whose
	// write failed; 5 s if 0, from 100 ms to 1 hour.
	TTL time.Duration
	// Master, if given, names the server that has a Cluster slot, 0 to 16383; the
	// copies then lie on as many servers as there are. It is asked for every slot in
	// NewCopies and not later.
	Master func(slot int) string
	// Keys is of how many keys the names and versions are remembered at least; 256 if
	// 0, at most 4,096. Hot keys are few: this is for them alone.
	Keys int
}

func (o CopiesOptions) withDefaults() (CopiesOptions, error) {
	if o.Copies == 0 {
		o.Copies = 6
	}
	if o.TTL == 0 {
		o.TTL = 5 * time.Second
	}
	if o.Keys == 0 {
		o.Keys = 256
	}
	switch {
	case o.Copies < 2 || o.Copies > 64:
		return o, fmt.Errorf("%w: CopiesOptions.Copies %d, want 2 to 64", ErrInvalid, o.Copies)
	case o.TTL < 100*time.Millisecond || o.TTL > time.Hour:
		return o, fmt.Errorf("%w: CopiesOptions.TTL %v, want 100ms to 1h", ErrInvalid, o.TTL)
	case o.Keys < 1 || o.Keys > 4096:
		return o, fmt.Errorf("%w: CopiesOptions.Keys %d, want 1 to 4096", ErrInvalid, o.Keys)
	}
	return o, nil
}

// Copies names the copies of hot keys and keeps their readers from going back in
// time. Write a value with its version under all of WriteKeys, each with TTL as its
// time to live; read it under ReadKey or StickyKey; if Accept refuses the version
// found, or nothing is found, read the original. Methods may be called from many
// goroutines.
type Copies struct {
	opts    CopiesOptions
	namer   namer
	recent  atomic.Pointer[generation]
	rotates sync.Mutex // over who replaces recent
}

// A hotKey is what is remembered of a key.
type hotKey struct {
	names []string
	seen  atomic.Int64 // the newest version accepted
}

// A generation holds the keys used since it began, at most CopiesOptions.Keys, and
// those of the one before. It never changes: hot keys are few and stay, so that a
// new one may cost a copy of the map, and reads no lock.
type generation struct{ young, old map[string]*hotKey }

// NewCopies returns copies of nothing yet.
func NewCopies(opts CopiesOptions) (*Copies, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Copies{opts: opts, namer: newNamer(opts)}
	c.recent.Store(&generation{})
	return c, nil
}

// ReadKey returns the name of one copy of key, a different one each time, as chance
// has it.
func (c *Copies) ReadKey(key string) string {
	names := c.of(key).names
	return names[rand.IntN(len(names))]
}

// StickyKey returns the name of the copy of key that is caller's: always the same,
// so that what a caller reads does not jump between copies.
func (c *Copies) StickyKey(key, caller string) string {
	names := c.of(key).names
	return names[xxhash.Sum64String(caller)%uint64(len(names))]
}

// WriteKeys appends to dst the names of all copies of key.
func (c *Copies) WriteKeys(key string, dst []string) []string {
	return append(dst, c.of(key).names...)
}

// Accept reports whether a version of key, just read, is no older than what this
// process has accepted before, and remembers it. Versions are positive.
func (c *Copies) Accept(key string, version int64) bool {
	k := c.of(key)
	for {
		seen := k.seen.Load()
		if version < seen {
			return false
		}
		if version == seen || k.seen.CompareAndSwap(seen, version) {
			return true
		}
	}
}

// TTL returns how long a copy should live that is written now: CopiesOptions.TTL
// less up to a tenth, as chance has it, so that copies written together do not
// expire together.
func (c *Copies) TTL() time.Duration {
	return c.opts.TTL - rand.N(c.opts.TTL/10)
}

func (c *Copies) of(key string) *hotKey {
	if k := c.recent.Load().young[key]; k != nil {
		return k
	}
	return c.remember(key)
}

// remember takes key into the young generation, from the old one if it is there.
func (c *Copies) remember(key string) *hotKey {
	c.rotates.Lock()
	defer c.rotates.Unlock()
	now := c.recent.Load()
	if k := now.young[key]; k != nil {
		return k
	}
	k := now.old[key]
	if k == nil {
		k = &hotKey{names: c.namer.names(key)}
	}
	next := &generation{young: make(map[string]*hotKey, len(now.young)+1), old: now.old}
	if len(now.young) >= c.opts.Keys {
		next.old = now.young
	} else {
		for name, known := range now.young {
			next.young[name] = known
		}
	}
	next.young[key] = k
	c.recent.Store(next)
	return k
}

package hotkey

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/spillway-go/spillway/internal/topk"
)

// ErrInvalid is a bad option; the message names it.
var ErrInvalid = errors.New("hotkey: invalid argument")

const (
	// looks is how often in a half-life it is decided what is hot.
	looks = 8
	// minSamples is how many samples of a key, weighted by age, tell it from noise.
	minSamples = 8
)

// Options of a Detector. The zero value of a field is its default.
type Options struct {
	// Enter is the share of the traffic from which a key is hot; 0.005 if 0, from
	// 0.0001 to 1. At 1 in 10,000 give Keys room.
	Enter float64
	// Leave is the share below which a hot key is hot no more; half of Enter if 0, at
	// most Enter.
	Leave float64
	// MinRate is how many observations a second make a key hot at least, in this
	// process; 100 if 0, -1 for no minimum.
	MinRate float64
	// Sample is of how many observations one is counted; 8 if 0, a power of two up to
	// 1,024. With fewer than 10,000 observations a second take 1.
	Sample int
	// HalfLife is after what time traffic counts half; 500 ms if 0, from 10 ms to 1
	// hour.
	HalfLife time.Duration
	// Keys is how many of the largest keys are watched, and can be hot at once; 64 if
	// 0, at most 1,024.
	Keys int
}

func (o Options) withDefaults() (Options, error) {
	if o.Enter == 0 {
		o.Enter = 0.005
	}
	if o.Leave == 0 {
		o.Leave = o.Enter / 2
	}
	if o.MinRate == 0 {
		o.MinRate = 100
	}
	if o.Sample == 0 {
		o.Sample = 8
	}
	if o.HalfLife == 0 {
		o.HalfLife = 500 * time.Millisecond
	}
	if o.Keys == 0 {
		o.Keys = 64
	}
	switch {
	case !(o.Enter >= 0.0001 && o.Enter <= 1):
		return o, fmt.Errorf("%w: Options.Enter %v, want 0.0001 to 1", ErrInvalid, o.Enter)
	case !(o.Leave > 0 && o.Leave <= o.Enter):
		return o, fmt.Errorf("%w: Options.Leave %v, want above 0 and at most Enter, %v", ErrInvalid, o.Leave, o.Enter)
	case !(o.MinRate > 0 || o.MinRate == -1):
		return o, fmt.Errorf("%w: Options.MinRate %v, want above 0, or -1 for no minimum", ErrInvalid, o.MinRate)
	case o.Sample < 1 || o.Sample > 1024 || bits.OnesCount(uint(o.Sample)) != 1:
		return o, fmt.Errorf("%w: Options.Sample %d, want a power of two up to 1024", ErrInvalid, o.Sample)
	case o.HalfLife < 10*time.Millisecond || o.HalfLife > time.Hour:
		return o, fmt.Errorf("%w: Options.HalfLife %v, want 10ms to 1h", ErrInvalid, o.HalfLife)
	case o.Keys < 1 || o.Keys > 1024:
		return o, fmt.Errorf("%w: Options.Keys %d, want 1 to 1024", ErrInvalid, o.Keys)
	}
	return o, nil
}

// A Detector tells which keys are hot now. It starts no goroutine. Methods may be
// called from many goroutines.
type Detector struct {
	opts Options
	mask uint32
	hot  atomic.Pointer[hotSet] // nil: none

	missed, entered, left atomic.Uint64

	mu     sync.Mutex
	sketch *topk.Sketch
	began  time.Time     // times below count from here: asking for one clock is half the cost
	halved time.Duration // when the counts were
	looked time.Duration // when it was decided what is hot
	window time.Duration // what the counts stood for at halved: halved as they are
}

// NewDetector returns a detector that has seen nothing.
func NewDetector(opts Options) (*Detector, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Detector{
		opts: opts, mask: uint32(opts.Sample - 1), began: time.Now(),
		sketch: topk.New(opts.Keys, rand.Uint64()|1),
	}, nil
}

// Observe counts an access to key, or rather one in Options.Sample. Keys above 512
// bytes count as traffic but are never hot. It never waits: while another goroutine
// counts, the observation is dropped, which Stats.Missed shows and which changes no
// shares.
func (d *Detector) Observe(key string) {
	if rand.Uint32()&d.mask == 0 {
		d.sample(key)
	}
}

func (d *Detector) sample(key string) {
	if !d.mu.TryLock() {
		d.missed.Add(1)
		return
	}
	d.sketch.Add(key, xxhash.Sum64String(key))
	d.look(time.Since(d.began))
	d.mu.Unlock()
}

// Hot reports whether key is hot. It reads one pointer if nothing is.
func (d *Detector) Hot(key string) bool {
	set := d.hot.Load()
	return set != nil && set.has(xxhash.Sum64String(key), key)
}

// A Key is one of the most frequent keys.
type Key struct {
	Name  string
	Share float64 // of the traffic, 0 to 1
	Rate  float64 // observations a second in this process, estimated
	Hot   bool
}

// Top returns the n most frequent keys, or fewer, the most frequent first.
func (d *Detector) Top(n int) []Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Since(d.began)
	d.look(now)
	set, window := d.hot.Load(), (d.window + now - d.halved).Seconds()
	var keys []Key
	for i := range d.sketch.Len() {
		name, hash, count := d.sketch.At(i)
		if count == 0 {
			continue
		}
		k := Key{Name: string(name), Share: float64(count) / d.sketch.Total(), Rate: float64(count) * float64(d.opts.Sample) / window}
		k.Hot = set != nil && set.has(hash, k.Name)
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name)) })
	return keys[:min(max(n, 0), len(keys))]
}

// Stats are counters of this process since NewDetector.
type Stats struct {
	Hot           int    // keys that are hot
	Entered, Left uint64 // how often a key became hot, and how often one ceased to be
	Missed        uint64 // samples dropped because another goroutine was counting
}

// Stats returns the counters. It does no I/O.
func (d *Detector) Stats() Stats {
	s := Stats{Entered: d.entered.Load(), Left: d.left.Load(), Missed: d.missed.Load()}
	if set := d.hot.Load(); set != nil {
		s.Hot = set.n
	}
	return s
}

// look lets the counts age and decides what is hot, if it is time.
func (d *Detector) look(now time.Duration) {
	if now-d.looked < d.opts.HalfLife/looks {
		return
	}
	d.looked = now
	for halvings := 0; now-d.halved >= d.opts.HalfLife; halvings++ {
		if halvings == 64 { // nothing is left of the counts
			d.window, d.halved = 0, now
			break
		}
		d.window = (d.window + d.opts.HalfLife) / 2
		d.halved += d.opts.HalfLife
		d.sketch.Halve()
	}
	d.decide(now)
}

// decide makes a new set if a key enters or leaves.
func (d *Detector) decide(now time.Duration) {
	old := d.hot.Load()
	window := (d.window + now - d.halved).Seconds()
	kept, entered := 0, 0
	isHot := func(i int) (hot, was bool) {
		key, hash, count := d.sketch.At(i)
		was = old != nil && find(old, hash, key)
		share := float64(count) / d.sketch.Total()
		if was {
			return share >= d.opts.Leave, true
		}
		rate := float64(count) * float64(d.opts.Sample) / window
		return count >= minSamples && share >= d.opts.Enter && rate >= d.opts.MinRate, false
	}
	for i := range d.sketch.Len() {
		switch hot, was := isHot(i); {
		case hot && was:
			kept++
		case hot:
			entered++
		}
	}
	had := 0
	if old != nil {
		had = old.n
	}
	if entered == 0 && kept == had {
		return
	}
	d.entered.Add(uint64(entered))
	d.left.Add(uint64(had - kept))
	if kept+entered == 0 {
		d.hot.Store(nil)
		return
	}
	set := newHotSet(kept + entered)
	for i := range d.sketch.Len() {
		if hot, _ := isHot(i); hot {
			key, hash, _ := d.sketch.At(i)
			set.add(hash, string(key))
		}
	}
	d.hot.Store(set)
}

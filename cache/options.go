package cache

import (
	"fmt"
	"log/slog"
	"time"
)

// A Mode is how a value that was loaded gets into Redis.
type Mode int

// The modes. With Lease, one process loads a key at a time, and a Delete or Set
// keeps out whatever was being loaded before it. With AddRefill every process
// loads for itself and stores only where nothing is: what a writer Set is never
// overwritten, but a value loaded before a Delete can come back after it, until
// its TTL. With Plain the last one to store wins.
const (
	Lease Mode = iota
	AddRefill
	Plain
)

// An Outage is what Get does when Redis does not answer and the local level has
// nothing fresh.
type Outage int

// The policies. OutageLoad loads, at most Options.OutageLoads a second in this process,
// then takes what is stale, then fails. OutageStale takes what is stale first.
// OutageFail answers ErrUnavailable. Without a stale value, or without
// Options.StaleFor, "stale" is left out. What is loaded stays in the local level for a
// second.
const (
	OutageLoad Outage = iota
	OutageStale
	OutageFail
)

// Options of a Cache. Give every process the same. The zero value of a field is
// its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Mode is how loads get into Redis; Lease if 0.
	Mode Mode

	// TTL is how long a value is fresh at most, in all levels; 10 minutes if 0, at
	// least 10 ms.
	TTL time.Duration
	// Jitter is by how much the TTL of an entry may be shorter, evenly spread, so
	// that what was stored together does not expire together; a tenth of each TTL if
	// 0, -1 for none. It must be less than TTL, LocalTTL and NotFoundTTL.
	Jitter time.Duration
	// LocalTTL is how long a value stays in the local level before Redis is asked
	// again; a minute or TTL if 0, whichever is less. It never outlives the entry in
	// Redis.
	LocalTTL time.Duration
	// NotFoundTTL is how long "not found" is remembered; 10 s or TTL if 0, whichever is
	// less; -1 for not at all.
	NotFoundTTL time.Duration
	// RefreshAfter is the age from which a value is still answered but loaded again
	// in the background (stale-while-revalidate), less up to Jitter; 0 for never. It
	// must be more than Jitter and less than TTL - Jitter.
	RefreshAfter time.Duration
	// EarlyRefresh loads a value again in the background shortly before its TTL ends,
	// at a random moment that comes the earlier the longer its load takes ("Optimal
	// Probabilistic Cache Stampede Prevention", XFetch). It is the β of that paper: 1
	// if 0; larger is earlier; -1 for never.
	EarlyRefresh float64
	// StaleFor is how long after its TTL a value may be answered when it cannot be
	// loaded; 0 for not at all. Such an answer may also have been deleted by another
	// process while this one could not hear of it.
	StaleFor time.Duration

	// Local is how many entries the local level holds; 10,000 if 0, at most 2^26, -1
	// for no local level.
	Local int
	// MaxValue is the largest value, encoded, that Redis is given, in bytes; 1 MiB if
	// 0. A larger one that was loaded is answered and stays local.
	MaxValue int

	// LoadTimeout is how long one load may take; 5 s if 0. Its lease in Redis lasts a
	// second longer.
	LoadTimeout time.Duration
	// CancelAbandoned cancels a load when nobody waits for it any more. Otherwise it
	// goes on, for those who come next. Loads of GetMany go on in any case.
	CancelAbandoned bool
	// MaxWaiters is how many callers may wait for one key in this process; 65,536 if
	// 0. Further ones get what is stale, or ErrOverloaded, at once.
	MaxWaiters int

	// Timeout is how long Get waits for Redis before it counts as down; 500 ms if 0.
	Timeout time.Duration
	// WhenDown is what Get does then; OutageLoad if 0.
	WhenDown Outage
	// OutageLoads is how many loads a second this process makes while Redis is down;
	// 100 if 0.
	OutageLoads int

	// Guard is how many keys the source has, for the Bloom filter that RunGuard
	// fills; 100,000 if 0, below 2^31. It takes ten bits a key, twice while it is rebuilt.
	Guard int
	// Pending is how many keys may wait to be written behind, or to be deleted a
	// second time; 10,000 if 0.
	Pending int
	// Logger is told of failing background work; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	setDefault(&o.TTL, 10*time.Minute)
	setDefault(&o.LocalTTL, min(o.TTL, time.Minute))
	setDefault(&o.NotFoundTTL, min(o.TTL, 10*time.Second))
	setDefault(&o.EarlyRefresh, 1)
	setDefault(&o.Local, 10_000)
	setDefault(&o.MaxValue, 1<<20)
	setDefault(&o.LoadTimeout, 5*time.Second)
	setDefault(&o.MaxWaiters, 1<<16)
	setDefault(&o.Timeout, 500*time.Millisecond)
	setDefault(&o.OutageLoads, 100)
	setDefault(&o.Guard, 100_000)
	setDefault(&o.Pending, 10_000)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	const most = 365 * 24 * time.Hour
	jitter, least := max(o.Jitter, 0), "0s"
	if jitter > 0 {
		least = "Jitter " + jitter.String()
	}
	switch {
	case o.Mode < Lease || o.Mode > Plain:
		return o, fmt.Errorf("%w: Options.Mode %d, want Lease, AddRefill or Plain", ErrInvalid, o.Mode)
	case o.TTL < 10*time.Millisecond || o.TTL > most:
		return o, fmt.Errorf("%w: Options.TTL %v, want 10ms to a year", ErrInvalid, o.TTL)
	case o.LocalTTL < time.Millisecond || o.LocalTTL > o.TTL:
		return o, fmt.Errorf("%w: Options.LocalTTL %v, want 1ms to TTL %v", ErrInvalid, o.LocalTTL, o.TTL)
	case o.NotFoundTTL != -1 && (o.NotFoundTTL < time.Millisecond || o.NotFoundTTL > o.TTL):
		return o, fmt.Errorf("%w: Options.NotFoundTTL %v, want 1ms to TTL %v, or -1 for none", ErrInvalid, o.NotFoundTTL, o.TTL)
	case o.Jitter < -1:
		return o, fmt.Errorf("%w: Options.Jitter %v, want a duration, or -1 for none", ErrInvalid, o.Jitter)
	case jitter >= o.TTL || jitter >= o.LocalTTL || o.NotFoundTTL != -1 && jitter >= o.NotFoundTTL:
		return o, fmt.Errorf("%w: Options.Jitter %v, want less than TTL %v, LocalTTL %v and NotFoundTTL %v",
			ErrInvalid, o.Jitter, o.TTL, o.LocalTTL, o.NotFoundTTL)
	case o.RefreshAfter < 0 || o.RefreshAfter > 0 && (o.RefreshAfter <= jitter || o.RefreshAfter >= o.TTL-o.jitterOf(o.TTL)):
		return o, fmt.Errorf("%w: Options.RefreshAfter %v, want more than %s and less than TTL - Jitter = %v",
			ErrInvalid, o.RefreshAfter, least, o.TTL-o.jitterOf(o.TTL))
	case o.EarlyRefresh < 0 && o.EarlyRefresh != -1 || !(o.EarlyRefresh <= 1000):
		return o, fmt.Errorf("%w: Options.EarlyRefresh %v, want 0 to 1000, or -1 for never", ErrInvalid, o.EarlyRefresh)
	case o.StaleFor < 0 || o.StaleFor > most:
		return o, fmt.Errorf("%w: Options.StaleFor %v, want 0 to a year", ErrInvalid, o.StaleFor)
	case o.Local < -1 || o.Local > 1<<26:
		return o, fmt.Errorf("%w: Options.Local %d, want 1 to 2^26 entries, or -1 for no local level", ErrInvalid, o.Local)
	case o.MaxValue < 1 || o.MaxValue > 256<<20:
		return o, fmt.Errorf("%w: Options.MaxValue %d, want 1 byte to 256 MiB", ErrInvalid, o.MaxValue)
	case o.LoadTimeout < time.Millisecond || o.LoadTimeout > time.Hour:
		return o, fmt.Errorf("%w: Options.LoadTimeout %v, want 1ms to 1h", ErrInvalid, o.LoadTimeout)
	case o.MaxWaiters < 1:
		return o, fmt.Errorf("%w: Options.MaxWaiters %d, want at least 1", ErrInvalid, o.MaxWaiters)
	case o.Timeout < time.Millisecond || o.Timeout > time.Minute:
		return o, fmt.Errorf("%w: Options.Timeout %v, want 1ms to 1m", ErrInvalid, o.Timeout)
	case o.WhenDown < OutageLoad || o.WhenDown > OutageFail:
		return o, fmt.Errorf("%w: Options.WhenDown %d, want OutageLoad, OutageStale or OutageFail", ErrInvalid, o.WhenDown)
	case o.OutageLoads < 1:
		return o, fmt.Errorf("%w: Options.OutageLoads %d, want at least 1", ErrInvalid, o.OutageLoads)
	case o.Guard < 1 || o.Guard > 1<<31-1:
		return o, fmt.Errorf("%w: Options.Guard %d, want 1 to 2^31 - 1", ErrInvalid, o.Guard)
	case o.Pending < 1:
		return o, fmt.Errorf("%w: Options.Pending %d, want at least 1", ErrInvalid, o.Pending)
	}
	return o, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// jitterOf returns by how much a TTL of d may be shorter.
func (o *Options) jitterOf(d time.Duration) time.Duration {
	switch {
	case o.Jitter < 0:
		return 0
	case o.Jitter == 0:
		return d / 10
	}
	return o.Jitter
}

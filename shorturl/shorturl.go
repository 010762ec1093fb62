package shorturl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/permute"
)

// What a call can answer besides success. Any other error is that of a Store, IDs or
// ban hook, wrapped.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("shorturl: invalid argument")
	// ErrUnsafe is a URL that no link may lead to; the message says why.
	ErrUnsafe = errors.New("shorturl: url refused")
	// ErrTaken is an alias that is in use or reserved.
	ErrTaken = errors.New("shorturl: code is taken")
	// ErrNotFound is a code that no link has.
	ErrNotFound = errors.New("shorturl: no such link")
	// ErrGone is a link that is expired, disabled or used up.
	ErrGone = errors.New("shorturl: link is no more")
	// ErrClosed is a call after Close.
	ErrClosed = errors.New("shorturl: closed")
)

// A Link is a code and where it leads.
type Link struct {
	Code      string
	URL       string // normalised
	Owner     string // who made it, in the application's words
	Created   time.Time
	Expires   time.Time // zero: never
	MaxClicks int64     // 0: any number
	Clicks    int64     // counted, of a link with MaxClicks only
	Permanent bool      // redirect with 301, where nothing speaks against it
	PassQuery bool      // append the query of the request to that of the URL
	Disabled  bool
}

// A Request says what link is wanted.
type Request struct {
	URL       string    // http or https, at most 2,048 bytes
	Owner     string    // at most 128 bytes
	Alias     string    // a code of one's own choice; empty: a generated one
	Expires   time.Time // before the year 10000; zero: never
	MaxClicks int64
	Permanent bool
	PassQuery bool
	// OneToOne returns the link that the owner has for this URL already, if it was
	// made with OneToOne too. It excludes Alias, Expires and MaxClicks.
	OneToOne bool
}

// IDs makes numbers that are never repeated, such as idgen.Segment.
type IDs interface {
	Next(ctx context.Context) (int64, error)
}

// A Store keeps links. The digest of a link, if not empty, is unique among all.
type Store interface {
	// Insert adds a link, or returns the one that has its digest. ErrTaken is a code
	// that is in use.
	Insert(ctx context.Context, l Link, digest string) (Link, error)
	// Get returns a link, Find the one with a digest, or ErrNotFound.
	Get(ctx context.Context, code string) (Link, error)
	Find(ctx context.Context, digest string) (Link, error)
	// Update replaces all but Code, Owner, Created and Clicks, or returns
	// ErrNotFound. A disabled link stays disabled. A link loses its digest if it is
	// disabled, gets an end, or its URL changes.
	Update(ctx context.Context, l Link) error
	// Delete removes a link; one that is not there is no error.
	Delete(ctx context.Context, code string) error
	// List returns up to limit links of an owner with codes above after, by code.
	List(ctx context.Context, owner, after string, limit int) ([]Link, error)
	// Count adds one click and returns the link, in one step, or returns ErrGone if it
	// is disabled, expired by now or used up, ErrNotFound if it is not there.
	Count(ctx context.Context, code string, now time.Time) (Link, error)
}

// A Cache is shared between processes, such as one in Redis, in front of the Store.
// It may forget; Get also returns false when it is down. Its entries should have a TTL:
// a process that reads a link from the Store while another one changes it may put the
// old one back, and a Delete that fails leaves it there.
type Cache interface {
	Get(ctx context.Context, code string) (Link, bool)
	Set(ctx context.Context, l Link)
	Delete(ctx context.Context, code string)
}

// A Guard knows which codes and digests exist, such as a Bloom filter. Has may say
// yes to what was never added, but never no to what any process added: where it
// cannot know, it says yes. A code to which it says no is not found, without asking
// the Store.
type Guard interface {
	Has(ctx context.Context, key string) bool
	Add(ctx context.Context, key string)
}

// Clicks is told of redirects, in batches, by one goroutine.
type Clicks interface {
	Record(ctx context.Context, clicks []Click) error
}

// Codes is how codes are made.
type Codes uint8

// The kinds of codes.
const (
	// Sequential makes a code from an id, shuffled: no two are the same by
	// construction, and neighbours are unrelated. It needs IDs.
	Sequential Codes = iota
	// Digest makes a code from the URL, the owner and Options.Key, and again with a
	// salt if it is taken.
	Digest
	// Random makes a code from random bits, and again if it is taken.
	Random
)

// Options of a Service. The zero value of a field is its default.
type Options struct {
	// IDs makes the numbers behind codes; wanted by Sequential only.
	IDs IDs
	// Store keeps the links; required.
	Store Store
	// Cache is shared between processes; nil for none.
	Cache Cache
	// Guard knows what exists; nil for none.
	Guard Guard
	// Clicks is told of redirects; nil for none.
	Clicks Clicks
	// Codes is how codes are made; Sequential if 0.
	Codes Codes
	// Key shuffles codes and hashes addresses: any bytes, the same in every process,
	// for ever. Required.
	Key []byte
	// Length of generated codes in characters; 7 if 0 (3.5 million million codes), 4 to 10.
	Length int
	// Domains are the service's own host names, to which no link may lead: loops.
	Domains []string
	// Schemes that a URL may have; http and https if empty. Those that run code or
	// carry data, such as javascript, are refused in any case.
	Schemes []string
	// AllowPrivate accepts private, local and other addresses that are not public, and
	// host names without a dot.
	AllowPrivate bool
	// Ban is asked last whether a URL may be linked to; its error is returned. nil
	// bans nothing.
	Ban func(ctx context.Context, u *url.URL) error
	// Reserved words are no aliases, in any case, beside a few that are built in.
	Reserved []string
	// Local is how many links this process remembers; 65,536 if 0, -1 for none.
	Local int
	// LocalTTL is for how long, and so how long other processes redirect a link that
	// was changed or disabled in this one; 10 s if 0, at most 1 hour.
	LocalTTL time.Duration
	// NotFoundTTL is how long a code is remembered not to exist; 5 s if 0, -1 for not at all.
	NotFoundTTL time.Duration
	// Limit is asked before a code that is not at hand is looked up for a request;
	// false answers 429. nil allows all.
	Limit func(r *http.Request) bool
	// Address returns the address of a request's client; nil takes that of the
	// connection, which behind a proxy is the proxy's.
	Address func(r *http.Request) string
	// Authenticate names the owner on whose behalf a request of the API acts; false is
	// answered 401. nil refuses all.
	Authenticate func(r *http.Request) (owner string, ok bool)
	// Logger is told of failing stores and click records; nil is silent.
	Logger *slog.Logger
}

// Stats are counters of this process since New.
type Stats struct {
	Hits    uint64 // resolved from this process's memory
	Misses  uint64 // codes known not to exist, from memory or the Guard
	Loads   uint64 // looked up in Cache or Store
	Clicks  uint64 // recorded
	Dropped uint64 // clicks lost, because Clicks was slow or failed
}

func (o Options) withDefaults() (Options, error) {
	if o.Length == 0 {
		o.Length = 7
	}
	if o.Local == 0 {
		o.Local = 65_536
	}
	if o.LocalTTL == 0 {
		o.LocalTTL = 10 * time.Second
	}
	if o.NotFoundTTL == 0 {
		o.NotFoundTTL = 5 * time.Second
	}
	if len(o.Schemes) == 0 {
		o.Schemes = []string{"http", "https"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Store == nil:
		return o, fmt.Errorf("%w: Options.Store is nil", ErrInvalid)
	case o.Codes > Random:
		return o, fmt.Errorf("%w: Options.Codes %d, want Sequential, Digest or Random", ErrInvalid, o.Codes)
	case o.Codes == Sequential && o.IDs == nil:
		return o, fmt.Errorf("%w: Options.IDs is nil, and Sequential codes need them", ErrInvalid)
	case len(o.Key) == 0:
		return o, fmt.Errorf("%w: Options.Key is empty", ErrInvalid)
	case o.Length < 4 || o.Length > 10:
		return o, fmt.Errorf("%w: Options.Length %d, want 4 to 10", ErrInvalid, o.Length)
	case o.Local < -1 || o.Local > 1<<24:
		return o, fmt.Errorf("%w: Options.Local %d, want 1 to 2^24, or -1 for none", ErrInvalid, o.Local)
	case o.LocalTTL < 0 || o.LocalTTL > time.Hour:
		return o, fmt.Errorf("%w: Options.LocalTTL %v, want up to 1h", ErrInvalid, o.LocalTTL)
	case o.NotFoundTTL < 0 && o.NotFoundTTL != -1 || o.NotFoundTTL > time.Hour:
		return o, fmt.Errorf("%w: Options.NotFoundTTL %v, want up to 1h, or -1 for none", ErrInvalid, o.NotFoundTTL)
	}
	for i, s := range o.Schemes {
		if s == "" || s != strings.ToLower(s) || slices.Contains(neverSchemes, s) {
			return o, fmt.Errorf("%w: Options.Schemes[%d] %q, want one in lower case that neither runs code nor carries data", ErrInvalid, i, s)
		}
	}
	for i, d := range o.Domains {
		if !isDomain(d) {
			return o, fmt.Errorf("%w: Options.Domains[%d] %q, want a host name alone: no scheme, port or path, other scripts as xn--", ErrInvalid, i, d)
		}
	}
	return o, nil
}

// isDomain reports whether a host of a URL can be d: one that can be none, such as
// "https://sho.rt", would protect from no loop.
func isDomain(d string) bool {
	if strings.HasPrefix(d, "[") && strings.HasSuffix(d, "]") {
		addr, err := netip.ParseAddr(d[1 : len(d)-1])
		return err == nil && d[1:len(d)-1] == addr.String()
	}
	for i := range len(d) {
		if c := d[i]; !isWord(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return d != ""
}

// A Service makes short links and resolves them. Methods may be called from many
// goroutines.
//
//   - Shorten, Update, Disable, Delete and List are for those who make links.
//   - Resolve, and Handler over HTTP, are for those who follow them.
//   - API is the first group as JSON over HTTP.
type Service struct {
	opts     Options
	shuffle  permute.Permutation
	domain   int64 // 62^Length
	reserved map[string]bool
	links    *table
	misses   *table
	loads    flights
	group    *lifetime.Group
	closing  chan struct{}
	close    sync.Once
	queue    chan rawClick

	hits, missed, loaded, clicked, dropped atomic.Uint64
}

// New returns a Service. It makes no call; if Options.Clicks is set it starts one
// goroutine, which Close ends.
func New(opts Options) (*Service, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	domain := int64(1)
	for range opts.Length {
		domain *= 62
	}
	s := &Service{
		opts: opts, domain: domain, shuffle: permute.New(opts.Key, domain), reserved: map[string]bool{},
		loads: flights{by: map[string]*flight{}, writing: map[string]int{}}, group: lifetime.New(), closing: make(chan struct{}),
	}
	for _, w := range slices.Concat(reservedWords, opts.Reserved) {
		s.reserved[strings.ToLower(w)] = true
	}
	if opts.Local > 0 {
		s.links = newTable(opts.Local)
	}
	if opts.NotFoundTTL > 0 {
		s.misses = newTable(8192)
	}
	if opts.Clicks != nil {
		s.queue = make(chan rawClick, clickQueue)
		s.group.Go(s.record)
	}
	return s, nil
}

// Close records the clicks that wait, until ctx ends; looks that are under way then end
// too. Resolve and Handler go on working, without clicks; Shorten returns ErrClosed.
func (s *Service) Close(ctx context.Context) error {
	s.close.Do(func() { close(s.closing) })
	if err := s.group.Drain(ctx); err != nil {
		return fmt.Errorf("shorturl: Close did not wait for all clicks and looks: %w", err)
	}
	return nil
}

// Stats returns the counters. It does no I/O.
func (s *Service) Stats() Stats {
	return Stats{
		Hits: s.hits.Load(), Misses: s.missed.Load(), Loads: s.loaded.Load(),
		Clicks: s.clicked.Load(), Dropped: s.dropped.Load(),
	}
}

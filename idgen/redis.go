package idgen

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
	"github.com/spillway-go/spillway/internal/noevict"
	"github.com/spillway-go/spillway/internal/script"
)

// RedisOptions of a RedisStore. Give every process the same. The zero value of a
// field is its default.
type RedisOptions struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// Start is the lowest number that is ever handed out; 1 if 0, at most 2^52. It is
	// where a high-water mark that is kept elsewhere goes: with the largest id of the
	// orders table plus a margin here, a Redis that lost its data repeats nothing.
	Start int64
	// Gap is how many numbers are skipped when a failover or restart is noticed, since
	// the server may have forgotten the last claims; 10,000,000 if 0, -1 for none, at
	// most 2^40. It should exceed what all processes claim in the time by which a
	// replica may lag. It does not help a biz whose first claim was among what is
	// forgotten: for a new biz there is Start.
	Gap int64
	// AllowEviction accepts a Redis that may evict keys (any maxmemory-policy but
	// noeviction). An evicted counter begins again.
	AllowEviction bool
	// Logger is told of skipped gaps, and of a server whose eviction policy cannot be
	// read; nil is silent.
	Logger *slog.Logger
}

func (o RedisOptions) withDefaults() (RedisOptions, error) {
	if o.Start == 0 {
		o.Start = 1
	}
	switch o.Gap {
	case 0:
		o.Gap = 10_000_000
	case -1:
		o.Gap = 0
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Start < 1 || o.Start > 1<<52:
		return o, fmt.Errorf("%w: RedisOptions.Start %d, want 1 to 2^52", ErrInvalid, o.Start)
	case o.Gap < 0 || o.Gap > 1<<40:
		return o, fmt.Errorf("%w: RedisOptions.Gap %d, want 1 to 2^40, or -1 for none", ErrInvalid, o.Gap)
	}
	return o, nil
}

//go:embed claim.lua
var claimLua string

var claimScript = script.New(script.Bounded, claimLua)

// layout is the number of the meaning of the keys; see internal/key.
const layout = 1

// RedisStore returns a Store on a counter per biz in Redis, up to 2^53. It makes one
// call to Redis, bounded by a second, to refuse a server that may evict keys.
//
// Its numbers are unique barring a failover that loses claims: see RedisOptions.Gap
// and Start, and the package comment. One round trip a claim.
func RedisStore(rdb redis.UniversalClient, opts RedisOptions) (Store, error) {
	if script.NoClient(rdb) {
		return nil, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if !opts.AllowEviction {
		ctx, cancel := lifetime.ForNew(time.Second)
		defer cancel()
		policy, err := noevict.Check(ctx, rdb)
		if err != nil {
			opts.Logger.Warn("idgen: it is not known whether the server evicts keys; it must not", "error", err)
		} else if policy != noevict.NoEviction {
			return nil, fmt.Errorf("%w: maxmemory-policy is %s: an evicted counter begins again; "+
				"set noeviction, or RedisOptions.AllowEviction", ErrInvalid, policy)
		}
	}
	return &redisStore{rdb: rdb, opts: opts, seen: map[string]int64{}}, nil
}

type redisStore struct {
	rdb  redis.UniversalClient
	opts RedisOptions

	mu   sync.Mutex
	seen map[string]int64 // the largest number that this process was given, by biz
}

func (s *redisStore) Claim(ctx context.Context, biz string, step int64) (Range, error) {
	if err := checkClaim(biz, step); err != nil {
		return Range{}, err
	}
	s.mu.Lock()
	seen := s.seen[biz]
	s.mu.Unlock()
	reply, err := claimScript.Run(ctx, s.rdb, script.Call{
		Keys: []string{key.New(s.opts.Prefix, "idgen", layout, biz).Key("counter")},
		Args: []any{step, s.opts.Start - 1, seen, s.opts.Gap},
	})
	if refused := new(script.Refused); errors.As(err, &refused) {
		err = ErrExhausted
	}
	if err != nil {
		return Range{}, fmt.Errorf("idgen: claim %d of biz %q: %w", step, biz, err)
	}
	last, skipped, err := parseClaim(reply)
	if err != nil {
		return Range{}, fmt.Errorf("idgen: claim %d of biz %q: %w", step, biz, err)
	}
	if skipped {
		s.opts.Logger.Warn("idgen: another Redis server answers than before: a gap was skipped", "biz", biz, "gap", s.opts.Gap, "last", last)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[biz] = max(s.seen[biz], last)
	return Range{First: last - step + 1, Count: step}, nil
}

func parseClaim(reply any) (last int64, skipped bool, err error) {
	if parts, ok := reply.([]any); ok && len(parts) == 2 {
		text, _ := parts[0].(string)
		last, err = strconv.ParseInt(text, 10, 64)
		return last, parts[1] == int64(1), err
	}
	return 0, false, fmt.Errorf("claim.lua answered %v", reply)
}

// Package script runs a Lua script on Redis so that its caller always knows
// whether it happened.
//
// go-redis by default sends a command again when its reply is lost, so that a
// script may run several times behind one successful call. Here nothing is
// sent again behind the caller's back. Every attempt ends in one of four ways:
//
//   - an answer;
//   - [Refused]: the script said no and wrote nothing;
//   - nothing ran: what heals within a second is waited for, then
//     [ErrUnavailable];
//   - unknown, because the reply was lost: a script that bears a second run
//     (Token, State, Read) runs again with the same arguments until it answers,
//     then [ErrUnknown]; [ErrUnavailable] if it is Read.
//
// An attempt counts as not run only if go-redis never put its bytes on a
// connection, or the server replied so. Everything else is unknown.
//
// A call in flight cannot be interrupted: Run returns when the attempt in
// flight ends, which the client's ReadTimeout bounds (its ContextTimeoutEnabled
// option lets a deadline, though not a cancellation, end it sooner). Callers
// who share work leave earlier through internal/coalesce.
package script

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Every package exports these two values.
var (
	ErrUnavailable = errors.New("spillway: unavailable: nothing happened")
	ErrUnknown     = errors.New("spillway: outcome unknown: it may have happened")
)

const (
	// healFor is how long Run waits for a server on which nothing ran.
	healFor = time.Second
	// resolveFor is how long after the first unknown outcome Run may begin
	// another attempt. A token must outlive it, and the attempt that follows.
	resolveFor = 5 * time.Second

	minPause = 8 * time.Millisecond
	maxPause = 256 * time.Millisecond
)

// Retry says how a script survives a second run.
type Retry int

const (
	// Token scripts carry an idempotency token: run again, they give the
	// first answer and change nothing.
	Token Retry = iota + 1
	// State scripts compare and set: run again, they leave the same state.
	State
	// Bounded scripts do bounded harm when run twice, and so are never run
	// again after an attempt that may have run.
	Bounded
	// Read scripts change nothing: whether one ran does not matter.
	Read
)

// A Script is a Lua script and the way it survives a second run. It is safe
// for concurrent use.
type Script struct {
	retry  Retry
	source []byte
	sha    []byte
}

// New returns the script made of sources, one below the other: a prelude that
// scripts share, then the verb.
func New(retry Retry, sources ...string) *Script {
	if retry < Token || retry > Read {
		panic("script: New without a Retry")
	}
	source := strings.Join(sources, "\n")
	sum := sha1.Sum([]byte(source))
	return &Script{retry: retry, source: []byte(source), sha: []byte(hex.EncodeToString(sum[:]))}
}

// A Call is what one run of a script is given.
type Call struct {
	Keys []string
	// Args are strings or pointers to them, byte slices or integers; they are not
	// modified.
	Args []any
	// Resend, if not 0, is the n of an ARGV[n] that Run sets: to "0", and to
	// "1" in every attempt that follows one which may have run, so that the
	// script can leave a tombstone against that one arriving late. Args holds
	// a placeholder there.
	Resend int
	// Wait, if not nil, is asked for after the script. Only Run does so.
	Wait *Wait
}

// Run runs the script once as far as the caller can tell, and returns its
// reply as go-redis decodes it: nil, int64, string or []any.
//
// The error wraps a *[Refused], [ErrUnavailable] or [ErrUnknown], the last two
// together with their cause, and with ctx's error if ctx ended. Run waits at
// most about a second for a server on which nothing runs, and begins no attempt
// later than five seconds after the first one that may have run.
func (s *Script) Run(ctx context.Context, rdb redis.UniversalClient, c Call) (any, error) {
	var f flight
	for pauses := 0; ; {
		if ended(ctx) != nil {
			return nil, f.failure(ctx, s.retry, hopeful)
		}
		a := s.attempt(ctx, c, &f)
		c.send(ctx, rdb, a)
		switch f.settle(ctx, s.retry, a) {
		case settled:
			return f.reply, f.err
		case later:
			pauses++
			pause(ctx, pauses)
		}
	}
}

// RunMany is Run for many calls in one round trip, or one a node. Reply and
// error i are those of call i. The calls run in no particular order; those that
// need another attempt make it together.
func (s *Script) RunMany(ctx context.Context, rdb redis.UniversalClient, calls []Call) ([]any, []error) {
	replies, errs := make([]any, len(calls)), make([]error, len(calls))
	flights := make([]flight, len(calls))
	attempts := make([]*attempt, len(calls))
	open := make([]int, len(calls))
	for i := range open {
		open[i] = i
	}
	for pauses := 0; len(open) > 0; {
		if ended(ctx) != nil {
			for _, i := range open {
				errs[i] = flights[i].failure(ctx, s.retry, hopeful)
			}
			break
		}
		pipe := rdb.Pipeline()
		for _, i := range open {
			attempts[i] = s.attempt(ctx, calls[i], &flights[i])
			_ = pipe.Process(ctx, attempts[i]) // only queues
		}
		_, _ = pipe.Exec(ctx) // the attempts hold their errors
		wait := true
		open = slices.DeleteFunc(open, func(i int) bool {
			f := &flights[i]
			switch f.settle(ctx, s.retry, attempts[i]) {
			case settled:
				replies[i], errs[i] = f.reply, f.err
				return true
			case atOnce:
				wait = false
			}
			return false
		})
		if len(open) > 0 && wait {
			pauses++
			pause(ctx, pauses)
		}
	}
	return replies, errs
}

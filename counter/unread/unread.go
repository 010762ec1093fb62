package unread

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/script"
)

// What a call can answer besides success. Every call may be made again: each leaves
// the same state, however often it is made.
var (
	// ErrInvalid is a bad argument or option; the message names it.
	ErrInvalid = errors.New("unread: invalid argument")
	// ErrClosed is a call after the Redis client was closed; nothing here is.
	ErrClosed = errors.New("unread: closed")
	// ErrUnavailable is Redis out of reach or out of memory: nothing happened.
	ErrUnavailable = script.ErrUnavailable
	// ErrUnknown is a lost reply that could not be found out in time.
	ErrUnknown = script.ErrUnknown
)

const (
	maxName = 256    // bytes of a user, conversation, area, author, room, page or visitor
	maxList = 10_000 // names in one call
	perCall = 500    // changes in one script
	layout  = 1      // the number of the meaning of the keys; see internal/key
)

// Options of everything here. Give every process the same. The zero value of a field
// is its default.
type Options struct {
	// Prefix of every key; "spillway" if empty.
	Prefix string
	// TTL is how long a key is kept after its last change; 90 days if 0, from 1 minute
	// to 10 years. A conversation, area or author that is forgotten has nothing new. A
	// user who is has seen nothing: TTL has to be longer than the longest time in which
	// somebody who comes back reads nothing.
	TTL time.Duration
}

// A store is what the types here share: where their keys are and how they change.
type store struct {
	rdb  redis.UniversalClient
	opts Options
}

func newStore(rdb redis.UniversalClient, opts Options) (store, error) {
	if script.NoClient(rdb) {
		return store{}, fmt.Errorf("%w: rdb is nil", ErrInvalid)
	}
	if opts.TTL == 0 {
		opts.TTL = 90 * 24 * time.Hour
	}
	if opts.TTL < time.Minute || opts.TTL > 10*365*24*time.Hour {
		return store{}, fmt.Errorf("%w: Options.TTL %v, want 1m to 10 years", ErrInvalid, opts.TTL)
	}
	return store{rdb, opts}, nil
}

// key returns the key of what is kept of a thing.
func (s *store) key(kind, thing string) string {
	return key.New(s.opts.Prefix, "unread", layout, thing).Key(kind)
}

// run runs a script that changes keys of one slot.
func (s *store) run(ctx context.Context, sc *script.Script, keys []string, args ...any) error {
	_, err := sc.Run(ctx, s.rdb, script.Call{Keys: keys, Args: append([]any{s.opts.TTL.Milliseconds()}, args...)})
	return explain(keys[0], err)
}

// read sends commands in one round trip, one to each server of a Cluster.
func (s *store) read(ctx context.Context, queue func(pipe redis.Pipeliner)) error {
	pipe := s.rdb.Pipeline()
	queue(pipe)
	if pipe.Len() == 0 {
		return nil
	}
	commands, _ := pipe.Exec(ctx) // its error may be the redis.Nil of the first
	for _, cmd := range commands {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return explain(fmt.Sprint(cmd.Args()[1]), fmt.Errorf("%w: %w", ErrUnavailable, err))
		}
	}
	return nil
}

func explain(key string, err error) error {
	if errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("%w: key %q: %w", ErrClosed, key, err)
	}
	if err != nil {
		return fmt.Errorf("unread: key %q: %w", key, err)
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: %s of %d bytes, want 1 to %d", ErrInvalid, what, len(name), maxName)
	}
	return nil
}

func checkNames(what string, names []string) error {
	if len(names) > maxList {
		return fmt.Errorf("%w: %d %ss, want at most %d", ErrInvalid, len(names), what, maxList)
	}
	for _, n := range names {
		if err := checkName(what, n); err != nil {
			return err
		}
	}
	return nil
}

// Unread counts the messages of conversations that a user has not read: the
// conversation's last sequence number less the last one that the user has read. It
// writes one number a conversation and one a user and conversation, however many
// messages and members there are.
type Unread struct{ marks marks }

// NewUnread returns the unread counts of the users of one application.
func NewUnread(rdb redis.UniversalClient, opts Options) (*Unread, error) {
	s, err := newStore(rdb, opts)
	if err != nil {
		return nil, err
	}
	return &Unread{marks{s}}, nil
}

// Sent says that a conversation's messages have come up to seq, which its database
// gave: 1 for the first, without gaps. Late and repeated calls change nothing. One
// round trip.
func (u *Unread) Sent(ctx context.Context, conversation string, seq int64) error {
	if err := checkName("conversation", conversation); err != nil {
		return err
	}
	return u.marks.raise(ctx, "conversation", conversation, latest, seq)
}

// Read says that a user has read a conversation up to seq; a sender has read what he
// sent. It never goes back. One round trip.
func (u *Unread) Read(ctx context.Context, user, conversation string, seq int64) error {
	if err := errors.Join(checkName("user", user), checkName("conversation", conversation)); err != nil {
		return err
	}
	return u.marks.raise(ctx, "reader", user, conversation, seq)
}

// Counts returns how many messages of each of up to 10,000 conversations a user has
// not read. One round trip, O(conversations).
func (u *Unread) Counts(ctx context.Context, user string, conversations []string) ([]int64, error) {
	if err := errors.Join(checkName("user", user), checkNames("conversation", conversations)); err != nil {
		return nil, err
	}
	sent, read, err := u.marks.compare(ctx, "conversation", conversations, "reader", user)
	if err != nil {
		return nil, err
	}
	for i := range sent {
		sent[i] = max(0, sent[i]-max(0, read[i]))
	}
	return sent, nil
}

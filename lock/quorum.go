package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/lifetime"
)

// A Quorum takes locks on a majority of independent Redis servers, none a replica of
// another, so that one of them may fail without the lock being lost or given twice:
// the Redlock algorithm of the Redis documentation ("Distributed Locks with Redis").
// It does without one thing that a Locker has: a fence, for which the servers would
// have to agree on a number. Where a resource can check a fence, a Locker is the safer
// choice.
//
// Two rules are the operator's. A server that may have lost its data stays down for
// the longest TTL in use before it serves again, or three servers may grant one lock
// twice. And clocks must not be stepped by more than a few milliseconds.
//
// Waiting is by asking again, ten to a quarter of a second apart. Methods may be called
// from many goroutines.
type Quorum struct {
	nodes  []*Locker
	opts   Options
	leases *lifetime.Group // renewals: each ends with its lease
	calls  *lifetime.Group // requests to single nodes
	closed chan struct{}
	once   sync.Once
}

// NewQuorum returns a Quorum over an odd number of servers, 3 or more, each with a
// client of its own. Options.Fair and Linger must not be set. It makes no call and
// starts nothing.
func NewQuorum(nodes []redis.UniversalClient, opts Options) (*Quorum, error) {
	if len(nodes) < 3 || len(nodes)%2 == 0 {
		return nil, fmt.Errorf("%w: %d nodes, want an odd number, 3 or more", ErrInvalid, len(nodes))
	}
	if opts.Fair || opts.Linger != 0 {
		return nil, fmt.Errorf("%w: Options.Fair %v and Linger %v, want none of them for a quorum", ErrInvalid, opts.Fair, opts.Linger)
	}
	q := &Quorum{leases: lifetime.New(), calls: lifetime.New(), closed: make(chan struct{})}
	for i, rdb := range nodes {
		if v := reflect.ValueOf(rdb); rdb != nil && v.Comparable() && slices.Index(nodes, rdb) < i {
			return nil, fmt.Errorf("%w: nodes %d and %d are one client, want a server each", ErrInvalid, slices.Index(nodes, rdb), i)
		}
		l, err := New(rdb, opts)
		if err != nil {
			return nil, fmt.Errorf("lock: node %d: %w", i, err)
		}
		q.nodes, q.opts = append(q.nodes, l), l.opts
	}
	return q, nil
}

// Lock waits until it holds the lock of that name, or until ctx ends. It returns as
// Locker.Lock does. A round trip to all servers at once, if the lock is free; a
// server that does not answer within a twentieth of the TTL counts as failed.
func (q *Quorum) Lock(ctx context.Context, name string) (context.Context, *QuorumLease, error) {
	return q.lock(ctx, name, false)
}

// TryLock is Lock without waiting: ErrNotAcquired if another has the lock,
// ErrUnavailable if no majority answers.
func (q *Quorum) TryLock(ctx context.Context, name string) (context.Context, *QuorumLease, error) {
	return q.lock(ctx, name, true)
}

func (q *Quorum) lock(ctx context.Context, name string, try bool) (context.Context, *QuorumLease, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: lock name is empty", ErrInvalid)
	}
	space := key.New(q.opts.Prefix, "lock", layout, name)
	record := []string{space.Key("quorum")}
	k := keys{record: record, all: record, channel: space.Key("quorum-events")}
	pause := 10 * time.Millisecond
	var why error // there was no lease in the round before
	for {
		leaseCtx, s, err := q.round(ctx, name, k)
		if err == nil {
			return leaseCtx, s, nil
		}
		if ctx.Err() != nil {
			if err = ctx.Err(); why != nil {
				err = fmt.Errorf("%w, after: %w", err, why)
			}
		}
		if try || ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return nil, nil, fmt.Errorf("lock: quorum %.200q: %w", name, err)
		}
		why = err
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select { // the next round tells how ctx and the Quorum are
		case <-timer.C:
		case <-ctx.Done():
		case <-q.closed:
		}
		timer.Stop()
		pause = min(2*pause, 170*time.Millisecond)
	}
}

// round asks all nodes once. Whatever comes of it that is not a lease is released on
// every node, also where the request failed: it may arrive yet.
func (q *Quorum) round(ctx context.Context, name string, k keys) (context.Context, *QuorumLease, error) {
	select {
	case <-q.closed:
		return nil, nil, ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	token := q.nodes[0].newToken()
	answers := make(chan nodeAnswer, len(q.nodes))
	keep, drop := make(chan struct{}), make(chan struct{})
	sent := time.Now()
	for _, n := range q.nodes {
		started := q.calls.Go(func(ctx context.Context) {
			within, cancel := context.WithTimeout(ctx, q.opts.TTL/20)
			defer cancel()
			got, err := n.acquire(within, k, token, false)
			answers <- nodeAnswer{got.granted, err}
			select {
			case <-keep:
			case <-drop:
				if got.granted || err != nil {
					_ = q.release(ctx, n, k, token) // or its TTL ends it
				}
			}
		})
		if !started {
			close(drop)
			return nil, nil, ErrClosed
		}
	}
	err := q.count(ctx, answers, sent)
	if err != nil {
		close(drop)
		return nil, nil, err
	}
	leaseCtx, cancel := context.WithCancelCause(ctx)
	s := &QuorumLease{q: q, name: name, keys: k, token: token, cancel: cancel, over: make(chan struct{})}
	s.deadline = sent.Add(q.opts.TTL - drift(q.opts.TTL))
	if !q.leases.Go(s.renew) {
		close(drop)
		cancel(nil)
		return nil, nil, ErrClosed
	}
	close(keep)
	if q.opts.MaxHold > 0 {
		s.timer = time.AfterFunc(q.opts.MaxHold, func() { s.lose(ErrMaxHold) })
	}
	return leaseCtx, s, nil
}

type nodeAnswer struct {
	yes bool
	err error
}

func (q *Quorum) majority() int { return len(q.nodes)/2 + 1 }

// count waits for a majority, or until there can be none.
func (q *Quorum) count(ctx context.Context, answers <-chan nodeAnswer, sent time.Time) error {
	timer := time.NewTimer(q.opts.TTL / 20)
	defer timer.Stop()
	yes, no := 0, 0
	var failed []error
	for yes+no+len(failed) < len(q.nodes) && len(failed) <= len(q.nodes)-q.majority() {
		select {
		case a := <-answers:
			switch {
			case a.yes:
				yes++
			case a.err != nil:
				failed = append(failed, a.err)
			default:
				no++
			}
		case <-timer.C:
			failed = append(failed, errors.New("not all answered in time"))
			return q.verdict(yes, no, failed)
		case <-ctx.Done():
			return ctx.Err()
		case <-q.closed:
			return ErrClosed
		}
		if yes >= q.majority() {
			if time.Since(sent) > q.opts.TTL/4 {
				return fmt.Errorf("%w: the answers took too long", ErrUnavailable)
			}
			return nil
		}
		if no > len(q.nodes)-q.majority() {
			return ErrNotAcquired
		}
	}
	return q.verdict(yes, no, failed)
}

// verdict is why there is no majority: it is split, or did not answer.
func (q *Quorum) verdict(yes, no int, failed []error) error {
	if yes+no >= q.majority() {
		return ErrNotAcquired
	}
	return fmt.Errorf("%w: no majority answered: %w", ErrUnavailable, errors.Join(failed...))
}

func (q *Quorum) release(ctx context.Context, n *Locker, k keys, token string) error {
	ctx, cancel := lifetime.Within(ctx, endFor)
	defer cancel()
	_, err := n.release(ctx, k, token, 0, false)
	return err
}

// Close refuses new calls, fails those that wait with ErrClosed, and waits until the
// leases have been given back. When ctx ends first, their contexts end with ErrLost
// and ctx's error is returned. Afterwards no goroutine is left. The Redis clients stay
// open.
func (q *Quorum) Close(ctx context.Context) error {
	q.once.Do(func() { close(q.closed) })
	err := q.leases.Drain(ctx)
	q.calls.Stop()
	if err != nil {
		return fmt.Errorf("lock: close: %w", err)
	}
	return nil
}

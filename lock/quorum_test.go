package lock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/key"
	"github.com/spillway-go/spillway/internal/redistest"
)

// threeNodes returns clients of three miniredis in the bubble, with faults each.
func threeNodes(t *testing.T, b *redistest.Env) ([]redis.UniversalClient, []*redistest.Faults) {
	t.Helper()
	var nodes []redis.UniversalClient
	var faults []*redistest.Faults
	for range 3 {
		m := miniredis.NewMiniRedis()
		m.ClockTTL(true)
		t.Cleanup(m.Close)
		f := &redistest.Faults{}
		nodes = append(nodes, b.Client(func(o *redis.Options) {
			o.Dialer = func(context.Context, string, string) (net.Conn, error) { return m.Dial() }
			f.Options(o)
		}))
		faults = append(faults, f)
	}
	return nodes, faults
}

func quorum(t *testing.T, nodes []redis.UniversalClient, opts Options) *Quorum {
	t.Helper()
	opts.Prefix = "p"
	q, err := NewQuorum(nodes, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		_ = q.Close(ctx)
	})
	return q
}

func down(f *redistest.Faults) {
	f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
	f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
}

func TestQuorum(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		nodes, faults := threeNodes(t, b)
		q, other := quorum(t, nodes, Options{}), quorum(t, nodes, Options{})
		ctx, s, err := q.Lock(t.Context(), "a")
		require.NoError(t, err)
		_, _, err = other.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired)
		time.Sleep(time.Minute)
		require.True(t, s.Valid(5*time.Second), "it is renewed")
		require.Greater(t, time.Until(s.Deadline()), 5*time.Second)

		down(faults[1])
		time.Sleep(time.Minute)
		require.NoError(t, ctx.Err(), "two of three are enough")
		_, _, err = other.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired)
		require.NoError(t, s.Unlock(t.Context()))
		require.ErrorIs(t, s.Unlock(t.Context()), ErrNotHeld)

		ctx, s, err = other.Lock(t.Context(), "a")
		require.NoError(t, err)
		down(faults[2])
		deadline := s.Deadline()
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.True(t, time.Now().Before(s.Deadline()))
		require.Less(t, s.Deadline().Sub(deadline), 5*time.Second)
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
		_, _, err = q.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrNotAcquired)

		soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _, err = q.Lock(soon, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ErrUnavailable, "it says why")
		faults[1].Clear()
		faults[2].Clear()
		time.Sleep(12 * time.Second)
		_, s, err = q.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
	})
}

// A lease that began without a node has it as soon as it can, and may lose another then. It
// is free everywhere after Unlock.
func TestQuorumJoins(t *testing.T) {
	for name, away := range map[string]func(*testing.T, []redis.UniversalClient, []*redistest.Faults) (back func()){
		"was down": func(_ *testing.T, _ []redis.UniversalClient, faults []*redistest.Faults) func() {
			down(faults[2])
			return faults[2].Clear
		},
		"had given it to another": func(t *testing.T, nodes []redis.UniversalClient, _ []*redistest.Faults) func() {
			other := quorum(t, nodes, Options{})
			k := key.New("p", "lock", layout, "a").Key("quorum")
			got, err := other.nodes[2].acquire(t.Context(), keys{record: []string{k}, all: []string{k}, channel: "c"}, "other", false)
			require.NoError(t, err)
			require.True(t, got.granted)
			return func() { require.NoError(t, nodes[2].Del(t.Context(), k).Err()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				nodes, faults := threeNodes(t, b)
				q := quorum(t, nodes, Options{})
				back := away(t, nodes, faults)
				ctx, s, err := q.Lock(t.Context(), "a")
				require.NoError(t, err)
				time.Sleep(time.Minute)
				require.NoError(t, ctx.Err())
				back()
				time.Sleep(time.Minute)
				down(faults[1])
				time.Sleep(time.Minute)
				require.NoError(t, ctx.Err(), "two of three are enough")
				require.NoError(t, s.Unlock(t.Context()))
				faults[1].Clear()
				time.Sleep(time.Minute)
				_, s, err = quorum(t, nodes, Options{}).TryLock(t.Context(), "a")
				require.NoError(t, err)
				require.NoError(t, s.Unlock(t.Context()))
			})
		})
	}
}

// A node on which a request was executed and whose answer was lost is released too.
func TestQuorumReleasesWhereTheReplyWasLost(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		nodes, faults := threeNodes(t, b)
		q, other := quorum(t, nodes, Options{}), quorum(t, nodes, Options{})
		_, s, err := q.Lock(t.Context(), "warm-up")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
		for i := range 3 {
			faults[i].Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha"})
		}
		_, _, err = q.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrUnavailable)
		for _, f := range faults {
			require.Equal(t, 1, f.Fired(redistest.LoseReply))
		}
		time.Sleep(6 * time.Second) // the lost replies time out after 5 s; the TTL is 10 s
		_, s, err = other.TryLock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
	})
}

func TestQuorumInput(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		nodes, _ := threeNodes(t, b)
		for _, n := range [][]redis.UniversalClient{nil, nodes[:1], nodes[:2], {nodes[0], nil, nodes[1]}} {
			_, err := NewQuorum(n, Options{})
			require.ErrorIs(t, err, ErrInvalid)
		}
		for _, o := range []Options{{Fair: true}, {Linger: 1}, {TTL: 1}} {
			_, err := NewQuorum(nodes, o)
			require.ErrorIs(t, err, ErrInvalid)
		}
		q := quorum(t, nodes, Options{MaxHold: time.Minute})
		_, _, err := q.Lock(t.Context(), "")
		require.ErrorIs(t, err, ErrInvalid)
		ctx, s, err := q.Lock(t.Context(), "a")
		require.NoError(t, err)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrMaxHold)
		require.False(t, s.Valid(0))
		require.NoError(t, s.Unlock(t.Context()), "it was still held")

		ctx, s, err = q.Lock(t.Context(), "a")
		require.NoError(t, err)
		soon, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.ErrorIs(t, q.Close(soon), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
		_, _, err = q.Lock(t.Context(), "a")
		require.ErrorIs(t, err, ErrClosed)
	})
}

// Holders never overlap while nodes lose replies at random.
func TestQuorumMutualExclusion(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		nodes, faults := threeNodes(t, b)
		for _, f := range faults {
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", P: 0.05, Times: -1})
		}
		var inside, done atomic.Int32
		var all sync.WaitGroup
		errs := make(chan error, 1000)
		for range 4 {
			q := quorum(t, nodes, Options{TTL: 5 * time.Second})
			all.Go(func() {
				for range 20 {
					_, s, err := q.Lock(t.Context(), "a")
					if err != nil {
						errs <- err
						return
					}
					if inside.Add(1) != 1 {
						errs <- errors.New("two at a time")
					}
					time.Sleep(10 * time.Millisecond)
					inside.Add(-1)
					done.Add(1)
					if err := s.Unlock(t.Context()); err != nil && !errors.Is(err, ErrUnavailable) {
						errs <- fmt.Errorf("unlock: %w", err)
					}
				}
			})
		}
		all.Wait()
		close(errs)
		for err := range errs {
			require.NoError(t, err)
		}
		require.EqualValues(t, 80, done.Load())
		require.Positive(t, faults[0].Fired(redistest.CutAfter))
	})
}

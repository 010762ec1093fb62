package lock

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// faulty returns a Locker in the bubble whose connections suffer faults.
func faulty(t *testing.T, b *redistest.Env, opts Options) (*Locker, *redistest.Faults) {
	t.Helper()
	f := &redistest.Faults{}
	return open(t, b.Client(f.Options), opts), f
}

// lost are the ways in which a script runs and its answer does not arrive.
var lostReplies = []redistest.Fault{redistest.CutAfter, redistest.LoseReply}

// loaded makes the server know the scripts, so that a fault meets the script and
// not the NOSCRIPT before it.
func loaded(t *testing.T, b *redistest.Env, prefix string) {
	t.Helper()
	l := open(t, b.Client(), Options{Prefix: prefix})
	_, s, err := l.Lock(t.Context(), "warm-up")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Unlock(ctx), "a cancelled ctx does not keep a lease from being given back")
	require.ErrorIs(t, l.ForceUnlock(t.Context(), "warm-up"), ErrNotHeld)
	_, s, err = l.Lock(t.Context(), "warm-up")
	require.NoError(t, err)
	require.NoError(t, l.ForceUnlock(t.Context(), "warm-up"))
	require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
}

func TestAcquireWithItsReplyLost(t *testing.T) {
	for _, fault := range lostReplies {
		for _, try := range []bool{false, true} {
			t.Run(fmt.Sprint(fault, try), func(t *testing.T) {
				redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
					l, f := faulty(t, b, Options{Prefix: "p", TTL: 30 * time.Second})
					loaded(t, b, "p")
					f.Add(redistest.Rule{Do: fault, Match: "evalsha"})
					_, s, err := l.lock(t.Context(), "a", try)
					require.NoError(t, err)
					require.Equal(t, 1, f.Fired(fault), "the script ran and was run again")
					h, err := l.Holder(t.Context(), "a")
					require.NoError(t, err)
					require.Equal(t, s.Fence(), h.Fence, "the second run gave the first fence")
					require.True(t, h.Mine)
					require.NoError(t, s.Unlock(t.Context()))
				})
			})
		}
	}
}

func TestReleaseWithItsReplyLost(t *testing.T) {
	for _, fault := range lostReplies {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				l, f := faulty(t, b, Options{Prefix: "p"})
				loaded(t, b, "p")
				_, s, err := l.Lock(t.Context(), "a")
				require.NoError(t, err)
				f.Add(redistest.Rule{Do: fault, Match: "evalsha"})
				require.NoError(t, s.Unlock(t.Context()), "the record knows who released")
				require.Equal(t, 1, f.Fired(fault))
			})
		})
	}
}

// A release whose reply is lost and whose lock others have taken since, twice so
// that the record has forgotten, must not claim to know, nor touch them.
func TestReleaseThatCannotBeFoundOut(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p"})
		loaded(t, b, "p")
		other := open(t, b.Client(), Options{Prefix: "p"})
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		f.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha"})
		result := make(chan error)
		go func() { result <- s.Unlock(t.Context()) }()
		var theirs *Lease
		for range 2 { // while the first attempt times out
			_, theirs, err = other.Lock(t.Context(), "a")
			require.NoError(t, err)
			require.NoError(t, theirs.Unlock(t.Context()))
		}
		_, theirs, err = other.Lock(t.Context(), "a")
		require.NoError(t, err)
		err = <-result
		require.ErrorIs(t, err, ErrUnknown)
		require.NotErrorIs(t, err, ErrLost)
		require.ErrorIs(t, s.Unlock(t.Context()), ErrUnknown, "asking again finds no more out")
		require.Equal(t, 1, f.Fired(redistest.LoseReply))
		h, err := other.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.True(t, h.Mine, "the next owner's lease is untouched")
		require.NoError(t, theirs.Unlock(t.Context()))
	})
}

func TestForceUnlockWithItsReplyLost(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p"})
		loaded(t, b, "p")
		other := open(t, b.Client(), Options{Prefix: "p"})
		ctx, s, err := other.Lock(t.Context(), "a")
		require.NoError(t, err)
		// Of the scripts holder and force, the second.
		f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Skip: 1})
		require.NoError(t, l.ForceUnlock(t.Context(), "a"))
		require.Equal(t, 1, f.Fired(redistest.CutAfter), "the script ran and was run again")
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
		_, next, err := other.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.Greater(t, next.Fence(), s.Fence()+handOvers-1, "the reserved fences are skipped")
		require.NoError(t, next.Unlock(t.Context()))
	})
}

// A renewal may run any number of times; one whose reply is lost is repeated.
func TestRenewalWithItsReplyLost(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p"})
		loaded(t, b, "p")
		ctx, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		for range 3 { // renewal is all that runs
			f.Add(redistest.Rule{Do: redistest.LoseReply, Match: "eval", Skip: 2})
			f.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", Skip: 4})
			time.Sleep(time.Minute)
		}
		require.Equal(t, 3, f.Fired(redistest.LoseReply))
		require.Equal(t, 3, f.Fired(redistest.CutAfter))
		require.Zero(t, l.Stats().Lost)
		require.NoError(t, ctx.Err())
		require.NoError(t, s.Unlock(t.Context()))
	})
}

func TestLeaseIsLostWhenRedisIsGone(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p"})
		ctx, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		granted := time.Now()
		time.Sleep(5 * time.Second) // one renewal, at 3.3 s
		f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		deadline := s.Deadline()
		require.WithinRange(t, deadline, granted.Add(12*time.Second), granted.Add(14*time.Second))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.True(t, time.Now().Before(deadline), "it ends before another may hold the lock")
		require.Greater(t, time.Now(), deadline.Add(-200*time.Millisecond), "renewals are tried to the end")
		require.False(t, s.Valid(0))
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
		require.EqualValues(t, 1, l.Stats().Lost)
		f.Clear()
		time.Sleep(2 * time.Second) // go-redis dials once a second until it succeeds
	})
}

func TestRedisDown(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, f := faulty(t, b, Options{Prefix: "p"})
		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		start := time.Now()
		_, _, err := l.TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrUnavailable)
		require.Less(t, time.Since(start), 500*time.Millisecond)

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start = time.Now()
		_, _, err = l.Lock(ctx, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ErrUnavailable, "it says why")
		require.Equal(t, 10*time.Second, time.Since(start))

		time.AfterFunc(10*time.Second, f.Clear)
		err = l.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil })
		require.NoError(t, err, "it waited for Redis to come back")
		time.Sleep(2 * time.Second) // go-redis dials once a second until it succeeds
	})
}

func TestClosedClient(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb := b.Client()
		l := open(t, rdb, Options{})
		require.NoError(t, rdb.Close())
		_, _, err := l.Lock(t.Context(), "a")
		require.ErrorIs(t, err, redis.ErrClosed, "nobody waits for a client that cannot come back")
	})
}

func TestBadInput(t *testing.T) {
	_, err := New(nil, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour})
	defer ring.Close()
	_, err = New(ring, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	for field, o := range map[string]Options{
		"TTL": {TTL: 9 * time.Millisecond}, "TTL -1": {TTL: -1}, "TTL 25h": {TTL: 25 * time.Hour},
		"MaxHold": {MaxHold: -1}, "Linger": {Linger: time.Hour}, "Linger -1": {Linger: -1},
	} {
		_, err := New(rdb, o)
		require.ErrorIs(t, err, ErrInvalid, field)
		require.ErrorContains(t, err, "Options."+field[:3])
	}
	l, err := New(rdb, Options{})
	require.NoError(t, err)
	_, _, err = l.Lock(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	_, _, err = l.TryLock(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorIs(t, l.Do(t.Context(), "", nil), ErrInvalid)
	_, err = l.Holder(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorIs(t, l.ForceUnlock(t.Context(), ""), ErrInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = l.Lock(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, l.Close(t.Context()))
	require.NoError(t, l.Close(t.Context()))
	_, _, err = l.Lock(t.Context(), "a")
	require.ErrorIs(t, err, ErrClosed)
}

// Close with a lease out and goroutines waiting, here and elsewhere.
func TestClose(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, other := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		ctx, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		waits := make(chan error, 2)
		for _, x := range []*Locker{l, other} {
			go func() {
				_, _, err := x.Lock(context.WithoutCancel(t.Context()), "a")
				waits <- err
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		require.NoError(t, other.Close(t.Context()), "it holds nothing")
		require.ErrorIs(t, <-waits, ErrClosed)

		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = l.Close(soon)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, <-waits, ErrClosed)
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.ErrorIs(t, context.Cause(ctx), ErrClosed)
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
	})
}

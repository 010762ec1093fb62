package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestFairServesInOrder(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var lockers []*Locker
		for range 5 {
			lockers = append(lockers, open(t, b.Client(), Options{Prefix: "p", Fair: true}))
		}
		_, s, err := lockers[0].Lock(t.Context(), "a")
		require.NoError(t, err)
		var order []int
		var all sync.WaitGroup
		for _, i := range []int{3, 1, 4, 2} {
			all.Go(func() {
				err := lockers[i].Do(t.Context(), "a", func(context.Context, *Lease) error {
					order = append(order, i)
					time.Sleep(time.Second)
					return nil
				})
				require.NoError(t, err)
			})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		released := time.Now()
		require.NoError(t, s.Unlock(t.Context()))
		_, _, err = lockers[0].TryLock(t.Context(), "a")
		require.ErrorIs(t, err, ErrNotAcquired, "it is somebody's turn")
		all.Wait()
		require.Equal(t, []int{3, 1, 4, 2}, order)
		require.Equal(t, 4*time.Second, time.Since(released), "each was told at once")
		for _, l := range lockers {
			require.Zero(t, l.Stats().Rescued)
		}
	})
}

func TestFairPassesOverWhoIsGone(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		f := &redistest.Faults{}
		l, dead, next := open(t, b.Client(), Options{Prefix: "p", Fair: true}),
			open(t, b.Client(f.Options), Options{Prefix: "p", Fair: true}), open(t, b.Client(), Options{Prefix: "p", Fair: true})
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, _, err := dead.Lock(ctx, "a")
			gone <- err
		}()
		time.Sleep(1100 * time.Millisecond) // between two of its polls
		got := make(chan *Lease)
		go func() {
			_, s, _ := next.Lock(t.Context(), "a")
			got <- s
		}()
		time.Sleep(1100 * time.Millisecond)
		f.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		f.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		released := time.Now()
		require.NoError(t, s.Unlock(t.Context()), "the turn is the dead one's")
		s = <-got
		require.WithinRange(t, time.Now(), released.Add(400*time.Millisecond), released.Add(time.Second))
		require.NoError(t, s.Unlock(t.Context()))
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		f.Clear()
		time.Sleep(10 * time.Second)
		require.NoError(t, dead.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil }))
	})
}

func TestFairWaiterLeaves(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		l, leaver, next := open(t, rdb, Options{Prefix: prefix, Fair: true}), open(t, rdb, Options{Prefix: prefix, Fair: true}), open(t, rdb, Options{Prefix: prefix, Fair: true})
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		queue := l.keysOf("a").all[1]
		waits := func(n int64) {
			require.Eventually(t, func() bool { return rdb.ZCard(t.Context(), queue).Val() == n }, time.Minute, time.Millisecond)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, _, err := leaver.Lock(ctx, "a")
			left <- err
		}()
		waits(1)
		got := make(chan *Lease)
		go func() {
			_, s, _ := next.Lock(t.Context(), "a")
			got <- s
		}()
		waits(2)
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		waits(1)
		require.NoError(t, s.Unlock(t.Context()))
		s = <-got
		require.NoError(t, s.Unlock(t.Context()))
		waits(0)
		_, s, err = leaver.TryLock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
	})
}

// A turn that nobody has taken yet is no lease: it cannot be renewed.
func TestFairTurnIsNotRenewed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{Fair: true})
		k := l.keysOf("a")
		renew := func(token string) any {
			reply, err := renewScript.Run(t.Context(), rdb, l.renewCall(k, token))
			require.NoError(t, err)
			return reply
		}
		_, err := l.acquire(t.Context(), k, "a.1", false)
		require.NoError(t, err)
		require.EqualValues(t, 1, renew("a.1"))
		got, err := l.acquire(t.Context(), k, "b.1", true)
		require.NoError(t, err)
		require.False(t, got.granted)
		_, err = l.release(t.Context(), k, "a.1", 0, false)
		require.NoError(t, err)
		require.EqualValues(t, 0, renew("b.1"))
		got, err = l.acquire(t.Context(), k, "b.1", true)
		require.NoError(t, err)
		require.True(t, got.granted)
		require.EqualValues(t, 1, renew("b.1"))
	})
}

// Both scripts of a fair lock, with their replies lost.
func TestFairWithRepliesLost(t *testing.T) {
	for _, fault := range lostReplies {
		for skip := range 6 {
			t.Run(fmt.Sprint(fault, skip), func(t *testing.T) {
				redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
					f := &redistest.Faults{}
					l, other := open(t, b.Client(f.Options), Options{Prefix: "p", Fair: true, TTL: 30 * time.Second}), open(t, b.Client(), Options{Prefix: "p", Fair: true, TTL: 30 * time.Second})
					loaded(t, b, "p")
					require.NoError(t, other.Do(t.Context(), "warm-up", func(context.Context, *Lease) error { return nil }))
					f.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: skip})
					var fences []int64
					for range 3 {
						var both sync.WaitGroup
						for _, x := range []*Locker{l, other} {
							both.Go(func() {
								err := x.Do(t.Context(), "a", func(_ context.Context, s *Lease) error {
									fences = append(fences, s.Fence())
									time.Sleep(time.Second)
									return nil
								})
								// Three seconds later, when the resend comes, the other has
								// had its turn too, and nobody knows any more.
								if fault != redistest.LoseReply || !errors.Is(err, ErrUnknown) {
									require.NoError(t, err)
								}
							})
							synctest.Wait()
						}
						both.Wait()
					}
					require.Equal(t, 1, f.Fired(fault))
					require.Len(t, fences, 6)
					require.IsIncreasing(t, fences)
				})
			})
		}
	}
}

func TestFairMutualExclusion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		exclusion(t, rdb, Options{Prefix: redistest.Prefix(t), Fair: true})
	})
}

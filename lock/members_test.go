package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestRWLock(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		a, b := open(t, rdb, Options{Prefix: prefix}).RW("x"), open(t, rdb, Options{Prefix: prefix}).RW("x")
		_, r1, err := a.RLock(t.Context())
		require.NoError(t, err)
		_, r2, err := b.TryRLock(t.Context())
		require.NoError(t, err)
		require.Greater(t, r2.Fence(), r1.Fence())
		_, _, err = b.TryLock(t.Context())
		require.ErrorIs(t, err, ErrNotAcquired)

		written := make(chan *Lease)
		go func() {
			_, w, _ := a.Lock(t.Context())
			written <- w
		}()
		// The writer that waits keeps new readers out.
		require.Eventually(t, func() bool {
			_, r, err := b.TryRLock(t.Context())
			if err == nil {
				require.NoError(t, r.Unlock(t.Context()))
			}
			return errors.Is(err, ErrNotAcquired)
		}, time.Minute, time.Millisecond)
		require.NoError(t, r1.Unlock(t.Context()))
		require.NoError(t, r2.Unlock(t.Context()))
		w := <-written
		require.Greater(t, w.Fence(), r2.Fence())
		_, _, err = b.TryRLock(t.Context())
		require.ErrorIs(t, err, ErrNotAcquired)
		_, _, err = b.TryLock(t.Context())
		require.ErrorIs(t, err, ErrNotAcquired)
		require.NoError(t, w.Unlock(t.Context()))
		require.ErrorIs(t, w.Unlock(t.Context()), ErrNotHeld)
		_, r1, err = b.TryRLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, r1.Unlock(t.Context()))
	})
}

func TestWriterThatGivesUpLetsReadersIn(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, other := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		_, r, err := l.RW("x").RLock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, _, err := other.RW("x").Lock(ctx)
			gone <- err
		}()
		time.Sleep(time.Minute + 100*time.Millisecond) // its intent is refreshed
		read := make(chan *Lease)
		go func() {
			_, r, _ := l.RW("x").RLock(t.Context())
			read <- r
		}()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, read)
		now := time.Now()
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		second := <-read
		require.Equal(t, now, time.Now(), "at once")
		require.NoError(t, r.Unlock(t.Context()))
		require.NoError(t, second.Unlock(t.Context()))
	})
}

// Readers end one by one; a writer comes in when the last has.
func TestReadersExpireOneByOne(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, other := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		ctx1, r1, err := l.RW("x").RLock(t.Context())
		require.NoError(t, err)
		r1.term.stop()
		ctx2, r2, err := l.RW("x").RLock(t.Context())
		require.NoError(t, err)
		start := time.Now()
		time.AfterFunc(5*time.Second, r2.term.stop)
		_, w, err := other.RW("x").Lock(t.Context())
		require.NoError(t, err)
		require.WithinRange(t, time.Now(), start.Add(13*time.Second), start.Add(15*time.Second), "renewed once, at 3.3 s")
		require.ErrorIs(t, context.Cause(ctx1), ErrLost)
		require.ErrorIs(t, context.Cause(ctx2), ErrLost)
		require.ErrorIs(t, r2.Unlock(t.Context()), ErrLost)
		require.NoError(t, w.Unlock(t.Context()))
	})
}

func TestSemaphore(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		l, other := open(t, rdb, Options{Prefix: prefix}), open(t, rdb, Options{Prefix: prefix})
		_, _, err := l.Semaphore("s", 0).Lock(t.Context())
		require.ErrorIs(t, err, ErrInvalid)
		_, _, err = l.Semaphore("", 1).Lock(t.Context())
		require.ErrorIs(t, err, ErrInvalid)
		_, one, err := l.Semaphore("s", 2).Lock(t.Context())
		require.NoError(t, err)
		_, two, err := other.Semaphore("s", 2).TryLock(t.Context())
		require.NoError(t, err)
		_, _, err = l.Semaphore("s", 2).TryLock(t.Context())
		require.ErrorIs(t, err, ErrNotAcquired)
		_, _, err = other.Semaphore("s", 3).Lock(t.Context())
		require.ErrorIs(t, err, ErrSize)
		require.NoError(t, one.Unlock(t.Context()))
		_, one, err = other.Semaphore("s", 2).TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, one.Unlock(t.Context()))
		require.NoError(t, two.Unlock(t.Context()))
		_, three, err := other.Semaphore("s", 3).TryLock(t.Context())
		require.NoError(t, err, "nobody uses the old size any more")
		require.NoError(t, three.Unlock(t.Context()))
	})
}

func TestPermitsAreRenewedAndExpire(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		l, other := open(t, b.Client(), Options{Prefix: "p"}), open(t, b.Client(), Options{Prefix: "p"})
		_, kept, err := l.Semaphore("s", 2).Lock(t.Context())
		require.NoError(t, err)
		_, dead, err := l.Semaphore("s", 2).Lock(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		_, _, err = other.Semaphore("s", 2).TryLock(t.Context())
		require.ErrorIs(t, err, ErrNotAcquired)
		dead.term.stop()
		start := time.Now()
		_, s, err := other.Semaphore("s", 2).Lock(t.Context())
		require.NoError(t, err)
		require.Less(t, time.Since(start), 11*time.Second)
		require.ErrorIs(t, dead.Unlock(t.Context()), ErrLost)
		require.NoError(t, kept.Unlock(t.Context()))
		require.NoError(t, s.Unlock(t.Context()))
		require.Zero(t, other.Stats().Rescued)
	})
}

// Whoever holds for longer than a day, while nobody comes, is a member still.
func TestMembersOfMoreThanADay(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		opts := Options{Prefix: "p", TTL: time.Hour}
		l, other := open(t, b.Client(), opts), open(t, b.Client(), opts)
		_, w, err := l.RW("written").Lock(t.Context())
		require.NoError(t, err)
		_, r, err := l.RW("read").RLock(t.Context())
		require.NoError(t, err)
		_, permit, err := l.Semaphore("s", 1).Lock(t.Context())
		require.NoError(t, err)
		for range 3 {
			time.Sleep(26 * time.Hour)
			_, _, err = other.RW("written").TryRLock(t.Context())
			require.ErrorIs(t, err, ErrNotAcquired)
			_, _, err = other.RW("written").TryLock(t.Context())
			require.ErrorIs(t, err, ErrNotAcquired)
			_, _, err = other.RW("read").TryLock(t.Context())
			require.ErrorIs(t, err, ErrNotAcquired)
			_, _, err = other.Semaphore("s", 1).TryLock(t.Context())
			require.ErrorIs(t, err, ErrNotAcquired)
		}
		for _, s := range []*Lease{w, r, permit} {
			require.NoError(t, s.Unlock(t.Context()))
		}
	})
}

// The state lives as long as a member: without the writer's name in it readers would
// come in beside the writer.
func TestStateLivesAsLongAsItsMembers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		const ttl = time.Minute
		l := open(t, rdb, Options{Prefix: redistest.Prefix(t), TTL: ttl})
		_, w, err := l.RW("x").Lock(t.Context())
		require.NoError(t, err)
		keys := w.home.(*room).keys
		for _, k := range keys {
			require.NoError(t, rdb.PExpire(t.Context(), k, ttl).Err())
		}
		for range 2 {
			reply, err := extendScript.Run(t.Context(), rdb, w.term.call)
			require.NoError(t, err)
			require.EqualValues(t, 1, reply)
			for _, k := range keys {
				left, err := rdb.PTTL(t.Context(), k).Result()
				require.NoError(t, err)
				require.InDelta(t, 24*time.Hour+ttl, left, float64(10*time.Second), k)
			}
		}
		require.NoError(t, w.Unlock(t.Context()))
	})
}

// Every script of rooms with its reply lost.
func TestMembersWithRepliesLost(t *testing.T) {
	for _, fault := range lostReplies {
		for skip := range 5 {
			t.Run(fmt.Sprint(fault, skip), func(t *testing.T) {
				redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
					l, f := faulty(t, b, Options{Prefix: "p", TTL: 30 * time.Second})
					other := open(t, b.Client(), Options{Prefix: "p", TTL: 30 * time.Second})
					for range 2 { // the server knows the scripts
						_, s, err := other.RW("x").Lock(t.Context())
						require.NoError(t, err)
						time.Sleep(20 * time.Second)
						require.NoError(t, s.Unlock(t.Context()))
					}
					f.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: skip})
					var last int64
					for range 2 {
						_, r, err := l.RW("x").RLock(t.Context())
						require.NoError(t, err)
						time.Sleep(15 * time.Second)
						require.NoError(t, r.Unlock(t.Context()))
						_, w, err := l.RW("x").Lock(t.Context())
						require.NoError(t, err)
						require.Greater(t, r.Fence(), last)
						require.Greater(t, w.Fence(), r.Fence())
						last = w.Fence()
						_, _, err = other.RW("x").TryRLock(t.Context())
						require.ErrorIs(t, err, ErrNotAcquired)
						require.NoError(t, w.Unlock(t.Context()))
					}
					require.Equal(t, 1, f.Fired(fault))
					_, w, err := other.RW("x").TryLock(t.Context())
					require.NoError(t, err, "nobody was left inside")
					require.NoError(t, w.Unlock(t.Context()))
				})
			})
		}
	}
}

// Readers together, writers alone, never more permits than n, with callers that
// give up; the counters are the model.
func TestMembersNeverTooMany(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		prefix := redistest.Prefix(t)
		var readers, writers, permits, done atomic.Int32
		var workers sync.WaitGroup
		for range 3 {
			l := open(t, rdb, Options{Prefix: prefix})
			for w := range 6 {
				workers.Go(func() {
					for i := range 20 {
						ctx, cancel := t.Context(), context.CancelFunc(func() {})
						if (w+i)%5 == 0 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(i%7+1)*time.Millisecond)
						}
						var s *Lease
						var err error
						var wrong bool
						var inside *atomic.Int32
						switch (w + i) % 3 {
						case 0:
							if _, s, err = l.Semaphore("s", 2).Lock(ctx); err == nil {
								inside = &permits
								wrong = permits.Add(1) > 2
							}
						case 1:
							if _, s, err = l.RW("x").Lock(ctx); err == nil {
								inside = &writers
								wrong = writers.Add(1) > 1 || readers.Load() > 0
							}
						case 2:
							if _, s, err = l.RW("x").RLock(ctx); err == nil {
								inside = &readers
								readers.Add(1)
								wrong = writers.Load() > 0
							}
						}
						cancel()
						if err != nil {
							if !errors.Is(err, context.DeadlineExceeded) {
								t.Error(err)
							}
							continue
						}
						if wrong {
							t.Error("too many inside")
						}
						done.Add(1)
						inside.Add(-1)
						if err := s.Unlock(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		workers.Wait()
		require.Greater(t, done.Load(), int32(100))
	})
}

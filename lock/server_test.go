package lock

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Out of memory, a lease can be renewed and given back, but not taken.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	const ttl = 4 * time.Second
	for _, fair := range []bool{false, true} {
		t.Run(fmt.Sprintf("fair=%v", fair), func(t *testing.T) {
			t.Parallel() // they wait most of the time
			rdb := redistest.Server(t).Client()
			l := open(t, rdb, Options{TTL: ttl, Fair: fair})
			other := open(t, rdb, Options{Prefix: l.opts.Prefix, TTL: ttl, Fair: fair})
			require.NoError(t, l.Do(t.Context(), "b", func(context.Context, *Lease) error { return nil }))
			_, s, err := l.Lock(t.Context(), "a")
			require.NoError(t, err)
			_, permit, err := l.Semaphore("s", 1).Lock(t.Context())
			require.NoError(t, err)
			require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
			_, _, err = other.TryLock(t.Context(), "b")
			require.ErrorIs(t, err, ErrUnavailable)
			require.NoError(t, permit.Unlock(t.Context()))
			// Each is after a third of the TTL: a lease that was not renewed is over by then.
			renewed := l.Stats().Renewals + 4
			require.Eventually(t, func() bool { return l.Stats().Renewals >= renewed }, time.Minute, 10*time.Millisecond)
			_, _, err = other.TryLock(t.Context(), "a")
			require.ErrorIs(t, err, ErrNotAcquired)
			require.NoError(t, s.Unlock(t.Context()))
			require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
			_, next, err := other.TryLock(t.Context(), "a")
			require.NoError(t, err)
			require.Greater(t, next.Fence(), s.Fence())
			require.NoError(t, next.Unlock(t.Context()))
			_, permit, err = other.Semaphore("s", 1).TryLock(t.Context())
			require.NoError(t, err)
			require.NoError(t, permit.Unlock(t.Context()))
		})
	}
}

// A renewal that was made out of memory is in the TTL of the record alone. Who comes to
// wait when there is memory again must not cut it off.
func TestAWaiterKeepsARenewalOutOfMemory(t *testing.T) {
	rdb := redistest.Server(t).Client()
	for _, fair := range []bool{false, true} {
		l := open(t, rdb, Options{TTL: time.Hour, Fair: fair})
		k := l.keysOf("a")
		got, err := l.acquire(t.Context(), k, "a.1", false)
		require.NoError(t, err)
		require.True(t, got.granted)
		require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
		l.opts.TTL = 2 * time.Hour // so that the renewal's end is told from the first
		reply, err := renewScript.Run(t.Context(), rdb, l.renewCall(k, "a.1"))
		require.NoError(t, err)
		require.EqualValues(t, 1, reply)
		require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
		got, err = l.acquire(t.Context(), k, "b.1", true)
		require.NoError(t, err)
		require.False(t, got.granted)
		held, err := l.Holder(t.Context(), "a")
		require.NoError(t, err)
		require.True(t, held.Waiting, "it was written down")
		left, err := rdb.PTTL(t.Context(), k.record[0]).Result()
		require.NoError(t, err)
		require.InDelta(t, 26*time.Hour, left, float64(time.Minute))
	}
}

// And the lease lasts until the end that its holder was told.
func TestALeaseRenewedOutOfMemoryLasts(t *testing.T) {
	for _, fair := range []bool{false, true} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			const ttl = 10 * time.Second
			rdb := b.Client()
			l := open(t, rdb, Options{Prefix: "p", TTL: ttl, Fair: fair})
			k := l.keysOf("a")
			ask := func() answer {
				got, err := l.acquire(t.Context(), k, "b.1", true)
				require.NoError(t, err)
				return got
			}
			got, err := l.acquire(t.Context(), k, "a.1", false)
			require.NoError(t, err)
			require.True(t, got.granted)
			time.Sleep(ttl / 2)
			require.NoError(t, rdb.PExpire(t.Context(), k.record[0], 24*time.Hour+ttl).Err()) // as renew.lua does
			require.False(t, ask().granted)
			for range 29 {
				time.Sleep(ttl/30 + time.Millisecond)
				require.False(t, ask().granted)
			}
			time.Sleep(ttl / 30)
			require.True(t, ask().granted)
		})
	}
}

// A server that has forgotten everything, as after a FLUSHALL, a restart, or a
// failover to a replica that is behind.
func TestFencesGrowOverALossOfData(t *testing.T) {
	srv := redistest.Server(t)
	rdb := srv.Client()
	l := open(t, rdb, Options{TTL: time.Second})
	last := int64(0)
	for i := range 30 {
		for range 20 { // passed on, as fast as it goes
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					_ = l.Do(t.Context(), "a", func(_ context.Context, s *Lease) error {
						if s.Fence() <= last {
							t.Errorf("fence %d after %d", s.Fence(), last)
						}
						last = s.Fence()
						return nil
					})
				})
			}
			wg.Wait()
		}
		if i == 10 {
			require.NoError(t, srv.Restart(t.Context()))
		} else {
			require.NoError(t, rdb.FlushAll(t.Context()).Err())
		}
	}
}

// A server whose clock was set back keeps nobody out for longer than a TTL.
func TestClockSetBack(t *testing.T) {
	m, rdb := redistest.Mini(t)
	l := open(t, rdb, Options{TTL: 10 * time.Second})
	k := l.keysOf("a")
	now := time.Now()
	m.SetTime(now)
	got, err := l.acquire(t.Context(), k, "a.1", false)
	require.NoError(t, err)
	m.SetTime(now.Add(-time.Hour))
	busy, err := l.acquire(t.Context(), k, "b.1", false)
	require.NoError(t, err)
	require.Equal(t, answer{left: 10 * time.Second}, busy)
	m.SetTime(now.Add(-time.Hour + 11*time.Second))
	next, err := l.acquire(t.Context(), k, "b.1", false)
	require.NoError(t, err)
	require.True(t, next.granted)
	require.Greater(t, next.fence, got.fence, "the record remembers the last one")
}

// Of a room, holders that live get the right end with their renewal, and a writer that
// died while it waited keeps nobody out. A holder that died lasts longer by the step.
func TestClockSetBackInARoom(t *testing.T) {
	m, rdb := redistest.Mini(t)
	l := open(t, rdb, Options{TTL: 10 * time.Second})
	now := time.Now()
	m.SetTime(now)
	rw := &room{l: l, keys: []string{"{r}rw", "{r}members"}, channel: "events"}
	ask := func(token string, writes, marks bool) bool {
		got, err := rw.ask(t.Context(), token, writes, marks)
		require.NoError(t, err)
		return got.granted
	}
	require.True(t, ask("lives.1", false, false))
	require.True(t, ask("dies.1", false, false))
	require.False(t, ask("waits.1", true, true))
	require.False(t, ask("b.1", false, false))
	now = now.Add(-time.Hour)
	m.SetTime(now)
	require.True(t, ask("b.2", false, false))
	require.NoError(t, rw.leave(t.Context(), "b.2", false, false))
	reply, err := extendScript.Run(t.Context(), rdb, rw.newTerm("lives.1").call)
	require.NoError(t, err)
	require.EqualValues(t, 1, reply)
	ends, err := rdb.ZScore(t.Context(), rw.keys[1], "lives.1").Result()
	require.NoError(t, err)
	require.InDelta(t, now.Add(10*time.Second).UnixMicro(), ends, 1)
	m.SetTime(now.Add(time.Hour))
	require.False(t, ask("b.3", true, false))
	m.SetTime(now.Add(time.Hour + 11*time.Second))
	require.True(t, ask("b.3", true, false))
}

// Notification wakes every waiter: no timer has to, however often the lock changes
// hands between processes.
func TestHandOversNeedNoRescue(t *testing.T) {
	rounds, tries := 12, 4
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		rounds, tries = 12_000, 1
	}
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, fair := range []bool{false, true} {
			rescued := handOver(t, rdb, fair, rounds)
			for range tries - 1 { // a machine that stood still for a quarter of a second is no lost message
				if rescued > 0 {
					rescued = handOver(t, rdb, fair, rounds)
				}
			}
			require.Zero(t, rescued)
		}
	})
}

// handOver lets three processes take a lock in turns, and returns how many of them a timer
// had to wake.
func handOver(t *testing.T, rdb redis.UniversalClient, fair bool, rounds int) (rescued uint64) {
	opts := Options{Prefix: redistest.Prefix(t), Fair: fair}
	lockers := []*Locker{open(t, rdb, opts), open(t, rdb, opts), open(t, rdb, opts)}
	var wg sync.WaitGroup
	for _, l := range lockers {
		wg.Go(func() {
			for range 10 * rounds {
				if err := l.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	acquired := uint64(0)
	for _, l := range lockers {
		rescued += l.Stats().Rescued
		require.Zero(t, l.Stats().Lost)
		acquired += l.Stats().Acquired
	}
	require.EqualValues(t, 30*rounds, acquired, "each came from Redis")
	return rescued
}

// What doc.go says of the size of a lock's record, with some room for the allocator.
func TestRecordIsSmall(t *testing.T) {
	rdb := redistest.Server(t).Client()
	l := open(t, rdb, Options{})
	require.NoError(t, l.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil }))
	used, err := rdb.MemoryUsage(t.Context(), l.keysOf("a").record[0]).Result()
	require.NoError(t, err)
	require.LessOrEqual(t, used, int64(250))
	t.Logf("%d bytes a lock", used)
}

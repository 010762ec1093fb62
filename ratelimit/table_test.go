package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func BenchmarkLocal(b *testing.B) {
	l, err := NewLocal([]Limit{PerSecond(1000)})
	require.NoError(b, err)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-%05d", i)
	}
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(keys)); pb.Next(); i += 7919 {
			if _, err := l.Allow(ctx, keys[i%len(keys)]); err != nil {
				b.Error(err)
			}
		}
	})
}

// Many goroutines ask for many keys, which are forgotten all the while since they are
// full again: each key is granted its burst, neither more nor less. Time stands still
// in a bubble as long as somebody works.
func TestLocalParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst, keys, goroutines, rounds = 3, 1000, 4, 5
		l, err := NewLocal([]Limit{PerSecond(1).WithBurst(burst)})
		require.NoError(t, err)
		forgotten := 0
		for round := range rounds {
			var granted [2 * keys]atomic.Int64
			var wg sync.WaitGroup
			for range goroutines {
				wg.Go(func() {
					for range burst {
						for _, i := range rand.Perm(2 * keys) {
							key := fmt.Sprint(i) // half of them as ever, half of them new
							if i >= keys {
								key = fmt.Sprint(round, "-", i)
							}
							r, err := l.Allow(context.WithoutCancel(t.Context()), key)
							if err == nil {
								granted[i].Add(r.Granted)
							}
						}
					}
				})
			}
			wg.Wait()
			for i := range granted {
				require.Equal(t, int64(burst), granted[i].Load(), "key %d in round %d", i, round)
			}
			for i := range l.local.table.shards {
				forgotten += int(l.local.table.shards[i].takes)
			}
			time.Sleep(burst * time.Second)
		}
		require.NotZero(t, forgotten)
	})
}

// However many keys there are, those that are full again are forgotten.
func TestIdleKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLocal([]Limit{PerMinute(1), {Name: "window", Rate: 1, Period: time.Minute, Burst: 1, Algorithm: SlidingWindow}})
		require.NoError(t, err)
		ask := func(key string, want bool) {
			t.Helper()
			r, err := l.Allow(t.Context(), key)
			require.NoError(t, err)
			require.Equal(t, want, r.OK())
		}
		known := func() (n, slots int) {
			for i := range l.local.table.shards {
				s := &l.local.table.shards[i]
				if p := s.slots.Load(); p != nil {
					n, slots = n+s.n, slots+len(*p)
				}
			}
			return n, slots
		}
		long := strings.Repeat("x", 10_000)
		ask(long+"1", true)
		ask(long+"2", true)
		ask(long+"1", false)
		require.LessOrEqual(t, len(l.local.bucket(long+"1").key), 2*maxKept)
		require.NotSame(t, l.local.bucket(long+"1"), l.local.bucket(long+"2"))

		const flood = 100_000
		for i := range flood {
			ask(fmt.Sprint(i), true)
		}
		for i := range flood {
			ask(fmt.Sprint(i), false)
			_, err := l.Peek(t.Context(), fmt.Sprint("look", i))
			require.NoError(t, err)
		}
		n, slots := known()
		require.Equal(t, flood+2, n, "a look left something behind, or a key was forgotten")
		require.LessOrEqual(t, slots, 8*flood)

		time.Sleep(2 * time.Minute) // a sliding window remembers the one before
		for i := range 20 * tableShards {
			ask(fmt.Sprint("new", i), true)
		}
		n, slots = known()
		require.Equal(t, 20*tableShards, n)
		require.LessOrEqual(t, slots, 8*n)
	})
}

// Who found a bucket before it was forgotten does not use it.
func TestForgottenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLocal([]Limit{PerSecond(1)})
		require.NoError(t, err)
		_, err = l.Allow(t.Context(), "k")
		require.NoError(t, err)
		b, s := l.local.bucket("k"), l.local.table.shard(l.local.table.hash("k"))
		s.sweep(l.rules, l.local.now())
		require.Same(t, b, l.local.bucket("k"), "its unit is not there again")
		time.Sleep(time.Second)
		var v verdict
		s.sweep(l.rules, l.local.now())
		require.Nil(t, l.local.bucket("k"))
		require.False(t, b.take(l.local, run{n: 1, k: 1}, &v))
		for range 2 {
			l.local.take("k", run{n: 1, k: 1}, &v)
		}
		require.Zero(t, v.granted)
	})
}

// The comment of bucket says so.
func TestBucketIsTwoCacheLines(t *testing.T) {
	var b bucket
	require.LessOrEqual(t, unsafe.Sizeof(b), uintptr(128))
	require.Greater(t, unsafe.Sizeof(b), uintptr(112), "a smaller size class may be aligned to less")
	require.LessOrEqual(t, unsafe.Offsetof(b.one)+unsafe.Offsetof(b.one[0].window), uintptr(64))
}

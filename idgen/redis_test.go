package idgen

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func redisStoreOf(t *testing.T, rdb redis.UniversalClient, opts RedisOptions) Store {
	t.Helper()
	if opts.Prefix == "" {
		opts.Prefix = redistest.Prefix(t)
	}
	s, err := RedisStore(rdb, opts)
	require.NoError(t, err)
	return s
}

func claim(t *testing.T, s Store, step int64) Range {
	t.Helper()
	r, err := s.Claim(t.Context(), "order", step)
	require.NoError(t, err)
	return r
}

func TestRedisStore(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := RedisOptions{Prefix: redistest.Prefix(t)}
		a, b := redisStoreOf(t, rdb, opts), redisStoreOf(t, rdb, opts)
		require.Equal(t, Range{First: 1, Count: 10}, claim(t, a, 10))
		require.Equal(t, Range{First: 11, Count: 1}, claim(t, b, 1))
		require.Equal(t, Range{First: 12, Count: 1 << 32}, claim(t, a, 1<<32))
		r, err := a.Claim(t.Context(), "ord{er}\n", 5)
		require.NoError(t, err)
		require.Equal(t, Range{First: 1, Count: 5}, r)

		opts.Start = 1 << 40
		require.Equal(t, int64(1<<40), claim(t, redisStoreOf(t, rdb, opts), 10).First)
		require.Equal(t, int64(1<<40+10), claim(t, a, 10).First)

		for _, step := range []int64{0, -1, 1<<32 + 1} {
			_, err = a.Claim(t.Context(), "order", step)
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
}

func TestRedisStoreExhausted(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := RedisOptions{Prefix: redistest.Prefix(t), Gap: -1}
		s := redisStoreOf(t, rdb, opts)
		claim(t, s, 1)
		k := opts.Prefix + ":idgen1:{order}:counter"
		require.NoError(t, rdb.HSet(t.Context(), k, "n", "9007199254740980").Err())
		require.Equal(t, Range{First: 9007199254740981, Count: 11}, claim(t, s, 11))
		_, err := s.Claim(t.Context(), "order", 1)
		require.ErrorIs(t, err, ErrExhausted)
		require.Equal(t, "9007199254740991", rdb.HGet(t.Context(), k, "n").Val())
	})
}

// A claim whose reply is lost is unknown and is not sent again; the next one gets
// other numbers, so that both runs together leave a hole and no duplicate.
func TestRedisStoreLostReply(t *testing.T) {
	for _, fault := range []redistest.Fault{redistest.LoseReply, redistest.CutAfter} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			rdb := b.Client(faults.Options)
			store := redisStoreOf(t, rdb, RedisOptions{})
			require.Equal(t, int64(1), claim(t, store, 10).First)
			faults.Add(redistest.Rule{Do: fault, Match: "evalsha"})
			_, err := store.Claim(t.Context(), "order", 10)
			require.ErrorIs(t, err, ErrUnknown)
			require.Equal(t, 1, faults.Fired(fault), "the script ran and its reply was lost")
			require.Equal(t, int64(21), claim(t, store, 10).First, "11 to 20 are the hole")

			s, err := NewSegment(store, "order", Options{MinStep: 10, MaxStep: 10})
			require.NoError(t, err)
			faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: 1, Times: 3})
			last := int64(0)
			for range 55 {
				id, err := s.Next(t.Context())
				require.NoError(t, err)
				require.Greater(t, id, last)
				last = id
			}
			require.Equal(t, 4, faults.Fired(fault))
			require.Equal(t, int64(30+55+3*10), last)
			require.NoError(t, s.Close(t.Context()))
		})
	}
}

// A replica that is promoted without the last claims does not hand them out again,
// to nobody; without the gap it would, which shows that this test can fail.
func TestRedisStoreFailover(t *testing.T) {
	for _, gap := range []int64{0, -1} {
		master := redistest.Server(t, "--repl-diskless-sync-delay", "0")
		replica := redistest.Server(t, "--replicaof", strings.ReplaceAll(master.Addr(), ":", " "), "--replica-read-only", "no")
		ctx := t.Context()
		require.Eventually(t, func() bool { // with its first replica the master changes its id, and would skip the gap too
			return strings.Contains(master.Client().Info(ctx, "replication").Val(), "connected_slaves:1")
		}, time.Minute, 10*time.Millisecond)
		opts := RedisOptions{Prefix: redistest.Prefix(t), Gap: gap}
		a := redisStoreOf(t, master.Client(), opts)
		claim(t, a, 10)
		require.Eventually(t, func() bool {
			return replica.Client().HGet(ctx, opts.Prefix+":idgen1:{order}:counter", "n").Val() == "10"
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, replica.Client().ReplicaOf(ctx, "NO", "ONE").Err())
		lost := claim(t, a, 1000)
		var out strings.Builder
		opts.Logger = slog.New(slog.NewTextHandler(&out, nil))
		next := claim(t, redisStoreOf(t, replica.Client(), opts), 1000)
		overlap := next.First <= lost.last()
		require.Equal(t, gap == -1, overlap)
		require.Contains(t, out.String(), "another Redis server")
		require.Equal(t, next.last()+1, claim(t, redisStoreOf(t, replica.Client(), opts), 1).First, "the gap is skipped once")
	}
}

// A biz that the promoted replica never heard of begins again, whatever the gap, unless
// Start is above what was handed out.
func TestRedisStoreFailoverOfNewBiz(t *testing.T) {
	master := redistest.Server(t, "--repl-diskless-sync-delay", "0")
	replica := redistest.Server(t, "--replicaof", strings.ReplaceAll(master.Addr(), ":", " "), "--replica-read-only", "no")
	require.Eventually(t, func() bool {
		return strings.Contains(replica.Client().Info(t.Context(), "replication").Val(), "master_link_status:up")
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, replica.Client().ReplicaOf(t.Context(), "NO", "ONE").Err())
	opts := RedisOptions{Prefix: redistest.Prefix(t)}
	lost := claim(t, redisStoreOf(t, master.Client(), opts), 10)
	require.Equal(t, lost, claim(t, redisStoreOf(t, replica.Client(), opts), 10), "what doc.go says it does not")

	require.NoError(t, replica.Client().FlushAll(t.Context()).Err())
	opts.Start = lost.last() + 1
	require.Equal(t, opts.Start, claim(t, redisStoreOf(t, replica.Client(), opts), 10).First)
}

// A process that was given numbers which the server forgot says so to the server.
func TestRedisStoreForgot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		opts := RedisOptions{Prefix: redistest.Prefix(t), Gap: 500}
		s := redisStoreOf(t, rdb, opts)
		claim(t, s, 100)
		require.NoError(t, rdb.Del(t.Context(), opts.Prefix+":idgen1:{order}:counter").Err())
		require.Equal(t, Range{First: 601, Count: 10}, claim(t, s, 10))
	})
}

func TestRedisStoreUnavailable(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		store := redisStoreOf(t, b.Client(faults.Options), RedisOptions{})
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		_, err := store.Claim(t.Context(), "order", 1)
		require.Error(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = store.Claim(ctx, "order", 1)
		require.ErrorIs(t, err, ErrUnavailable)
	})
}

func TestRedisStoreEviction(t *testing.T) {
	p := redistest.Server(t, "--maxmemory-policy", "allkeys-lru")
	_, err := RedisStore(p.Client(), RedisOptions{})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "allkeys-lru")
	_, err = RedisStore(p.Client(), RedisOptions{AllowEviction: true})
	require.NoError(t, err)
	for _, o := range []RedisOptions{{Start: -1}, {Start: 1 << 53}, {Gap: -2}, {Gap: 1 << 41}} {
		o.AllowEviction = true
		_, err = RedisStore(p.Client(), o)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = RedisStore(nil, RedisOptions{})
	require.ErrorIs(t, err, ErrInvalid)
}

// Stores that share nothing hand out different numbers, and one that is down is
// stepped over.
func TestSteppedStore(t *testing.T) {
	stores := []*memory{{}, {}, {}}
	stepped, err := SteppedStore(stores[0], stores[1], stores[2])
	require.NoError(t, err)
	seen := map[int64]bool{}
	var mu sync.Mutex
	use := func(n int) {
		var wg sync.WaitGroup
		for range 4 {
			s := segment(t, stepped, Options{MinStep: 5, MaxStep: 20})
			wg.Go(func() {
				for range n {
					id, err := s.Next(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if seen[id] {
						t.Errorf("%d twice", id)
					}
					seen[id] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	use(500)
	stores[1].set(func(m *memory) { m.down = true })
	before := stores[1].get().next
	use(500)
	require.Len(t, seen, 4000)
	require.Equal(t, before, stores[1].get().next)
	for _, m := range stores {
		require.Greater(t, m.get().next, int64(100), "every store takes part")
		m.set(func(m *memory) { m.down = true })
	}
	_, err = stepped.Claim(t.Context(), "order", 1)
	require.ErrorIs(t, err, errDown)

	_, err = SteppedStore()
	require.ErrorIs(t, err, ErrInvalid)
	_, err = SteppedStore(stores[0], stepped)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = SteppedStore(nil)
	require.ErrorIs(t, err, ErrInvalid)
}

// One exhausted store does not end the others, which are only down.
func TestSteppedStoreExhausted(t *testing.T) {
	down := &memory{down: true}
	full := &memory{next: map[string]int64{"order": 1 << 62}}
	stepped, err := SteppedStore(full, down)
	require.NoError(t, err)
	_, err = stepped.Claim(t.Context(), "order", 1)
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrExhausted)
	stepped, err = SteppedStore(full, full)
	require.NoError(t, err)
	_, err = stepped.Claim(t.Context(), "order", 1)
	require.ErrorIs(t, err, ErrExhausted)
}

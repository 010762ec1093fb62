package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Redis goes away and comes back: every policy decides without an error, nobody
// waits longer than Timeout, and soon nobody waits at all.
func TestOutage(t *testing.T) {
	for policy, source := range map[Policy]Source{LocalShare: FromLocalShare, FailOpen: FromFailOpen, FailClosed: FromFailClosed} {
		t.Run(source.String(), func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				var faults redistest.Faults
				rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 3 * time.Second })
				l := open(t, rdb, Options{WhenDown: policy, Instances: 5, Timeout: 100 * time.Millisecond}, PerHour(20))
				ctx := t.Context()
				r, err := l.AllowN(ctx, "k", 2)
				require.NoError(t, err)
				require.Equal(t, FromRedis, r.Source)

				faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "eval", Times: -1})
				granted, longest, slow := int64(0), time.Duration(0), 0
				for range 1000 { // 100 s
					began := time.Now()
					r, err := l.Allow(ctx, "k")
					took := time.Since(began)
					require.NoError(t, err)
					require.Equal(t, source, r.Source)
					require.Equal(t, r.OK(), r.RetryAfter == 0)
					granted += r.Granted
					if longest = max(longest, took); took > 0 {
						slow++
					}
					time.Sleep(100 * time.Millisecond)
				}
				require.LessOrEqual(t, longest, 113*time.Millisecond)
				require.Less(t, slow, 3+5+100/2, "more waited than the failures and the probes")
				switch policy {
				case FailOpen:
					require.Equal(t, int64(1000), granted)
				case FailClosed:
					require.Zero(t, granted)
				case LocalShare:
					require.Equal(t, int64(4), granted)
					r, err = l.AllowN(ctx, "k", 5) // more than a share can ever have
					require.NoError(t, err)
					require.False(t, r.OK())
					require.Less(t, r.RetryAfter, 10*time.Second)
				}
				s := l.Stats()
				require.True(t, s.Down)
				require.Equal(t, uint64(1), s.Outages)
				require.GreaterOrEqual(t, s.WhenDown, uint64(1000))

				faults.Clear()
				for l.Stats().Down {
					_, err := l.Peek(ctx, "k")
					require.NoError(t, err)
					time.Sleep(10 * time.Millisecond)
				}
				r, err = l.AllowN(ctx, "k", 20)
				require.NoError(t, err)
				require.Contains(t, []Source{FromRedis, FromMemory}, r.Source)
				require.Equal(t, uint64(1), l.Stats().Outages)
			})
		})
	}
}

// What goes alone is not waited for longer than what is shared, nor by a caller who left:
// Reset, Cancel, and a Wait that gives its turn back.
func TestNobodyWaitsForWhatGoesAlone(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 5 * time.Second })
		const timeout, patience = 100 * time.Millisecond, 30 * time.Millisecond
		l := open(t, rdb, Options{Timeout: timeout}, PerHour(2))
		ctx := t.Context()
		turn, err := l.Reserve(ctx, "k", 2)
		require.NoError(t, err)
		require.NoError(t, turn.Cancel(ctx)) // the scripts are known from here on
		require.NoError(t, l.Reset(ctx, "k"))
		turn, err = l.Reserve(ctx, "k", 2)
		require.NoError(t, err)

		waiting, leave := context.WithCancel(ctx)
		time.AfterFunc(time.Second, func() {
			faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "eval", Times: -1})
			leave()
		})
		began := time.Now()
		require.ErrorIs(t, l.Wait(waiting, "k"), context.Canceled)
		require.LessOrEqual(t, time.Since(began), time.Second+timeout+timeout/8)

		for name, call := range map[string]func(context.Context) error{
			"Cancel": turn.Cancel,
			"Reset":  func(ctx context.Context) error { return l.Reset(ctx, "k") },
		} {
			began = time.Now()
			require.ErrorIs(t, call(ctx), ErrUnknown, name)
			require.LessOrEqual(t, time.Since(began), timeout+timeout/8, name)

			leaving, leave := context.WithTimeout(ctx, patience)
			began = time.Now()
			err := call(leaving)
			require.ErrorIs(t, err, ErrUnknown, name)
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.Equal(t, patience, time.Since(began), name)
			leave()
			require.ErrorIs(t, call(leaving), ErrUnavailable, name)
		}
		require.NoError(t, l.Close(ctx))
		require.ErrorIs(t, turn.Cancel(ctx), ErrClosed)
	})
}

// However many call while nothing comes back: nobody waits more than for the flight that
// hangs and the next.
func TestNobodyWaitsLong(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 3 * time.Second })
		const timeout = 100 * time.Millisecond
		l := open(t, rdb, Options{Timeout: timeout}, PerSecond(1000))
		_, err := l.Allow(t.Context(), "k")
		require.NoError(t, err)
		var longest atomic.Int64
		var wg sync.WaitGroup
		stop := time.Now().Add(8 * time.Second)
		for i := range 40 {
			wg.Go(func() {
				for began := time.Now(); began.Before(stop); began = time.Now() {
					if _, err := l.Allow(context.WithoutCancel(t.Context()), fmt.Sprint(i%10)); err != nil {
						longest.Store(1 << 62)
					}
					for took := int64(time.Since(began)); ; {
						if m := longest.Load(); took <= m || longest.CompareAndSwap(m, took) {
							break
						}
					}
					time.Sleep(time.Duration(1+i) * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Second)
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "eval", Times: -1})
		wg.Wait()
		require.Greater(t, time.Duration(longest.Load()), timeout, "nothing hung")
		require.LessOrEqual(t, time.Duration(longest.Load()), 2*(timeout+timeout/8))
	})
}

// A server that answers every other time, and one that is gone again and again: a
// share never grants more than its burst and its rate, however often it is switched to.
func TestFlapping(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 20 * time.Millisecond })
		limit := PerSecond(1).WithBurst(10)
		l := open(t, rdb, Options{Timeout: 50 * time.Millisecond}, limit)
		var shared, all []grant
		for i := range 3000 {
			if i%200 == 0 {
				faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", Times: -1, P: 0.9})
			}
			if i%200 == 100 {
				faults.Clear()
			}
			r, err := l.Allow(t.Context(), "k")
			require.NoError(t, err)
			if r.OK() {
				g := grant{time.Now().UnixMicro(), 1}
				all = append(all, g)
				if r.Source == FromLocalShare {
					shared = append(shared, g)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		require.Greater(t, l.Stats().Outages, uint64(5))
		require.NotEmpty(t, shared)
		requireBound(t, limit, shared, 0)
		both := limit // Redis and the share side by side
		both.Rate, both.Burst = 2*limit.Rate, 2*limit.Burst
		requireBound(t, both, all, 0)
	})
}

// A real server that hangs, dies and comes back.
func TestServerGone(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	l := open(t, server.Client(), Options{WhenDown: FailOpen, Timeout: 100 * time.Millisecond}, PerHour(1000))
	source := func() Source {
		r, err := l.Allow(t.Context(), "k")
		require.NoError(t, err)
		return r.Source
	}
	until := func(want Source) {
		t.Helper()
		require.Eventually(t, func() bool { return source() == want && l.Stats().Down == (want != FromRedis) },
			time.Minute, time.Millisecond)
	}
	until(FromRedis)
	server.Pause()
	until(FromFailOpen)
	server.Resume()
	until(FromRedis)
	server.Kill()
	until(FromFailOpen)
	require.NoError(t, server.Restart(t.Context()))
	until(FromRedis)
	require.GreaterOrEqual(t, l.Stats().Outages, uint64(2))
}

// A shard of a cluster that is down is no outage of the others.
func TestShardGone(t *testing.T) {
	t.Parallel()
	cluster := redistest.Cluster(t, 3, 0)
	l := open(t, cluster.Client(), Options{WhenDown: FailOpen, Timeout: 10 * time.Second}, PerHour(1000))
	keys, lanes := map[*redistest.Proc]string{}, map[int]bool{}
	for i := 0; len(keys) < 3; i++ {
		key := fmt.Sprint(i)
		// Two of the lanes reach over the end of a master's slots: they know one outage.
		if p := cluster.MasterOf(l.key(key)); keys[p] == "" && !lanes[l.lane(key)] {
			keys[p], lanes[l.lane(key)] = key, true
		}
	}
	var dead *redistest.Proc
	for _, key := range keys { // of any master
		dead = cluster.KillMaster(l.key(key))
		break
	}
	require.Eventually(t, func() bool {
		r, err := l.Allow(t.Context(), keys[dead])
		require.NoError(t, err)
		return r.Source == FromFailOpen && l.Stats().Down
	}, time.Minute, time.Millisecond)
	for p, key := range keys {
		if p == dead {
			continue
		}
		fromRedis := 0
		for range 50 {
			r, err := l.Allow(t.Context(), key)
			require.NoError(t, err)
			if r.Source == FromRedis {
				fromRedis++
			}
		}
		require.Equal(t, 50, fromRedis, "key %s", key)
	}
}

func TestSlotLane(t *testing.T) {
	// CLUSTER KEYSLOT of these tags is 12182, 5061 and 866.
	require.Equal(t, 12182/1024, slotLane("spillway:ratelimit1:{foo}:state"))
	require.Equal(t, 5061/1024, slotLane("{bar}"))
	require.Equal(t, 0, slotLane("x{hello}y"))
	require.Equal(t, 0x31c3/1024, slotLane("{123456789}"))
}

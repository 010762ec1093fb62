package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// left asks a limiter that saw no faults how many units key has.
func left(t testing.TB, rdb redis.UniversalClient, l *Limiter, key string) int64 {
	t.Helper()
	o := l.opts
	o.Lease = 0
	other := open(t, rdb, o, l.Limits()...)
	require.Equal(t, l.key(key), other.key(key), "another limiter")
	r, err := other.Peek(t.Context(), key)
	require.NoError(t, err)
	return r.Remaining
}

// A lost reply costs its units once, whatever the client's retries, and the policy
// answers. The script is not run again: the server counts.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]redistest.Fault{
		"lost": redistest.LoseReply, "cut after": redistest.CutAfter, "cut before": redistest.CutBefore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t)
			var faults redistest.Faults
			rdb := server.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 2 * time.Second })
			l := open(t, rdb, Options{WhenDown: FailClosed}, PerHour(100))
			r, err := l.AllowN(t.Context(), "k", 10) // loads the script
			require.NoError(t, err)
			require.True(t, r.OK())
			runs := executions(t, server, "get")

			faults.Add(redistest.Rule{Do: fault, Match: "evalsha"})
			r, err = l.AllowN(t.Context(), "k", 10)
			require.NoError(t, err)
			require.Equal(t, FromFailClosed, r.Source)
			require.False(t, r.OK())
			require.Equal(t, 1, faults.Fired(fault))
			ran := executions(t, server, "get") - runs
			if fault == redistest.CutBefore {
				require.Zero(t, ran)
			} else {
				require.Equal(t, 1, ran)
			}
			require.Equal(t, uint64(1), l.Stats().Lost)

			r, err = l.AllowN(t.Context(), "k", 10)
			require.NoError(t, err)
			require.Equal(t, FromRedis, r.Source)
			require.Equal(t, int64(80-10*ran), r.Remaining)
		})
	}
}

func executions(t testing.TB, p *redistest.Proc, command string) int {
	t.Helper()
	n, err := p.Executions(t.Context(), command)
	require.NoError(t, err)
	return n
}

// What gives back runs again when its reply is lost, and gives back once.
func TestLostRepliesOfCancelAndReset(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]redistest.Fault{"lost": redistest.LoseReply, "cut after": redistest.CutAfter} {
		run := func(name string, f func(t *testing.T, l *Limiter, lose func(command string, call func() error), left func() int64)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var faults redistest.Faults
				server := redistest.Server(t)
				clean := server.Client()
				l := open(t, server.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 2 * time.Second }),
					Options{}, PerHour(100), PerSecond(1000))
				turn, err := l.Reserve(t.Context(), "k", 20) // loads the scripts
				require.NoError(t, err)
				require.NoError(t, turn.Cancel(t.Context()))
				require.NoError(t, l.Reset(t.Context(), "k"))
				lose := func(command string, call func() error) {
					t.Helper()
					runs := executions(t, server, command)
					faults.Add(redistest.Rule{Do: fault, Match: "evalsha"})
					require.NoError(t, call())
					require.Equal(t, 1, faults.Fired(fault))
					require.Equal(t, 2, executions(t, server, command)-runs)
				}
				f(t, l, lose, func() int64 { return left(t, clean, l, "k") })
			})
		}
		for _, n := range []int64{30, 5, 90} { // after 90 the turn lies ahead
			run(fmt.Sprintf("%s: cancel after %d", name, n), func(t *testing.T, l *Limiter, lose func(string, func() error), left func() int64) {
				_, err := l.AllowN(t.Context(), "k", n)
				require.NoError(t, err)
				turn, err := l.Reserve(t.Context(), "k", 20)
				require.NoError(t, err)
				require.Equal(t, max(0, 80-n), left())
				lose("get", func() error { return turn.Cancel(t.Context()) })
				require.Equal(t, 100-n, left())
			})
		}
		run(name+": reset", func(t *testing.T, l *Limiter, lose func(string, func() error), left func() int64) {
			_, err := l.AllowN(t.Context(), "k", 90)
			require.NoError(t, err)
			lose("unlink", func() error { return l.Reset(t.Context(), "k") })
			require.Equal(t, int64(100), left())
		})
	}
}

// Random faults all the while: units granted and units that may have been lost are
// all that the limit ever gave away.
func TestNeverMintedUnderFaults(t *testing.T) {
	seed := rand.Uint64() // not in the bubble, where it is always the same time
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		faults := redistest.Faults{Seed: seed}
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 20 * time.Millisecond })
		clean := b.Client()
		const burst = 5000 // more than is asked for
		l := open(t, rdb, Options{WhenDown: FailClosed, Timeout: 100 * time.Millisecond},
			Limit{Rate: 1, Period: 12 * time.Hour, Burst: burst})
		for _, do := range []redistest.Fault{redistest.LoseReply, redistest.CutAfter, redistest.CutBefore} {
			faults.Add(redistest.Rule{Do: do, Match: "eval", Times: -1, P: 0.05})
		}
		granted, lost := int64(0), int64(0)
		for i := range 400 {
			n := int64(1 + i%5)
			before := l.Stats().Lost
			r, err := l.AllowN(t.Context(), "k", n)
			require.NoError(t, err)
			granted += r.Granted
			if l.Stats().Lost > before {
				lost += n
			}
			if l.Stats().Down {
				time.Sleep(time.Second)
			}
		}
		remaining := left(t, clean, l, "k")
		require.NotZero(t, lost)
		require.LessOrEqual(t, burst-remaining, granted+lost, "something was charged twice")
		require.GreaterOrEqual(t, burst-remaining, granted, "something was minted")
		t.Logf("seed %d: %d granted, %d perhaps lost, %d charged", faults.Seed, granted, lost, burst-remaining)
	})
}

// Calls of many goroutines: each unit is granted once, and merged calls are few.
func TestHotKey(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := open(t, rdb, Options{}, Limit{Rate: 1, Period: 24 * time.Hour, Burst: 500})
		granted := make(chan int64)
		for i := range 64 {
			go func() {
				sum := int64(0)
				for range 20 {
					r, err := l.AllowN(context.WithoutCancel(t.Context()), "k", int64(1+i%2))
					if err == nil {
						sum += r.Granted
					}
				}
				granted <- sum
			}()
		}
		sum := int64(0)
		for range 64 {
			sum += <-granted
		}
		require.Equal(t, int64(500), sum)
		s := l.Stats()
		require.Equal(t, uint64(64*20), s.Calls+s.FromMemory)
		require.Less(t, s.Batches, s.Calls/2)
	})
}

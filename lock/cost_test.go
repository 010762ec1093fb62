package lock

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// The table under "Cost per call" in doc.go is measured, row by row: a row that no
// test claims fails.
func TestCostPerCall(t *testing.T) {
	rows := redistest.Costs(t)
	for name, measure := range map[string]func(*testing.T, redistest.Cost){
		"Lock and Unlock, alone":        costAlone,
		"Lock and Unlock, passed on":    costPassedOn,
		"Lock, held elsewhere":          costHeldElsewhere,
		"RLock, Semaphore.Lock, Unlock": costMembers,
		"renewals":                      costRenewals,
		"Holder":                        costHolder,
		"ForceUnlock":                   costForceUnlock,
		"Quorum.Lock, Unlock":           costQuorum,
	} {
		row := rows.Row(t, name)
		delete(rows, name)
		t.Run(name, func(t *testing.T) { measure(t, row) })
	}
	require.Empty(t, rows, "not measured")
}

func costAlone(t *testing.T, row redistest.Cost) {
	m := newMeter(t)
	l := open(t, m.rdb, Options{})
	cycle := func() {
		_, s, err := l.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
	}
	trips, commands := m.of(cycle)
	require.Equal(t, row["round trips"], fmt.Sprint(trips))
	require.Equal(t, "O(1)", row["script"])
	require.LessOrEqual(t, commands, 2*3, "TIME, GET, SET")
	if !redistest.RaceEnabled {
		require.LessOrEqual(t, testing.AllocsPerRun(100, cycle), float64(row.Allocations()))
	}
}

func costPassedOn(t *testing.T, row redistest.Cost) {
	m := newMeter(t)
	l := open(t, m.rdb, Options{TTL: time.Hour}) // no renewals
	alone := float64(redistest.Costs(t).Row(t, "Lock and Unlock, alone").Allocations())
	m.of(func() { // the server knows the scripts from here on
		require.NoError(t, l.Do(t.Context(), "a", func(context.Context, *Lease) error { return nil }))
	})
	start := l.Stats()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m.trips.N.Store(0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				_, s, err := l.Lock(t.Context(), "a")
				if err == nil {
					err = s.Unlock(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	stats := l.Stats()
	passed, taken := float64(stats.HandOvers-start.HandOvers), float64(stats.Acquired-start.Acquired)
	require.Greater(t, passed, 10*taken)
	require.Equal(t, row["round trips"], fmt.Sprint(m.trips.N.Load()-2*int64(taken)), "beyond those of what was taken from Redis")
	if !redistest.RaceEnabled {
		require.LessOrEqual(t, (float64(after.Mallocs-before.Mallocs)-alone*taken)/passed, float64(row.Allocations())+0.5)
	}
}

func costHeldElsewhere(t *testing.T, row redistest.Cost) {
	var first [2]int64
	var every [2]float64
	for i, fair := range []bool{false, true} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			opts := Options{Prefix: "p", TTL: time.Hour, Fair: fair}
			holder := open(t, b.Client(), opts)
			_, s, err := holder.Lock(t.Context(), "a")
			require.NoError(t, err)
			asks, rdb := &redistest.Trips{}, b.Client()
			rdb.AddHook(asks)
			got := make(chan *Lease)
			waiting := open(t, rdb, opts)
			go func() {
				_, s, _ := waiting.Lock(t.Context(), "a")
				got <- s
			}()
			synctest.Wait()
			first[i] = asks.N.Swap(0) + int64(len(b.Mini.PubSubChannels("")))
			time.Sleep(time.Minute + 100*time.Millisecond)
			every[i] = 60 / float64(asks.N.Load())
			require.NoError(t, s.Unlock(t.Context()))
			require.NoError(t, (<-got).Unlock(t.Context()))
		})
	}
	require.Equal(t, first[0], first[1])
	require.Equal(t, row["round trips"], fmt.Sprintf("%d, and 1 every %.2g s (Fair: %.2g s)", first[0], every[0], every[1]))
}

func costMembers(t *testing.T, row redistest.Cost) {
	m := newMeter(t)
	l := open(t, m.rdb, Options{TTL: time.Hour})
	require.Equal(t, "O(log holders)", row["script"])
	var costs []int
	var held []*Lease
	for _, holders := range []int{0, 200} {
		for range holders {
			_, r, err := l.RW("x").RLock(t.Context())
			require.NoError(t, err)
			_, permit, err := l.Semaphore("x", 1000).Lock(t.Context())
			require.NoError(t, err)
			held = append(held, r, permit)
		}
		for _, join := range []func(context.Context) (context.Context, *Lease, error){l.RW("x").RLock, l.Semaphore("x", 1000).Lock} {
			var inside []*Lease
			in, a := m.of(func() {
				_, s, err := join(t.Context())
				require.NoError(t, err)
				inside = append(inside, s)
			})
			out, b := m.of(func() {
				require.NoError(t, inside[0].Unlock(t.Context()))
				inside = inside[1:]
			})
			require.Equal(t, row["round trips"], fmt.Sprintf("%d each", in))
			require.Equal(t, row["round trips"], fmt.Sprintf("%d each", out))
			costs = append(costs, a, b)
		}
	}
	require.Equal(t, costs[:4], costs[4:], "commands inside the scripts, none of which is linear in the members")
	for _, s := range held {
		require.NoError(t, s.Unlock(t.Context()))
	}
}

func costRenewals(t *testing.T, row redistest.Cost) {
	const ttls = 4
	for _, leases := range []int{pipelined, pipelined + 1} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			b.Mini.ClockTTL(false)
			sent := &redistest.Trips{}
			rdb := b.Client()
			l := open(t, rdb, Options{Prefix: "p"})
			var held []*Lease
			for i := range leases {
				_, s, err := l.Lock(t.Context(), strconv.Itoa(i))
				require.NoError(t, err)
				held = append(held, s)
			}
			rdb.AddHook(sent)
			time.Sleep(ttls * l.opts.TTL)
			pipelines := (leases + pipelined - 1) / pipelined
			require.Equal(t, row["round trips"], fmt.Sprintf("%.0f a TTL, one pipeline for up to %d leases", float64(sent.N.Load())/ttls/float64(pipelines), sent.Most.Load()))
			for _, s := range held {
				require.NoError(t, s.Unlock(t.Context()))
			}
		})
	}
}

func costHolder(t *testing.T, row redistest.Cost) {
	m := newMeter(t)
	l := open(t, m.rdb, Options{})
	trips, commands := m.of(func() {
		_, err := l.Holder(t.Context(), "a")
		require.NoError(t, err)
	})
	require.Equal(t, row["round trips"], fmt.Sprint(trips))
	require.Equal(t, "O(1)", row["script"])
	require.LessOrEqual(t, commands, 2, "TIME, GET")
}

func costForceUnlock(t *testing.T, row redistest.Cost) {
	m := newMeter(t)
	l := open(t, m.rdb, Options{})
	holder := open(t, m.srv.Client(), Options{Prefix: l.opts.Prefix})
	for range 2 { // the first time the server learns the scripts
		_, s, err := holder.Lock(t.Context(), "a")
		require.NoError(t, err)
		m.trips.N.Store(0)
		require.NoError(t, l.ForceUnlock(t.Context(), "a"))
		require.ErrorIs(t, s.Unlock(t.Context()), ErrLost)
	}
	require.Equal(t, row["round trips"], fmt.Sprint(m.trips.N.Load()))
	require.Equal(t, "O(1)", row["script"])
}

func costQuorum(t *testing.T, row redistest.Cost) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		nodes, faults := threeNodes(t, b)
		q := quorum(t, nodes, Options{})
		_, s, err := q.Lock(t.Context(), "a")
		require.NoError(t, err)
		require.NoError(t, s.Unlock(t.Context()))
		synctest.Wait()
		var sent []*redistest.Trips
		for i, rdb := range nodes {
			sent = append(sent, &redistest.Trips{})
			rdb.AddHook(sent[i])
			faults[i].Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Times: -1, Delay: 100 * time.Millisecond})
		}
		each := func(call func()) {
			start := time.Now()
			call()
			require.Less(t, time.Since(start), 200*time.Millisecond, "at once")
			synctest.Wait()
			for _, s := range sent {
				require.Equal(t, row["round trips"], fmt.Sprintf("%d each, to every server at once", s.N.Swap(0)))
			}
		}
		each(func() {
			_, s, err = q.Lock(t.Context(), "a")
			require.NoError(t, err)
		})
		each(func() { require.NoError(t, s.Unlock(t.Context())) })
	})
}

// A meter counts what calls cost on a server of its own.
type meter struct {
	srv   *redistest.Proc
	rdb   *redis.Client
	trips *redistest.Trips
	t     *testing.T
}

func newMeter(t *testing.T) meter {
	srv := redistest.Server(t)
	m := meter{srv, srv.Client(), &redistest.Trips{}, t}
	m.rdb.AddHook(m.trips)
	return m
}

// of returns the round trips of call, and the commands that its scripts ran. It calls
// it first so that the server knows the scripts, and a connection is open.
func (m meter) of(call func()) (sent, commands int) {
	call()
	before := m.inside()
	m.trips.N.Store(0)
	call()
	sent = int(m.trips.N.Load())
	return sent, m.inside() - before
}

var commandCalls = regexp.MustCompile(`cmdstat_([a-z|]+):calls=(\d+)`)

// inside returns how many commands scripts have run.
func (m meter) inside() (n int) {
	clean := m.srv.Client()
	defer clean.Close()
	for _, c := range commandCalls.FindAllStringSubmatch(clean.Info(m.t.Context(), "commandstats").Val(), -1) {
		switch c[1] {
		case "info", "hello", "ping", "evalsha", "eval", "subscribe", "client|setinfo":
		default:
			calls, err := strconv.Atoi(c[2])
			require.NoError(m.t, err)
			n += calls
		}
	}
	return n
}

package lock

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/chaos"
	"github.com/spillway-go/spillway/internal/redistest"
)

// A replica that has missed the last hand-over becomes the master: it takes a lock
// for held that was given back, and knows nothing of its holder.
func TestProcessesOverAFailoverToAReplicaThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, fair := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "fair"}[fair], func(t *testing.T) {
			t.Parallel() // they wait most of the time
			failoverBehind(t, fair)
		})
	}
}

func failoverBehind(t *testing.T, fair bool) {
	const ttl = 4500 * time.Millisecond
	resource := redistest.Server(t) // or the failover would lose the writes too
	set := redistest.Sentinel(t)
	c := stint{Addr: resource.Addr(), Prefix: "p", Fair: fair, TTL: ttl, Hold: 10 * time.Minute, Deaf: 10 * time.Minute, From: "go"}
	rdb := set.Client(func(o *redis.FailoverOptions) { c.Master, c.Sentinels = o.MasterName, o.SentinelAddrs })
	l := open(t, rdb, Options{Prefix: c.Prefix, TTL: ttl, Fair: fair})
	_, stale, err := l.Lock(t.Context(), "a")
	require.NoError(t, err)

	h := &history{}
	workers := []*chaos.Process{chaos.Start(t, "hold", c, h.report), chaos.Start(t, "hold", c, h.report)}
	resourceOf := resource.Client()
	require.Eventually(t, func() bool { // both are there
		clients, err := resourceOf.ClientList(t.Context()).Result()
		return err == nil && strings.Count(clients, "cmd=exists") == len(workers)
	}, time.Minute, 5*time.Millisecond)
	conn := rdb.Conn() // WAIT is about what its own connection wrote, and what came before
	require.Eventually(t, func() bool {
		err := conn.Set(t.Context(), "any", "write", 0).Err()
		n, err2 := conn.Wait(t.Context(), 1, time.Second).Result()
		return err == nil && err2 == nil && n == 1
	}, time.Minute, time.Millisecond)
	require.NoError(t, conn.Close())
	// From here on the sentinels must not have time to bring the replica back.
	replica := set.CutReplica()
	require.NoError(t, resourceOf.Set(t.Context(), c.From, 1, 0).Err())
	waits := func() bool {
		got, err := l.Holder(t.Context(), "a")
		return err == nil && got.Waiting
	}
	require.Eventually(t, waits, time.Minute, time.Millisecond)
	require.NoError(t, stale.Unlock(t.Context()))
	first := h.sees(t, 0, "begin")
	require.Greater(t, first.Fence, stale.Fence())
	require.Eventually(t, waits, time.Minute, time.Millisecond)

	promoted := replica.Client()
	require.Contains(t, promoted.Get(t.Context(), l.keysOf("a").record[0]).Val(), l.id, "it believes what was true before the hand-over")
	set.KillMaster()
	require.Eventually(t, func() bool {
		role, err := promoted.Do(t.Context(), "role").Slice()
		return err == nil && role[0] == "master"
	}, time.Minute, time.Millisecond)
	over := monotonic()

	lost := h.sees(t, 0, "lost")
	require.Equal(t, first.PID, lost.PID)
	require.Less(t, lost.Late, lost.Still, "ctx ends before the validity if the process runs")
	second := h.sees(t, 1, "begin")
	require.NotEqual(t, first.PID, second.PID)
	require.Greater(t, second.Fence, first.Fence, "which the new master has never heard of")
	require.Less(t, time.Duration(second.At-over), ttl+time.Second, "a free lock is taken")

	// The one that lost goes on writing, deaf to its ctx.
	log := func(name string) []string { return resourceOf.LRange(t.Context(), c.Prefix+":"+name, 0, -1).Val() }
	require.Eventually(t, func() bool { return interleaved(log("unfenced")) > 10 }, time.Minute, 10*time.Millisecond,
		"the control: without a fence the resource takes both")
	require.Zero(t, interleaved(log("log")), "the fenced resource took no older holder's write")
	for _, w := range workers {
		w.Kill()
	}
}

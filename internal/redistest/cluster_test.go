package redistest

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestClusterFailsOver(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := Cluster(t, 3, 1)
	require.Len(t, c.Nodes(), 6)
	require.Len(t, c.Masters(), 3)
	rdb := c.Client()
	set := func(key string) error { return rdb.Set(t.Context(), key, "v", 0).Err() }
	require.NoError(t, set("k"))
	require.NoError(t, poll(t.Context(), func() error { return onReplica(t, c.MasterOf("k"), "k") }))

	start := time.Now()
	dead := c.KillMaster("k")
	require.NoError(t, poll(t.Context(), func() error { return set("k") }))
	t.Log("writes failed for", time.Since(start))
	require.NotSame(t, dead, c.MasterOf("k"))
	require.Len(t, c.Masters(), 3)

	require.NoError(t, dead.Restart(t.Context()))
	require.NoError(t, poll(t.Context(), func() error {
		return dead.says(t.Context(), "replication", "role:slave", "master_link_status:up")
	}))
	require.NotSame(t, dead, c.MasterOf("k"))
	require.NoError(t, set("k"))
}

// onReplica returns nil when a replica of master has what it wrote to key up to now.
func onReplica(t *testing.T, master *Proc, key string) error {
	return master.ask(func(rdb *redis.Client) error {
		conn := rdb.Conn() // WAIT counts for what its own connection wrote
		defer conn.Close()
		if err := conn.Expire(t.Context(), key, time.Hour).Err(); err != nil {
			return err
		}
		n, err := conn.Wait(t.Context(), 1, 500*time.Millisecond).Result()
		if err == nil && n < 1 {
			err = errors.New("no replica has it")
		}
		return err
	})
}

// awaitMaster waits until the sentinel that Master asks has heard of the failover: a
// client may hear of it from another one first.
func (s *SentinelProcs) awaitMaster(t *testing.T, is func(p *Proc) bool) error {
	return poll(t.Context(), func() error {
		if !is(s.Master()) {
			return errors.New("it is another one")
		}
		return nil
	})
}

// Two masters of one epoch are a cluster in which a failover fails now and then.
func TestMastersTakeOneEpochEach(t *testing.T) {
	for range 5 {
		c := Cluster(t, 3, 1)
		var epochs []int
		for _, p := range c.Masters() {
			self, err := c.self(p)
			require.NoError(t, err)
			epochs = append(epochs, self.epoch)
		}
		require.Equal(t, []int{4, 5, 6}, epochs)
		closeAll(c.nodes)
	}
}

func TestMigrationShowsAskAndTryagain(t *testing.T) {
	c := Cluster(t, 2, 0)
	rdb := c.Client()
	for _, k := range []string{"{x}1", "{x}2", "{x}3"} {
		require.NoError(t, rdb.Set(t.Context(), k, "v", 0).Err())
	}
	m := c.Migrate("{x}1")
	m.Move("{x}1", "{x}absent")
	raw := m.From.Client() // a client that follows nothing
	require.True(t, redis.HasErrorPrefix(raw.Get(t.Context(), "{x}1").Err(), "ASK"))
	require.NoError(t, raw.Get(t.Context(), "{x}2").Err())
	require.True(t, redis.HasErrorPrefix(raw.MGet(t.Context(), "{x}1", "{x}2").Err(), "TRYAGAIN"))
	require.Equal(t, "v", rdb.Get(t.Context(), "{x}1").Val(), "the cluster client follows ASK")

	m.Finish()
	require.Same(t, m.To, c.MasterOf("{x}1"))
	require.True(t, redis.HasErrorPrefix(raw.Get(t.Context(), "{x}2").Err(), "MOVED"))
	require.Equal(t, []any{"v", "v", "v"}, rdb.MGet(t.Context(), "{x}1", "{x}2", "{x}3").Val())
}

func TestSentinelFailsOverAndTheClientFollows(t *testing.T) {
	t.Parallel() // it waits most of the time
	s := Sentinel(t)
	rdb := s.Client()
	require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, poll(t.Context(), func() error { return onReplica(t, s.Master(), "k") }))

	start := time.Now()
	dead := s.KillMaster()
	require.NoError(t, poll(t.Context(), func() error { return rdb.Set(t.Context(), "k2", "v", 0).Err() }))
	t.Log("writes failed for", time.Since(start))
	require.NoError(t, s.awaitMaster(t, func(p *Proc) bool { return p != dead }))
	require.Equal(t, "v", s.Master().Client().Get(t.Context(), "k").Val())
}

func TestSentinelFailsOverToAReplicaThatIsBehind(t *testing.T) {
	t.Parallel()
	s := Sentinel(t)
	rdb := s.Client()
	require.NoError(t, rdb.Set(t.Context(), "k", "old", 0).Err())
	require.NoError(t, poll(t.Context(), func() error { return onReplica(t, s.Master(), "k") }))
	behind := s.CutReplica()
	require.NoError(t, rdb.Set(t.Context(), "k", "new", 0).Err())
	s.KillMaster()
	require.NoError(t, poll(t.Context(), func() error { return rdb.Set(t.Context(), "k2", "v", 0).Err() }))
	require.NoError(t, s.awaitMaster(t, func(p *Proc) bool { return p == behind }))
	require.Equal(t, "old", rdb.Get(t.Context(), "k").Val())
}

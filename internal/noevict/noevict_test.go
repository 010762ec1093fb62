package noevict

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestCheck(t *testing.T) {
	p := redistest.Server(t)
	ctx, admin := t.Context(), p.Client()
	require.NoError(t, admin.Do(ctx, "acl", "setuser", "noconfig", "on", ">pw", "~*", "+@all", "-config").Err())
	require.NoError(t, admin.Do(ctx, "acl", "setuser", "nothing", "on", ">pw", "~*", "+@all", "-config", "-info").Err())
	as := func(user string) *redis.Client {
		return p.Client(func(o *redis.Options) { o.Username, o.Password = user, "pw" })
	}
	for _, policy := range []string{NoEviction, "volatile-lru", "allkeys-random"} {
		require.NoError(t, admin.ConfigSet(ctx, "maxmemory-policy", policy).Err())
		for name, rdb := range map[string]*redis.Client{"by CONFIG": admin, "by INFO": as("noconfig")} {
			got, err := Check(ctx, rdb)
			require.NoError(t, err, name)
			require.Equal(t, policy, got, name)
		}
		_, err := Check(ctx, as("nothing"))
		require.ErrorIs(t, err, errUnreadable)
		require.ErrorContains(t, err, "NOPERM")
	}
	unreadable := func(rdb redis.UniversalClient) {
		t.Helper()
		_, err := Check(ctx, rdb)
		require.ErrorIs(t, err, errUnreadable)
	}
	p.Kill()
	unreadable(admin)
	_, mini := redistest.Mini(t) // knows neither
	unreadable(mini)
}

func TestCheckAsksEveryMaster(t *testing.T) {
	ctx := t.Context()
	cluster := redistest.Cluster(t, 2, 0)
	a, b := redistest.Server(t), redistest.Server(t)
	ring := redis.NewRing(&redis.RingOptions{
		Addrs:              map[string]string{"a": a.Addr(), "b": b.Addr()},
		HeartbeatFrequency: time.Hour, // or it would leave out the master that is down, sooner or later
		DialerRetries:      1,         // as the clients of the harness have it
	})
	defer ring.Close()
	for name, c := range map[string]struct {
		rdb   redis.UniversalClient
		nodes []*redistest.Proc
	}{
		"cluster": {cluster.Client(), cluster.Nodes()},
		"ring":    {ring, []*redistest.Proc{a, b}},
	} {
		require.Len(t, c.nodes, 2)
		for _, p := range c.nodes {
			for _, policy := range []string{NoEviction, "allkeys-lru", NoEviction} {
				require.NoError(t, p.Client().ConfigSet(ctx, "maxmemory-policy", policy).Err())
				got, err := Check(ctx, c.rdb)
				require.NoError(t, err, name)
				require.Equal(t, policy, got, name)
			}
		}
		// One master cannot be asked: what the other one says still counts.
		down, up := c.nodes[0], c.nodes[1]
		down.Kill()
		_, err := Check(ctx, c.rdb)
		require.ErrorIs(t, err, errUnreadable, name)
		require.NoError(t, up.Client().ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err())
		got, err := Check(ctx, c.rdb)
		require.NoError(t, err, name)
		require.Equal(t, "allkeys-lru", got, name)
	}
}

package noevict

import (
	"testing"

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
	for _, c := range []struct {
		policy string
		want   error
	}{{"noeviction", nil}, {"volatile-lru", ErrEvicts}, {"allkeys-random", ErrEvicts}} {
		require.NoError(t, admin.ConfigSet(ctx, "maxmemory-policy", c.policy).Err())
		for name, rdb := range map[string]*redis.Client{"by CONFIG": admin, "by INFO": as("noconfig")} {
			err := Check(ctx, rdb)
			require.ErrorIs(t, err, c.want, name)
			if c.want != nil {
				require.ErrorContains(t, err, c.policy, name)
				require.NotErrorIs(t, err, ErrUnreadable, name)
			}
		}
		err := Check(ctx, as("nothing"))
		require.ErrorIs(t, err, ErrUnreadable)
		require.NotErrorIs(t, err, ErrEvicts)
		require.ErrorContains(t, err, "NOPERM")
	}
	p.Kill()
	require.ErrorIs(t, Check(ctx, admin), ErrUnreadable)

	_, mini := redistest.Mini(t)
	require.ErrorIs(t, Check(ctx, mini), ErrUnreadable)
}

func TestCheckAsksEveryMaster(t *testing.T) {
	ctx := t.Context()
	cluster := redistest.Cluster(t, 2, 0)
	a, b := redistest.Server(t), redistest.Server(t)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": a.Addr(), "b": b.Addr()}})
	defer ring.Close()
	for name, c := range map[string]struct {
		rdb   redis.UniversalClient
		nodes []*redistest.Proc
	}{
		"cluster": {cluster.Client(), cluster.Nodes()},
		"ring":    {ring, []*redistest.Proc{a, b}},
	} {
		require.NoError(t, Check(ctx, c.rdb), name)
		for _, p := range c.nodes {
			set := func(policy string) {
				require.NoError(t, p.Client().ConfigSet(ctx, "maxmemory-policy", policy).Err())
			}
			set("allkeys-lru")
			require.ErrorIs(t, Check(ctx, c.rdb), ErrEvicts, name)
			set("noeviction")
		}
	}
	a.Kill()
	b.Kill()
	require.ErrorIs(t, Check(ctx, ring), ErrUnreadable)
}

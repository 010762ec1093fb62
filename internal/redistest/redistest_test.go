package redistest

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "12") // the parallel ones wait nearly all the time; the command line has the last word
	m.Run()
}

func TestEachKindOfServerIsWhatItSays(t *testing.T) {
	requireServer(t) // or the last line fails
	var kinds []string
	Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		kind := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
		kinds = append(kinds, kind)
		p := Prefix(t)
		require.NoError(t, rdb.Set(t.Context(), p, "v", 0).Err())
		require.Equal(t, "v", rdb.Get(t.Context(), p).Val())
		err := rdb.MGet(t.Context(), "a", "b").Err()
		if c, ok := rdb.(*redis.ClusterClient); ok {
			// The client refuses or splits such calls: a script reaches the server.
			err = c.Eval(t.Context(), `return redis.call('MGET', KEYS[1], KEYS[2])`, []string{p + "a", p + "b"}).Err()
		}
		if kind == "cluster" {
			require.ErrorContains(t, err, "CROSSSLOT")
		} else {
			require.NoError(t, err)
		}
		info, err := rdb.Info(t.Context(), "server").Result()
		isServer := err == nil && strings.Contains(info, "redis_version")
		require.Equal(t, kind != "miniredis", isServer, info)
	})
	require.Equal(t, []string{"miniredis", "server", "cluster"}, kinds)
}

func TestSharedServersAreStartedOnce(t *testing.T) {
	requireServer(t)
	if !diesWithParent {
		t.Skip("servers are shared only where they end with the binary")
	}
	pids := func(t testing.TB) []int { return []int{Shared(t).PID(), Cluster(t, 1, 0).Nodes()[0].PID()} }
	var a, b []int
	t.Run("a", func(t *testing.T) { a = pids(t) })
	t.Run("b", func(t *testing.T) { b = pids(t) })
	require.Equal(t, a, b)
	require.NotEqual(t, a[0], a[1])
	require.Panics(t, Shared(t).Kill, "a test killed what others use")
	require.Panics(t, Cluster(t, 1, 0).Nodes()[0].Pause, "a test paused what others use")
	require.NoError(t, Shared(t).Client().Ping(t.Context()).Err())
}

func TestPrefixesDiffer(t *testing.T) {
	t.Run("a {b} %/"+strings.Repeat("x", 300), func(t *testing.T) {
		a, b := Prefix(t), Prefix(t)
		require.NotEqual(t, a, b)
		require.Regexp(t, `^[a-zA-Z0-9_-]{1,100}$`, a)
	})
}

func TestMiniExpiresKeys(t *testing.T) {
	m, rdb := Mini(t)
	require.NoError(t, rdb.Set(t.Context(), "k", "v", time.Minute).Err())
	m.SetTime(time.Now().Add(2 * time.Minute))
	require.ErrorIs(t, rdb.Get(t.Context(), "k").Err(), redis.Nil)
}

func TestBubble(t *testing.T) {
	wall := time.Now()
	Bubble(t, func(t *testing.T, b *Env) {
		rdb := b.Client()
		start := time.Now()
		require.NoError(t, rdb.Set(t.Context(), "k", "v", 30*time.Minute).Err())
		time.Sleep(30*time.Minute - time.Second)
		require.NoError(t, rdb.Get(t.Context(), "k").Err())
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, rdb.Get(t.Context(), "k").Err(), redis.Nil)
		require.Equal(t, 30*time.Minute+time.Second, time.Since(start), "the calls themselves took time")
	})
	require.Less(t, time.Since(wall), 10*time.Second)
}

// On a bare net.Pipe the client times out here: both sides write, none reads.
func TestBubbleTakesLargePipelines(t *testing.T) {
	Bubble(t, func(t *testing.T, b *Env) {
		rdb := b.Client()
		start := time.Now()
		_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 1000 {
				p.Echo(t.Context(), strings.Repeat("x", 1000))
			}
			return nil
		})
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
	})
}

func TestBubbleModifiesTheClient(t *testing.T) {
	Bubble(t, func(t *testing.T, b *Env) {
		rdb := b.Client(func(o *redis.Options) { o.DB = 3 })
		require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
		require.True(t, b.Mini.DB(3).Exists("k"))
	})
}

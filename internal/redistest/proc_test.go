package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func TestKillLosesEverythingAndRestartServesAgain(t *testing.T) {
	s := Server(t)
	rdb := s.Client(func(o *redis.Options) { o.MaxRetries = -1 })
	require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
	sha, err := rdb.ScriptLoad(t.Context(), "return 1").Result()
	require.NoError(t, err)
	require.NoError(t, rdb.EvalSha(t.Context(), sha, nil).Err())

	before := s.PID()
	s.Kill()
	require.Error(t, rdb.Ping(t.Context()).Err())
	require.NoError(t, s.Restart(t.Context()))
	require.NotEqual(t, before, s.PID())

	rdb = s.Client()
	require.Zero(t, rdb.Exists(t.Context(), "k").Val())
	require.True(t, redis.HasErrorPrefix(rdb.EvalSha(t.Context(), sha, nil).Err(), "NOSCRIPT"))
}

func TestRestartKeepsWhatWasAppended(t *testing.T) {
	s := Server(t, "--appendonly", "yes")
	require.NoError(t, s.Client().Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "v", s.Client().Get(t.Context(), "k").Val())
}

func TestServerTakesArguments(t *testing.T) {
	s := Server(t, "--maxmemory", "10mb")
	require.Equal(t, "10485760", s.Client().ConfigGet(t.Context(), "maxmemory").Val()["maxmemory"])
}

func TestPauseStallsUntilResume(t *testing.T) {
	s := Server(t)
	rdb := s.Client(func(o *redis.Options) { o.MaxRetries = -1; o.ReadTimeout = 100 * time.Millisecond })
	for range 3 {
		require.NoError(t, rdb.Ping(t.Context()).Err())
		s.Pause()
		require.ErrorIs(t, rdb.Ping(t.Context()).Err(), os.ErrDeadlineExceeded)
		s.Resume()
	}
	require.NoError(t, rdb.Ping(t.Context()).Err())
	s.Pause()
	s.Kill()
}

// A busy server is the one that is still at work when kill(2) returns.
func TestPauseReturnsWhenTheServerHasStopped(t *testing.T) {
	if !diesWithParent {
		t.Skip("reads /proc, which is Linux's")
	}
	s := Server(t)
	rdb := s.Client()
	var g errgroup.Group
	defer func() { require.NoError(t, g.Wait()) }()
	g.Go(func() error {
		return rdb.Eval(t.Context(), `for i = 1, 1000000 do redis.sha1hex('') end return 1`, nil).Err()
	})
	for range 50 {
		s.Pause()
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
		s.Resume()
		require.NoError(t, err)
		require.Contains(t, string(stat), ") T ")
	}
}

func TestExecutionsCountsWhatScriptsCall(t *testing.T) {
	s := Server(t)
	for range 3 {
		require.NoError(t, s.Client().Eval(t.Context(), `return redis.call('INCR', KEYS[1])`, []string{"k"}).Err())
	}
	for command, want := range map[string]int{"EVAL": 3, "incr": 3, "append": 0} {
		n, err := s.Executions(t.Context(), command)
		require.NoError(t, err)
		require.Equal(t, want, n, command)
	}
}

func TestStartReportsWhatTheServerSays(t *testing.T) {
	requireServer(t)
	_, err := Start(t.Context(), "--no-such-option", "1")
	require.ErrorContains(t, err, "no-such-option")
	require.ErrorContains(t, err, "Bad directive")
}

func TestATakenPortIsNoticedAndAnotherTried(t *testing.T) {
	taken := Server(t)
	attempts := 0
	require.NoError(t, retryTaken(func() error {
		p, err := newProc()
		require.NoError(t, err)
		defer p.Close()
		if attempts++; attempts == 1 {
			i := slices.Index(p.args, strconv.Itoa(p.port.n))
			p.port.release()
			p.port.n, p.args[i] = taken.port.n, strconv.Itoa(taken.port.n)
		}
		return p.run(t.Context())
	}))
	require.Equal(t, 2, attempts)
	require.NoError(t, taken.Client().Ping(t.Context()).Err())
}

func TestPortsStayClaimedWhileTheServerIsDown(t *testing.T) {
	s := Server(t)
	s.Kill()
	_, err := net.ListenPacket("udp4", s.Addr())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
}

func TestCloseLeavesNothing(t *testing.T) {
	requireServer(t)
	p, err := Start(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	rdb := p.Client()
	p.Close()
	p.Close()
	require.ErrorIs(t, rdb.Ping(t.Context()).Err(), redis.ErrClosed)
	require.NoDirExists(t, p.Dir())
	require.True(t, gone(p.PID()))
	other, err := net.ListenPacket("udp4", p.Addr())
	require.NoError(t, err, "the port is still claimed")
	require.NoError(t, other.Close())
}

package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestMain(m *testing.M) {
	shoptest.AtOnce(6)
	shoptest.Main(m)
}

// serving serves env until the test ends, or stop is called, which returns what Serve
// returned.
func serving(t *testing.T, env *infra.Env, parts ...part) (base string, stop func() error) {
	t.Helper()
	s, err := New(t.Context(), env)
	require.NoError(t, err)
	for _, p := range parts {
		s.add("test", p)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-served
	}
	t.Cleanup(func() { require.NoError(t, stop()) })
	base = "http://" + l.Addr().String()
	require.Eventually(t, func() bool { return status(t, base+"/readyz") == 200 }, time.Minute, 5*time.Millisecond)
	return base, stop
}

func status(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func TestLogIn(t *testing.T) {
	t.Parallel()
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		base, _ := serving(t, env)
		require.Equal(t, 200, status(t, base+"/healthz"))
		require.Equal(t, 200, status(t, base+"/metrics"))
		c := &client.Client{HTTP: http.DefaultClient, Base: base}
		require.NoError(t, c.LogIn(t.Context(), "13800001234"))
		require.Len(t, c.Me.Token, 32)
		require.Regexp(t, `^[A-Z][a-z]+ [A-Z][a-z]+$`, c.Me.Name, "a name, and nothing of the phone")

		again := &client.Client{HTTP: http.DefaultClient, Base: base}
		require.NoError(t, again.LogIn(t.Context(), "13800001234"))
		require.Equal(t, c.Me.UID, again.Me.UID)
		require.NotEqual(t, c.Me.Token, again.Me.Token)

		var me struct {
			UID, Balance int64
			Name         string
		}
		require.NoError(t, again.Call(t.Context(), "POST /logout", nil, nil))
		require.NoError(t, c.Call(t.Context(), "GET /me", nil, &me))
		require.Equal(t, c.Me.UID, me.UID)
		refused := new(api.Error)
		require.ErrorAs(t, again.Call(t.Context(), "GET /me", nil, nil), &refused)
		require.Equal(t, 401, refused.Status)
	})
}

// slow has a call that lasts until it is let go, and background work that drains.
type slow struct {
	began, finish      chan struct{}
	told               chan struct{} // closed when somebody heard that the server stops; nil: nobody asks
	left, ran, drained bool
}

func (p *slow) Routes(m *api.Mux) {
	m.Public("GET /slow", func(*api.Request) (any, error) {
		close(p.began)
		<-p.finish
		return "finished", nil
	})
}

func (p *slow) Leave(ctx context.Context) {
	p.left = true
	if p.told != nil {
		select {
		case <-p.told:
		case <-ctx.Done():
		}
	}
}

func (p *slow) Run(ctx context.Context) error {
	p.ran = true
	<-ctx.Done()
	p.drained = true
	return nil
}

func TestGracefulStop(t *testing.T) {
	t.Parallel()
	p := &slow{began: make(chan struct{}), finish: make(chan struct{}), told: make(chan struct{})}
	base, stop := serving(t, shoptest.Env(t), p)
	answer := make(chan string, 1)
	go func() {
		res, err := http.Get(base + "/api/v1/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		answer <- string(text)
	}()
	<-p.began
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	require.Eventually(t, func() bool { return status(t, base+"/readyz") == 503 }, time.Minute, time.Millisecond,
		"it says that it stops, while it still answers")
	close(p.told)
	close(p.finish)
	require.NoError(t, <-stopped)
	require.Contains(t, <-answer, "finished")
	require.True(t, p.left && p.ran && p.drained)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Zero(t, status(t, base+"/healthz"))
}

// A call that does not end does not keep the server for ever.
func TestStopWithinTenSeconds(t *testing.T) {
	t.Parallel()
	p := &slow{began: make(chan struct{}), finish: make(chan struct{})}
	base, stop := serving(t, shoptest.Env(t), p)
	go func() {
		if res, err := http.Get(base + "/api/v1/slow"); err == nil {
			res.Body.Close()
		}
	}()
	<-p.began
	began := time.Now()
	err := stop()
	close(p.finish)
	require.ErrorContains(t, err, "requests did not end in time")
	require.Less(t, time.Since(began), 10*time.Second)
}

func TestSwitchesAndStats(t *testing.T) {
	t.Parallel()
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		base, _ := serving(t, env)
		c := &client.Client{HTTP: http.DefaultClient, Base: base}
		refused := new(api.Error)
		require.ErrorAs(t, c.Call(t.Context(), "PUT /admin/switch/unknown", map[string]bool{"on": true}, nil), &refused)
		require.Equal(t, 404, refused.Status)
		require.NoError(t, c.Call(t.Context(), "PUT /admin/switch/"+infra.NoBarrage, map[string]bool{"on": true}, nil))
		require.True(t, env.Switches.On(infra.NoBarrage))
		var stats struct {
			Servers []struct {
				ID       string
				Up       bool
				Requests map[string]uint64
			}
			Switches map[string]bool
			Limiter  struct{ Allowed uint64 }
		}
		require.Eventually(t, func() bool {
			require.NoError(t, c.Call(t.Context(), "GET /admin/stats", nil, &stats))
			return len(stats.Servers) == 1 && stats.Servers[0].Up && stats.Servers[0].Requests["200"] > 1
		}, time.Minute, 50*time.Millisecond)
		require.Equal(t, "s1", stats.Servers[0].ID)
		require.True(t, stats.Switches[infra.NoBarrage])
		require.NotZero(t, stats.Limiter.Allowed)
	})
}

// Who asks for the invariants waits for a database that is slow longer than other calls do.
func TestInvariantsWhileSQLIsSlow(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	base, _ := serving(t, env)
	for range env.DB.Stats().MaxOpenConnections {
		conn, err := env.DB.Conn(t.Context())
		require.NoError(t, err)
		time.AfterFunc(6*time.Second, func() { _ = conn.Close() })
	}
	var verdicts []check.Verdict
	c := &client.Client{HTTP: http.DefaultClient, Base: base}
	require.NoError(t, c.Call(t.Context(), "GET /admin/invariants", nil, &verdicts))
	require.NotEmpty(t, verdicts)
	for _, v := range verdicts {
		require.True(t, v.OK, "%+v", v)
	}
}

// Who was not heard of for a while is down, and later forgotten.
func TestFleetForgets(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	o := newOperate(env, nil)
	for name, age := range map[string]time.Duration{"up": 0, "down": 5 * time.Second, "gone": time.Hour} {
		text, err := json.Marshal(figures{ID: name, Told: time.Now().Add(-age).UnixMilli()})
		require.NoError(t, err)
		require.NoError(t, env.Redis.HSet(t.Context(), fleetKey, name, text).Err())
	}
	fleet, err := o.fleet(t.Context())
	require.NoError(t, err)
	var seen []string
	for _, f := range fleet {
		seen = append(seen, f.ID+map[bool]string{true: " up", false: " down"}[f.Up])
	}
	require.Equal(t, "down down, up up", strings.Join(seen, ", "))
	require.Equal(t, int64(2), env.Redis.HLen(t.Context(), fleetKey).Val())
}

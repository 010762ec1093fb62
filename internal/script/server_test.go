package script

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A watch notes how the attempts of a client end, and calls after, if set, when
// attempt n (from 1) has ended.
type watch struct {
	after func(n int)

	mu   sync.Mutex
	errs []string
}

func (w *watch) DialHook(next redis.DialHook) redis.DialHook { return next }
func (w *watch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (w *watch) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			w.mu.Lock()
			w.errs = append(w.errs, msg)
			n := len(w.errs)
			w.mu.Unlock()
			if w.after != nil {
				w.after(n)
			}
		}
		return err
	}
}

// What the server itself refuses has not run, heals, and is then run once: also
// a Bounded script.
func TestRunWaitsForAServerToHeal(t *testing.T) {
	endless := func(t *testing.T, p *redistest.Proc) {
		looping := p.Client(func(o *redis.Options) { o.MaxRetries, o.ReadTimeout = -1, time.Minute })
		var work sync.WaitGroup
		work.Go(func() { _ = looping.Eval(t.Context(), `while true do end`, nil).Err() })
		t.Cleanup(work.Wait)
	}
	for _, c := range []struct {
		code    string
		prepare func(t *testing.T, p *redistest.Proc, clean *redis.Client)
		heal    []any
	}{
		{"READONLY", func(t *testing.T, _ *redistest.Proc, clean *redis.Client) {
			require.NoError(t, clean.Do(t.Context(), "replicaof", "127.0.0.1", 1).Err())
		}, []any{"replicaof", "no", "one"}},
		{"MASTERDOWN", func(t *testing.T, _ *redistest.Proc, clean *redis.Client) {
			require.NoError(t, clean.ConfigSet(t.Context(), "replica-serve-stale-data", "no").Err())
			require.NoError(t, clean.Do(t.Context(), "replicaof", "127.0.0.1", 1).Err())
		}, []any{"replicaof", "no", "one"}},
		{"NOREPLICAS", func(t *testing.T, _ *redistest.Proc, clean *redis.Client) {
			require.NoError(t, clean.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
		}, []any{"config", "set", "min-replicas-to-write", "0"}},
		{"BUSY", func(t *testing.T, p *redistest.Proc, clean *redis.Client) {
			require.NoError(t, clean.ConfigSet(t.Context(), "busy-reply-threshold", "20").Err())
			endless(t, p)
			require.Eventually(t, func() bool {
				return redis.HasErrorPrefix(clean.Get(t.Context(), "k").Err(), "BUSY")
			}, time.Minute, time.Millisecond)
		}, []any{"script", "kill"}},
		// In place of the message the client may see the connection end while it
		// writes its handshake.
		{"", func(t *testing.T, _ *redistest.Proc, clean *redis.Client) {
			require.NoError(t, clean.ConfigSet(t.Context(), "maxclients", "1").Err())
		}, []any{"config", "set", "maxclients", "100"}},
	} {
		t.Run(cmp.Or(c.code, "max number of clients"), func(t *testing.T) {
			p := redistest.Server(t)
			clean, s := p.Client(), newShop(t)
			require.NoError(t, clean.ScriptLoad(t.Context(), sell).Err())
			w := &watch{after: func(n int) {
				if n == 2 {
					require.NoError(t, clean.Do(t.Context(), c.heal...).Err())
				}
			}}
			rdb := p.Client()
			rdb.AddHook(w)
			c.prepare(t, p, clean)
			got, err := sellBounded.Run(t.Context(), rdb, s.call("a"))
			require.NoError(t, err)
			require.Equal(t, int64(1), got)
			require.Len(t, w.errs, 3)
			require.True(t, strings.HasPrefix(w.errs[0], c.code), "%q", w.errs[0])
			s.require(t, clean, 1, 1, 0)
		})
	}
}

func TestLoading(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := redistest.Server(t, "--enable-debug-command", "yes",
		"--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
	clean, s := p.Client(func(o *redis.Options) { o.ReadTimeout = time.Minute }), newShop(t)
	require.NoError(t, clean.ScriptLoad(t.Context(), sell).Err())
	probe := p.Client(func(o *redis.Options) { o.MaxRetries = -1 })
	w := &watch{}
	rdb := p.Client()
	rdb.AddHook(w)
	// A connection made while the server loads is as slow as the loading.
	require.NoError(t, probe.Ping(t.Context()).Err())
	require.NoError(t, rdb.Ping(t.Context()).Err())
	reload := func(keys int) (wait func()) {
		require.NoError(t, clean.Eval(t.Context(),
			`for i = 1, ARGV[1] do redis.call("SET", "fill" .. i, string.rep("x", 100)) end return 1`, nil, keys).Err())
		var work sync.WaitGroup
		work.Go(func() { require.NoError(t, clean.Do(t.Context(), "debug", "reload").Err()) })
		require.Eventually(t, func() bool {
			return redis.HasErrorPrefix(probe.Get(t.Context(), "k").Err(), "LOADING")
		}, time.Minute, time.Millisecond)
		return work.Wait
	}

	// On a busy machine the loading may be over before the first attempt, or not for
	// longer than Run waits.
	sold := 0
	for met := false; !met; {
		wait := reload(400) // 0.4 s
		w.errs = nil
		_, err := sellBounded.Run(t.Context(), rdb, s.call(strconv.Itoa(sold)))
		wait()
		met = err == nil && strings.HasPrefix(w.errs[0], "LOADING")
		if err == nil {
			sold++
		} else {
			require.ErrorIs(t, err, ErrUnavailable)
			require.True(t, redis.IsLoadingError(err), "the cause: %v", err)
		}
		s.require(t, clean, sold, sold, 0)
	}

	wait := reload(30_000) // longer than anybody waits, but for what ends it
	_, err := sellToken.Run(t.Context(), rdb, s.call("b"))
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, redis.IsLoadingError(err), "the cause: %v", err)
	require.NoError(t, probe.ConfigSet(t.Context(), "key-load-delay", "0").Err())
	wait()
	s.require(t, clean, sold, sold, 0)
}

func TestOutOfMemory(t *testing.T) {
	p := redistest.Server(t)
	clean, s := p.Client(), newShop(t)
	limit := func(bytes string) { require.NoError(t, clean.ConfigSet(t.Context(), "maxmemory", bytes).Err()) }
	limit("1")
	w := &watch{}
	rdb := p.Client()
	rdb.AddHook(w)
	for _, script := range []*Script{sellToken, sellBounded} {
		_, err := script.Run(t.Context(), rdb, s.call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.True(t, redis.IsOOMError(err), "the cause: %v", err)
	}
	require.Len(t, w.errs, 3, "NOSCRIPT, then one attempt each: memory does not come back within a second")
	s.require(t, clean, 0, 0, 0)

	// What OOM rests on: Redis refuses a script's first write, never a later one.
	frees := New(Bounded, `redis.call("DEL", KEYS[1]); redis.call("SET", KEYS[2], "v"); return "done"`)
	got, err := frees.Run(t.Context(), rdb, Call{Keys: []string{s.prefix + "a", s.prefix + "b"}})
	require.NoError(t, err)
	require.Equal(t, "done", got)

	limit("0")
	_, err = sellToken.Run(t.Context(), rdb, s.call("a"))
	require.NoError(t, err)
	s.require(t, clean, 1, 1, 0)
}

func TestMissingRights(t *testing.T) {
	p := redistest.Server(t)
	clean, s := p.Client(), newShop(t)
	user := func(name string, rules ...any) *redis.Client {
		args := append([]any{"acl", "setuser", name, "on", ">pw", "~*"}, rules...)
		require.NoError(t, clean.Do(t.Context(), args...).Err())
		return p.Client(func(o *redis.Options) { o.Username, o.Password = name, "pw" })
	}
	run := func(rdb *redis.Client) error {
		_, err := sellToken.Run(t.Context(), rdb, s.call("a"))
		return err
	}
	err := run(user("no-scripts", "+@all", "-evalsha"))
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "NOPERM")
	err = run(p.Client(func(o *redis.Options) { o.Username, o.Password = "no-scripts", "wrong" }))
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "WRONGPASS")
	s.require(t, clean, 0, 0, 0)

	// The script's INCR ran before its HGET was refused.
	err = run(user("no-hashes", "+@all", "-hget"))
	require.ErrorIs(t, err, ErrUnknown)
	require.NotErrorIs(t, err, ErrUnavailable)
	require.Equal(t, "1", clean.Get(t.Context(), s.call("").Keys[0]).Val())
}

// A crash between two calls empties the script cache; a crash during a call
// leaves its outcome unknown.
func TestAServerThatRestarts(t *testing.T) {
	p := redistest.Server(t, "--appendonly", "yes", "--appendfsync", "always")
	clean, s := p.Client(), newShop(t)
	rdb := p.Client()
	_, err := sellToken.Run(t.Context(), rdb, s.call("a"))
	require.NoError(t, err)
	require.NoError(t, p.Restart(t.Context()))
	exists, err := clean.ScriptExists(t.Context(), string(sellToken.sha)).Result()
	require.NoError(t, err)
	require.Equal(t, []bool{false}, exists, "the cache is empty")

	got, err := sellToken.Run(t.Context(), rdb, s.call("b"))
	require.NoError(t, err)
	require.Equal(t, int64(2), got)
	s.require(t, clean, 2, 2, 0)

	require.NoError(t, p.Restart(t.Context()))
	replies, errs := sellToken.RunMany(t.Context(), rdb, []Call{s.call("a"), s.call("b"), s.call("c")})
	require.Equal(t, []error{nil, nil, nil}, errs)
	require.Equal(t, []any{int64(1), int64(2), int64(3)}, replies, "the first answers, and a new one")

	w := &watch{}
	w.after = func(n int) {
		if n == 1 {
			require.NoError(t, p.Restart(context.WithoutCancel(t.Context())))
		}
	}
	var faults redistest.Faults
	dying := p.Client(faults.Options)
	dying.AddHook(w)
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
	got, err = sellToken.Run(t.Context(), dying, s.call("d"))
	require.NoError(t, err)
	require.Equal(t, int64(4), got)
	require.Equal(t, []string{"EOF", "NOSCRIPT No matching script. Please use EVAL.", ""}, w.errs[:3])
}

func TestRing(t *testing.T) {
	var faults redistest.Faults
	a, b := redistest.Server(t), redistest.Server(t)
	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"a": a.Addr(), "b": b.Addr()}, Dialer: faults.Dialer(nil),
	})
	defer ring.Close()
	shops := make([]shop, 16)
	calls := make([]Call, len(shops))
	for i := range shops {
		shops[i] = newShop(t)
		calls[i] = shops[i].call("a")
	}
	_, err := sellToken.Run(t.Context(), ring, calls[0])
	require.NoError(t, err)
	faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: calls[5].Keys[0] + " "})
	replies, errs := sellToken.RunMany(t.Context(), ring, calls)
	require.Equal(t, 1, faults.Fired(redistest.CutAfter))
	for i := range calls {
		require.NoError(t, errs[i])
		require.Equal(t, int64(1), replies[i], strconv.Itoa(i))
	}
	require.NotZero(t, a.Client().DBSize(t.Context()).Val())
	require.NotZero(t, b.Client().DBSize(t.Context()).Val())
}

// A failover client under a failover: each call says what it knows, and the
// token sells once.
func TestSentinel(t *testing.T) {
	t.Parallel() // it waits most of the time
	sentinel := redistest.Sentinel(t)
	rdb, s := sentinel.Client(), newShop(t)
	_, err := sellToken.Run(t.Context(), rdb, s.call("a"))
	require.NoError(t, err)
	conn := rdb.Conn() // WAIT is about what its own connection wrote, and what came before
	require.Eventually(t, func() bool {
		err := conn.Set(t.Context(), "any", "write", 0).Err()
		n, err2 := conn.Wait(t.Context(), 1, time.Second).Result()
		return err == nil && err2 == nil && n == 1
	}, time.Minute, time.Millisecond)
	require.NoError(t, conn.Close())
	sentinel.KillMaster()
	for {
		got, err := sellToken.Run(t.Context(), rdb, s.call("b"))
		if err == nil {
			require.Equal(t, int64(2), got)
			break
		}
		require.NotEqual(t, errors.Is(err, ErrUnavailable), errors.Is(err, ErrUnknown), "%v", err)
	}
	require.Equal(t, "2", rdb.Get(t.Context(), s.call("").Keys[1]).Val())
}

// Run costs no allocation more than go-redis's own EVALSHA.
func TestRunAllocates(t *testing.T) {
	rdb, s := redistest.Shared(t).Client(), newShop(t)
	script := New(Token, `return 1`)
	c := Call{Keys: s.call("").Keys, Args: []any{"token", 5}}
	ctx := t.Context()
	_, err := script.Run(ctx, rdb, c)
	require.NoError(t, err)
	sha := string(script.sha)
	theirs, ours := 0.0, 1.0
	for tries := 0; ours > theirs && tries < 10; tries++ { // what else the process does is counted too
		theirs = testing.AllocsPerRun(200, func() { _ = rdb.EvalSha(ctx, sha, c.Keys, c.Args...).Err() })
		ours = testing.AllocsPerRun(200, func() { _, _ = script.Run(ctx, rdb, c) })
	}
	t.Logf("allocations a call: Run %.0f, EvalSha %.0f", ours, theirs)
	require.LessOrEqual(t, ours, theirs)
}

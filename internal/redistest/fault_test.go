package redistest

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// withoutRetries shows each fault to the test once.
func withoutRetries(o *redis.Options) { o.MaxRetries = -1 }

// eachFaulty runs f on a miniredis in a bubble, on a server, and on a server
// behind a proxy; clean is a client without faults.
func eachFaulty(t *testing.T, f func(t *testing.T, faults *Faults, rdb, clean *redis.Client)) {
	t.Run("bubble", func(t *testing.T) {
		Bubble(t, func(t *testing.T, b *Env) {
			var faults Faults
			f(t, &faults, b.Client(withoutRetries, faults.Options), b.Client())
		})
	})
	t.Run("server", func(t *testing.T) {
		var faults Faults
		p := Shared(t)
		f(t, &faults, p.Client(withoutRetries, faults.Options), p.Client())
	})
	t.Run("proxy", func(t *testing.T) {
		var faults Faults
		p := Shared(t)
		proxy := NewProxy(t, p.Addr(), &faults)
		rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), MaxRetries: -1, DialerRetries: 1})
		t.Cleanup(func() { _ = rdb.Close() })
		f(t, &faults, rdb, p.Client())
	})
}

func TestFaultsOfOneCommand(t *testing.T) {
	t.Parallel()
	isTimeout := func(err error) bool {
		var ne net.Error
		return errors.As(err, &ne) && ne.Timeout()
	}
	eof := func(err error) bool { return errors.Is(err, io.EOF) }
	for _, c := range []struct {
		name     string
		rule     Rule
		executed int
		timeout  bool
		is       func(error) bool
	}{
		{"CutBefore", Rule{Do: CutBefore}, 0, false, eof},
		{"CutAfter", Rule{Do: CutAfter}, 1, false, eof},
		{"LoseReply", Rule{Do: LoseReply}, 1, true, isTimeout},
		{"DelayReply past the client's timeout", Rule{Do: DelayReply, Delay: time.Minute}, 1, true, isTimeout},
		{"DelayReply within it", Rule{Do: DelayReply, Delay: 20 * time.Millisecond}, 1, false,
			func(err error) bool { return err == nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			eachFaulty(t, func(t *testing.T, faults *Faults, rdb, clean *redis.Client) {
				ctx, k := t.Context(), Prefix(t)
				faulty := rdb
				if c.timeout {
					faulty = rdb.WithTimeout(500 * time.Millisecond)
				}
				c.rule.Match = "incr " + k
				faults.Add(c.rule)
				begin := time.Now()
				err := faulty.Incr(ctx, k).Err()
				require.True(t, c.is(err), "error %v", err)
				require.GreaterOrEqual(t, time.Since(begin), min(c.rule.Delay, 500*time.Millisecond))
				require.Equal(t, 1, faults.Fired(c.rule.Do))

				require.NoError(t, rdb.Incr(ctx, k).Err(), "the rule is used up")
				n, err := clean.Get(ctx, k).Int()
				require.NoError(t, err)
				require.Equal(t, c.executed+1, n, "executions on the server")
				require.Equal(t, 1, faults.Fired(c.rule.Do))
			})
		})
	}
}

// A pipeline goes out in one write and its replies come back in as many reads
// as there are; the fault must hit the one command.
func TestFaultsInAPipeline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		do       Fault
		executed []string // on the server, at least
		lost     []string // not on the server
	}{
		{"CutBefore", CutBefore, []string{"0", "1"}, []string{"2", "3"}},
		{"CutAfter", CutAfter, []string{"0", "1", "2"}, nil},
		{"LoseReply", LoseReply, []string{"0", "1", "2"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			eachFaulty(t, func(t *testing.T, faults *Faults, rdb, clean *redis.Client) {
				ctx, prefix := t.Context(), Prefix(t)
				if c.do == LoseReply {
					rdb = rdb.WithTimeout(time.Second)
				}
				faults.Add(Rule{Do: c.do, Match: "set " + prefix + "2"})
				got := make([]*countingCmd, 4)
				pipe := rdb.Pipeline()
				for i := range got {
					got[i] = &countingCmd{Cmd: redis.NewCmd(ctx, "set", prefix+strconv.Itoa(i), strings.Repeat("v", 900))}
					_ = pipe.Process(ctx, got[i])
				}
				_, err := pipe.Exec(ctx)
				require.Error(t, err)
				require.Equal(t, 1, faults.Fired(c.do))
				for i, cmd := range got {
					require.Equal(t, i < 2, cmd.replied, "reply of command %d", i)
				}
				for _, i := range c.executed {
					require.NoError(t, clean.Get(ctx, prefix+i).Err(), "command %s", i)
				}
				for _, i := range c.lost {
					require.ErrorIs(t, clean.Get(ctx, prefix+i).Err(), redis.Nil, "command %s", i)
				}
			})
		})
	}
}

// A countingCmd knows whether its reply arrived: a broken pipeline marks all
// its commands with the error.
type countingCmd struct {
	*redis.Cmd
	replied bool
}

func (c *countingCmd) SetErr(err error) {
	c.replied = c.replied || err == nil
	c.Cmd.SetErr(err)
}

// The harness exists to catch this: go-redis's own Script.Run executes a script
// twice when a reply is lost, and reports the second run's answer as if it were
// the first.
func TestFaultsShowGoRedisRunningAScriptTwice(t *testing.T) {
	Bubble(t, func(t *testing.T, b *Env) {
		var faults Faults
		rdb := b.Client(faults.Options)
		incr := redis.NewScript(`return redis.call("INCR", KEYS[1])`)
		require.NoError(t, incr.Load(t.Context(), rdb).Err())
		faults.Add(Rule{Do: LoseReply, Match: "evalsha"})
		n, err := incr.Run(t.Context(), rdb, []string{"k"}).Int()
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, 1, faults.Fired(LoseReply))
	})
}

func TestRefusedDials(t *testing.T) {
	Bubble(t, func(t *testing.T, b *Env) {
		var faults Faults
		rdb := b.Client(withoutRetries, faults.Options)
		faults.Add(Rule{Do: RefuseDial, Times: 2})
		for range 2 {
			err := rdb.Ping(t.Context()).Err()
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, "dial", op.Op)
		}
		require.NoError(t, rdb.Ping(t.Context()).Err())
		require.Equal(t, 2, faults.Fired(RefuseDial))
	})
	var faults Faults
	proxy := NewProxy(t, Shared(t).Addr(), &faults)
	faults.Add(Rule{Do: RefuseDial})
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), MaxRetries: -1})
	defer rdb.Close()
	require.Error(t, rdb.Ping(t.Context()).Err())
	require.NoError(t, rdb.Ping(t.Context()).Err())
	require.Equal(t, 1, faults.Fired(RefuseDial))
}

func TestRulesSkipCountAndDraw(t *testing.T) {
	f := Faults{Seed: 1}
	f.Add(Rule{Do: CutAfter, Match: "set", Skip: 1, Times: 2})
	f.Add(Rule{Do: LoseReply, Match: "set k", P: 0.25, Times: -1})
	var got []Fault
	for range 5 {
		got = append(got, f.command("set other").Do)
	}
	require.Equal(t, []Fault{0, CutAfter, CutAfter, 0, 0}, got)
	draw := func(seed uint64) (hits string) {
		f := Faults{Seed: seed}
		f.Add(Rule{Do: LoseReply, P: 0.25, Times: -1})
		for range 400 {
			hits += strconv.Itoa(int(f.command("set k 1").Do))
		}
		return hits
	}
	first, again, other := draw(1), draw(1), draw(2)
	require.Equal(t, first, again, "the same seed, the same draws")
	require.NotEqual(t, first, other)
	require.InDelta(t, 100, strings.Count(first, strconv.Itoa(int(LoseReply))), 40)
	f.Clear()
	require.Zero(t, f.command("set k").Do)
}

// A subscription's messages answer no command: they must pass, and count as no
// reply.
func TestFaultsLetASubscriptionPass(t *testing.T) {
	eachFaulty(t, func(t *testing.T, faults *Faults, rdb, clean *redis.Client) {
		channel := Prefix(t)
		faults.Add(Rule{Do: CutAfter, Match: "nothing", Times: -1})
		sub := rdb.Subscribe(t.Context(), channel)
		defer sub.Close()
		_, err := sub.Receive(t.Context())
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, clean.Publish(t.Context(), channel, i).Err())
			m, err := sub.ReceiveMessage(t.Context())
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(i), m.Payload)
		}
	})
}

func TestProxyGoesWithTheTest(t *testing.T) {
	server := Shared(t)
	var proxy *Proxy
	var conn net.Conn
	t.Run("inner", func(t *testing.T) {
		proxy = NewProxy(t, server.Addr(), new(Faults))
		var err error
		conn, err = net.Dial("tcp", proxy.Addr())
		require.NoError(t, err)
		_, err = io.WriteString(conn, "PING\r\n")
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, len("+PONG\r\n")))
		require.NoError(t, err)
	})
	defer conn.Close()
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err, "a connection outlived its proxy")
	_, err = (&net.Dialer{}).DialContext(context.Background(), "tcp", proxy.Addr())
	require.Error(t, err)
}

func TestFrame(t *testing.T) {
	for _, whole := range []string{
		"+OK\r\n", "-ERR no\r\n", ":5\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "(12345678901234567890\r\n",
		"$-1\r\n", "$0\r\n\r\n", "$5\r\na\r\nbc\r\n", "*-1\r\n", "*0\r\n", "!5\r\nERR x\r\n", "=7\r\ntxt:abc\r\n",
		"*2\r\n*1\r\n$1\r\na\r\n:1\r\n", "%1\r\n+k\r\n*1\r\n+v\r\n", "~2\r\n+a\r\n+b\r\n",
		">2\r\n+message\r\n+x\r\n", "|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n", "PING\r\n",
	} {
		for n := range whole {
			require.Zero(t, frame([]byte(whole[:n])), "the first %d bytes of %q", n, whole)
		}
		require.Equal(t, len(whole), frame([]byte(whole)), "%q", whole)
		require.Equal(t, len(whole), frame([]byte(whole+"+next\r\n")), "%q", whole)
	}
	name, text := words([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"))
	require.Equal(t, "set", name)
	require.Equal(t, "SET k a\r\nb", text)
}

// Whatever arrives, a value's length does not depend on what follows it, and
// nothing panics.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{"*2\r\n$1\r\na\r\n:1\r\n", "|1\r\n+a\r\n:3\r\n$1\r\na\r\n", "$99999999999999999999\r\n", "*1\r\n$-1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := frame(b)
		if n < 0 || n > len(b) {
			t.Fatalf("frame of %q: %d", b, n)
		}
		if n == 0 {
			return
		}
		if m := frame(b[:n]); m != n {
			t.Fatalf("%q is %d long with what follows, %d without", b, n, m)
		}
		words(b[:n])
	})
}

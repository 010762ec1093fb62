package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// sell sells one piece a token, however often it runs. It counts its runs in
// KEYS[1], the pieces sold in KEYS[2], and in KEYS[4] how often it was told that
// an earlier attempt may have run. Returns the number of the piece sold.
const sell = `
redis.call("INCR", KEYS[1])
if ARGV[2] == "1" then redis.call("INCR", KEYS[4]) end
local piece = redis.call("HGET", KEYS[3], ARGV[1])
if piece then return tonumber(piece) end
piece = redis.call("INCR", KEYS[2])
redis.call("HSET", KEYS[3], ARGV[1], piece)
return piece
`

var (
	sellToken   = New(Token, sell)
	sellBounded = New(Bounded, sell)
)

// A shop is the keys of sell.
type shop struct{ prefix string }

func newShop(t testing.TB) shop { return shop{"{" + redistest.Prefix(t) + "}"} }

func (s shop) call(token string) Call {
	return Call{
		Keys:   []string{s.prefix + ":runs", s.prefix + ":sold", s.prefix + ":tokens", s.prefix + ":resent"},
		Args:   []any{token, nil},
		Resend: 2,
	}
}

// require checks what the server saw.
func (s shop) require(t testing.TB, clean redis.UniversalClient, runs, sold, resent int) {
	t.Helper()
	for kind, want := range map[string]int{":runs": runs, ":sold": sold, ":resent": resent} {
		n, err := clean.Get(t.Context(), s.prefix+kind).Int()
		if !errors.Is(err, redis.Nil) {
			require.NoError(t, err)
		}
		require.Equal(t, want, n, "%s on the server", kind)
	}
}

// eachFaulty runs f on a miniredis in a bubble, a server, and a cluster of one
// node. A client times out after 600 ms.
func eachFaulty(t *testing.T, f func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient)) {
	const timeout = 600 * time.Millisecond
	options := func(o *redis.Options) { o.ReadTimeout = timeout }
	t.Run("bubble", func(t *testing.T) {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			f(t, &faults, b.Client(options, faults.Options), b.Client())
		})
	})
	t.Run("server", func(t *testing.T) {
		p := redistest.Shared(t)
		var faults redistest.Faults
		f(t, &faults, p.Client(options, faults.Options), p.Client())
	})
	t.Run("cluster", func(t *testing.T) {
		c := redistest.Cluster(t, 1, 0)
		var faults redistest.Faults
		f(t, &faults, c.Client(func(o *redis.ClusterOptions) { o.ReadTimeout = timeout }, faults.ClusterOptions), c.Client())
	})
}

// oneFault are the ways to lose one attempt.
var oneFault = []struct {
	name string
	rule redistest.Rule
	runs int // of the faulty attempt
}{
	{"cut before execution", redistest.Rule{Do: redistest.CutBefore}, 0},
	{"cut after execution", redistest.Rule{Do: redistest.CutAfter}, 1},
	{"reply lost", redistest.Rule{Do: redistest.LoseReply}, 1},
	{"reply late", redistest.Rule{Do: redistest.DelayReply, Delay: 2 * time.Second}, 1},
}

func TestTokenScriptRunsAgainAndAnswers(t *testing.T) {
	for _, c := range oneFault {
		t.Run(c.name, func(t *testing.T) {
			eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
				s := newShop(t)
				_, err := sellToken.Run(t.Context(), rdb, s.call("first")) // the server knows the script
				require.NoError(t, err)
				s.require(t, clean, 1, 1, 0)

				c.rule.Match = "evalsha"
				faults.Add(c.rule)
				got, err := sellToken.Run(t.Context(), rdb, s.call("second"))
				require.NoError(t, err)
				require.Equal(t, int64(2), got)
				require.Equal(t, 1, faults.Fired(c.rule.Do))
				s.require(t, clean, 2+c.runs, 2, 1)
			})
		})
	}
}

// The negative control: go-redis's own way to run a script, under the same
// fault, runs it twice behind one answer that is the second run's.
func TestGoRedisRunsAScriptTwice(t *testing.T) {
	eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
		k := redistest.Prefix(t)
		incr := redis.NewScript(`return redis.call("INCR", KEYS[1])`)
		require.NoError(t, incr.Load(t.Context(), clean).Err())
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		got, err := incr.Run(t.Context(), rdb, []string{k}).Int()
		require.NoError(t, err)
		require.Equal(t, 2, got, "the answer of the second run")
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
	})
}

func TestBoundedScriptIsNeverRunAgain(t *testing.T) {
	for _, c := range oneFault {
		t.Run(c.name, func(t *testing.T) {
			eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
				s := newShop(t)
				_, err := sellBounded.Run(t.Context(), rdb, s.call("first"))
				require.NoError(t, err)
				c.rule.Match = "evalsha"
				faults.Add(c.rule)
				_, err = sellBounded.Run(t.Context(), rdb, s.call("second"))
				require.ErrorIs(t, err, ErrUnknown)
				require.ErrorContains(t, err, "do not repeat")
				require.NotErrorIs(t, err, ErrUnavailable)
				require.Equal(t, 1, faults.Fired(c.rule.Do))
				s.require(t, clean, 1+c.runs, 1+c.runs, 0)

				// What did not run is tried again, Bounded or not.
				require.NoError(t, clean.ScriptFlush(t.Context()).Err())
				_, err = sellBounded.Run(t.Context(), rdb, s.call("third"))
				require.NoError(t, err)
				s.require(t, clean, 2+c.runs, 2+c.runs, 0)
			})
		})
	}
}

// A pipeline that breaks in its middle: the calls before the break were
// answered, and must not run again; the others run until they answer.
func TestRunManyResolvesOnlyWhatIsUnknown(t *testing.T) {
	for _, c := range oneFault {
		for _, script := range []*Script{sellToken, sellBounded} {
			t.Run(fmt.Sprintf("%s/%d", c.name, script.retry), func(t *testing.T) {
				eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
					s := newShop(t)
					_, err := script.Run(t.Context(), rdb, s.call("first"))
					require.NoError(t, err)

					var calls []Call
					for i := range 6 {
						calls = append(calls, s.call(fmt.Sprint("token", i)))
					}
					c.rule.Match, c.rule.Skip = "evalsha", 3
					faults.Add(c.rule)
					replies, errs := script.RunMany(t.Context(), rdb, calls)
					require.Equal(t, 1, faults.Fired(c.rule.Do))
					for i := range calls {
						if script == sellBounded && i >= 3 {
							require.ErrorIs(t, errs[i], ErrUnknown)
							continue
						}
						require.NoError(t, errs[i])
						require.Equal(t, int64(i+2), replies[i], "call %d", i)
					}
					runs, err := clean.Get(t.Context(), s.call("").Keys[0]).Int()
					require.NoError(t, err)
					sold, err := clean.Get(t.Context(), s.call("").Keys[1]).Int()
					require.NoError(t, err)
					if script == sellToken {
						require.Equal(t, 1+6, sold)
						require.Contains(t, []int{1 + 6, 1 + 6 + 1, 1 + 6 + 2, 1 + 6 + 3}, runs)
						require.GreaterOrEqual(t, runs, 1+6+c.runs)
						s.require(t, clean, runs, sold, 3)
					} else {
						require.LessOrEqual(t, runs, 1+6)
						require.Equal(t, runs, sold)
					}
				})
			})
		}
	}
}

// NOSCRIPT for some calls of a pipeline: another client loads the script
// between two calls' execution.
func TestRunManySendsTheSourceToWhomItLacks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := newShop(t)
		fresh := New(Token, sell, "-- "+s.prefix) // no other test has loaded it
		loads := New(Token, `return "the source of another script"`)
		pipe := &hook{}
		addHook(rdb, pipe)
		calls := []Call{s.call("a"), s.call("b"), s.call("c")}
		// The hook makes the first pipeline load the script behind its first call.
		pipe.load = string(fresh.source)
		replies, errs := fresh.RunMany(t.Context(), rdb, calls)
		for i, err := range errs {
			require.NoError(t, err, "call %d", i)
		}
		require.Equal(t, []string{"evalsha", "script", "evalsha", "evalsha"}, pipe.seen[0])
		require.Equal(t, []string{"eval"}, pipe.seen[1], "only the call that got NOSCRIPT")
		require.ElementsMatch(t, []any{int64(1), int64(2), int64(3)}, replies)
		require.Equal(t, int64(3), replies[0])
		s.require(t, rdb, 3, 3, 0)
		_, err := loads.Run(t.Context(), rdb, Call{Keys: []string{s.prefix}})
		require.NoError(t, err)
	})
}

// A hook notes the commands of each pipeline and inserts a SCRIPT LOAD behind the
// first command of the first.
type hook struct {
	load string
	seen [][]string
}

func addHook(rdb redis.UniversalClient, h *hook) {
	if c, ok := rdb.(*redis.ClusterClient); ok {
		c.OnNewNode(func(n *redis.Client) { n.AddHook(h) })
		return
	}
	rdb.AddHook(h)
}

func (h *hook) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() != "evalsha" && cmds[0].Name() != "eval" {
			return next(ctx, cmds) // a handshake
		}
		if h.load != "" {
			load := redis.NewStringCmd(ctx, "script", "load", h.load)
			h.load = ""
			cmds = append([]redis.Cmder{cmds[0], load}, cmds[1:]...)
		}
		var names []string
		for _, c := range cmds {
			names = append(names, c.Name())
		}
		h.seen = append(h.seen, names)
		return next(ctx, cmds)
	}
}

func TestRefusedIsAVerdict(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		key := []string{redistest.Prefix(t)}
		for reply, want := range map[string]Refused{
			"REFUSED SOLDOUT sku 1 of 2": {"SOLDOUT", "sku 1 of 2"},
			"REFUSED HALTED":             {"HALTED", ""},
		} {
			s := New(Token, `return redis.error_reply(ARGV[1])`)
			_, err := s.Run(t.Context(), rdb, Call{Keys: key, Args: []any{reply}})
			var got *Refused
			require.ErrorAs(t, err, &got)
			require.Equal(t, want, *got)
			require.NotErrorIs(t, err, ErrUnknown)
			require.NotErrorIs(t, err, ErrUnavailable)

			_, errs := s.RunMany(t.Context(), rdb, []Call{{Keys: key, Args: []any{reply}}})
			require.ErrorAs(t, errs[0], &got)
		}
	})
}

func TestANilReplyIsAnAnswer(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := New(Bounded, `return false`)
		key := []string{redistest.Prefix(t)}
		got, err := s.Run(t.Context(), rdb, Call{Keys: key})
		require.NoError(t, err)
		require.Nil(t, got)
		replies, errs := s.RunMany(t.Context(), rdb, []Call{{Keys: key}, {Keys: key}})
		require.Equal(t, []any{nil, nil}, replies)
		require.Equal(t, []error{nil, nil}, errs)
	})
}

// A script that fails half-way keeps what it wrote: nobody may be told that
// nothing happened.
func TestARunTimeErrorIsUnknownAtOnce(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		k := redistest.Prefix(t)
		for name, source := range map[string]string{
			"raised by a command":   `redis.call("INCR", KEYS[1]); return redis.call("LPUSH", KEYS[1], "x")`,
			"raised by Lua":         `redis.call("INCR", KEYS[1]); return nothing.at_all`,
			"returned by a command": `redis.call("INCR", KEYS[1]); return redis.pcall("LPUSH", KEYS[1], "x")`,
		} {
			require.NoError(t, rdb.Del(t.Context(), k).Err())
			_, err := New(Token, source).Run(t.Context(), rdb, Call{Keys: []string{k}})
			require.ErrorIs(t, err, ErrUnknown, name)
			require.NotErrorIs(t, err, ErrUnavailable, name)
			require.Equal(t, "1", rdb.Get(t.Context(), k).Val(), "%s: it wrote, once", name)
		}
	})
}

// outlast lets a goroutine of go-redis end: after as many failed dials as its
// pool has room, it dials once a second until the client is closed. To be called
// before the client is made.
func outlast(t *testing.T) { t.Cleanup(func() { time.Sleep(2 * time.Second) }) }

func TestRefusedDialsAreWaitedFor(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb, s := b.Client(faults.Options), newShop(t)
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: 4})
		got, err := sellBounded.Run(t.Context(), rdb, s.call("a"))
		require.NoError(t, err)
		require.Equal(t, int64(1), got)
		require.Equal(t, 4, faults.Fired(redistest.RefuseDial))
		s.require(t, b.Client(), 1, 1, 0)
	})
}

func TestUnavailableAfterAboutASecond(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, s := b.Client(faults.Options), newShop(t)
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		for _, run := range []func() error{
			func() error { _, err := sellToken.Run(t.Context(), rdb, s.call("a")); return err },
			func() error {
				_, errs := sellToken.RunMany(t.Context(), rdb, []Call{s.call("b"), s.call("c")})
				require.ErrorIs(t, errs[1], ErrUnavailable)
				return errs[0]
			},
		} {
			begin := time.Now()
			err := run()
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.NotErrorIs(t, err, ErrUnknown)
			require.GreaterOrEqual(t, time.Since(begin), healFor)
			require.Less(t, time.Since(begin), healFor+2*maxPause)
		}
		s.require(t, b.Client(), 0, 0, 0)
	})
}

// After an attempt that may have run, a refused dial is no proof that nothing
// happened.
func TestOnlyAnAnswerEndsTheUnknown(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, clean, s := b.Client(faults.Options), b.Client(), newShop(t)
		_, err := sellToken.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		begin := time.Now()
		_, err = sellToken.Run(t.Context(), rdb, s.call("second"))
		require.ErrorIs(t, err, ErrUnknown)
		require.NotErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the last cause")
		require.GreaterOrEqual(t, time.Since(begin), resolveFor)
		require.Less(t, time.Since(begin), resolveFor+2*maxPause)
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
		s.require(t, clean, 2, 2, 0)

		faults.Clear()
		got, err := sellToken.Run(t.Context(), rdb, s.call("second"))
		require.NoError(t, err)
		require.Equal(t, int64(2), got, "the caller repeats, and learns")
	})
}

func TestTheEndOfTheContext(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		var faults redistest.Faults
		rdb, clean, s := b.Client(faults.Options), b.Client(), newShop(t)
		_, err := sellToken.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)

		// Before anything is sent.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = sellToken.Run(ctx, rdb, s.call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.Canceled)
		_, errs := sellToken.RunMany(ctx, rdb, []Call{s.call("a")})
		require.ErrorIs(t, errs[0], ErrUnavailable)
		require.ErrorIs(t, errs[0], context.Canceled)
		s.require(t, clean, 1, 1, 0)

		// While an outcome is unknown.
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha"})
		faults.Add(redistest.Rule{Do: redistest.RefuseDial, Times: -1})
		begin := time.Now()
		_, err = sellToken.Run(ctx, rdb, s.call("b"))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the last cause")
		require.Equal(t, 2*time.Second, time.Since(begin), "not a moment past ctx")

		// While the server is waited for.
		ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = sellToken.Run(ctx, rdb, s.call("c"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrUnknown)
	})
}

// With ContextTimeoutEnabled a connection sees the deadline before ctx does; the
// error wraps ctx's all the same.
func TestADeadlineInFlight(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb := b.Client(faults.Options, func(o *redis.Options) { o.ContextTimeoutEnabled = true })
		s := newShop(t)
		_, err := sellBounded.Run(t.Context(), rdb, s.call("first"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		faults.Add(redistest.Rule{Do: redistest.LoseReply, Match: "evalsha"})
		begin := time.Now()
		_, err = sellBounded.Run(ctx, rdb, s.call("second"))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 200*time.Millisecond, time.Since(begin))
		require.Equal(t, 1, faults.Fired(redistest.LoseReply))
	})
}

// A dialer may fail in any way, and so may a handshake; what counts is that
// nothing was sent.
func TestWhateverFailsBeforeTheSendingIsNothing(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		outlast(t)
		fail := errors.New("x509: certificate has expired")
		custom := b.Client(func(o *redis.Options) {
			o.Dialer = func(context.Context, string, string) (net.Conn, error) { return nil, fail }
		})
		_, err := sellBounded.Run(t.Context(), custom, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, fail)

		var faults redistest.Faults
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "hello", Times: -1})
		handshake := b.Client(faults.Options)
		_, err = sellBounded.Run(t.Context(), handshake, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, io.EOF)
		require.NotZero(t, faults.Fired(redistest.CutAfter))

		full := b.Client(func(o *redis.Options) { o.PoolSize, o.PoolTimeout = 1, 10*time.Millisecond })
		conn := full.Conn()
		require.NoError(t, conn.Ping(t.Context()).Err()) // holds the only connection
		_, err = sellBounded.Run(t.Context(), full, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, redis.ErrPoolTimeout)
		require.NoError(t, conn.Close())

		require.NoError(t, full.Close())
		begin := time.Now()
		_, err = sellBounded.Run(t.Context(), full, newShop(t).call("a"))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, redis.ErrClosed)
		require.Zero(t, time.Since(begin), "a closed client does not open again")
	})
}

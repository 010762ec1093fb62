package script

import (
	"errors"
	"flag"
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

// Those of eachFaulty wait most of the time, for replies that do not come; the command
// line has the last word.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "12")
	m.Run()
}

// eachFaulty runs f, at once, on a miniredis in a bubble, a server, and a cluster of one
// node. A client times out after 600 ms.
func eachFaulty(t *testing.T, f func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient)) {
	const timeout = 600 * time.Millisecond
	options := func(o *redis.Options) { o.ReadTimeout = timeout }
	t.Run("bubble", func(t *testing.T) {
		t.Parallel()
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			var faults redistest.Faults
			f(t, &faults, b.Client(options, faults.Options), b.Client())
		})
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		p := redistest.Shared(t)
		var faults redistest.Faults
		f(t, &faults, p.Client(options, faults.Options), p.Client())
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		c := redistest.Cluster(t, 1, 0)
		var faults redistest.Faults
		f(t, &faults, c.Client(func(o *redis.ClusterOptions) { o.ReadTimeout = timeout }, faults.ClusterOptions), c.Client())
	})
}

// A fault is a way to lose one attempt.
type fault struct {
	name string
	do   redistest.Fault
	runs int // of the faulty attempt
}

var oneFault = []fault{
	{"cut before execution", redistest.CutBefore, 0},
	{"cut after execution", redistest.CutAfter, 1},
	{"reply lost", redistest.LoseReply, 1},
	{"reply late", redistest.DelayReply, 1},
}

// rule is the fault of the command that matches, after skip of them.
func (f fault) rule(match string, skip int) redistest.Rule {
	return redistest.Rule{Do: f.do, Match: match, Skip: skip, Delay: 2 * time.Second}
}

func TestTokenScriptRunsAgainAndAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range oneFault {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
				s := newShop(t)
				_, err := sellToken.Run(t.Context(), rdb, s.call("first")) // the server knows the script
				require.NoError(t, err)
				s.require(t, clean, 1, 1, 0)

				faults.Add(c.rule("evalsha", 0))
				got, err := sellToken.Run(t.Context(), rdb, s.call("second"))
				require.NoError(t, err)
				require.Equal(t, int64(2), got)
				require.Equal(t, 1, faults.Fired(c.do))
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
	t.Parallel()
	for _, c := range oneFault {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
				s := newShop(t)
				_, err := sellBounded.Run(t.Context(), rdb, s.call("first"))
				require.NoError(t, err)
				faults.Add(c.rule("evalsha", 0))
				_, err = sellBounded.Run(t.Context(), rdb, s.call("second"))
				require.ErrorIs(t, err, ErrUnknown)
				require.ErrorContains(t, err, "do not repeat")
				require.NotErrorIs(t, err, ErrUnavailable)
				require.Equal(t, 1, faults.Fired(c.do))
				s.require(t, clean, 1+c.runs, 1+c.runs, 0)

				// What did not run is tried again, Bounded or not.
				unheard := New(Bounded, sell, "-- "+s.prefix) // the server knows no such script
				_, err = unheard.Run(t.Context(), rdb, s.call("third"))
				require.NoError(t, err)
				s.require(t, clean, 2+c.runs, 2+c.runs, 0)
			})
		})
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

package script

import (
	"context"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A pipeline that breaks in its middle: the calls before the break were
// answered, and must not run again; the others run until they answer.
func TestRunManyResolvesOnlyWhatIsUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range oneFault {
		for _, script := range []*Script{sellToken, sellBounded} {
			t.Run(fmt.Sprintf("%s/%d", c.name, script.retry), func(t *testing.T) {
				t.Parallel()
				eachFaulty(t, func(t *testing.T, faults *redistest.Faults, rdb, clean redis.UniversalClient) {
					s := newShop(t)
					_, err := script.Run(t.Context(), rdb, s.call("first"))
					require.NoError(t, err)

					var calls []Call
					for i := range 6 {
						calls = append(calls, s.call(fmt.Sprint("token", i)))
					}
					faults.Add(c.rule("evalsha", 3))
					replies, errs := script.RunMany(t.Context(), rdb, calls)
					require.Equal(t, 1, faults.Fired(c.do))
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

func (h *hook) DialHook(next redis.DialHook) redis.DialHook { return next }

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

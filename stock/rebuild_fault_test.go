package stock

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A sink may say that what comes does not fit. The activity halts then too.
func TestSinkRefuses(t *testing.T) {
	each(t, Options{Linger: time.Millisecond}, map[string]int64{"tea": 10}, func(t *testing.T, a *Activity) {
		sink := newShelf()
		shelve(t, a, sink)
		_, err := a.Deduct(t.Context(), tea("o1", "u", 4))
		require.NoError(t, err)
		sink.err = fmt.Errorf("%w: oversold", ErrForked)
		require.ErrorContains(t, a.RunJournal(t.Context(), sink), "oversold")
		forked(t, a, sink)
	})
}

// While a Rebuild works nothing changes: calls wait, and say that nothing happened.
// Others wait for it, and take it over when it is dead.
func TestFrozen(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 10}))
		_, err := a.Deduct(ctx, tea("o1", "u", 1))
		require.NoError(t, err)
		sink := newShelf()
		shelve(t, a, sink)
		f, err := a.fork(ctx, "early", "freeze")
		require.NoError(t, err)
		require.Equal(t, frozen{state: forkNone}, f, "it did not fork")
		require.NoError(t, a.Drop(ctx))
		forked(t, a, sink)
		for range 2 { // the second time after a lost reply
			f, err = a.fork(ctx, "first", "freeze")
			require.NoError(t, err)
			require.Equal(t, forkFrozen, f.state)
		}
		_, err = a.Cancel(ctx, Ref{"o1", "u"}, "")
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		f, err = a.fork(ctx, "second", "freeze")
		require.NoError(t, err)
		require.Equal(t, frozen{state: forkOther}, f)

		began := time.Now()
		_, err = a.Rebuild(ctx, sink) // the first one is never heard of again
		require.NoError(t, err)
		require.InDelta(t, rebuildDead.Seconds(), time.Since(began).Seconds(), 5)
		// If it comes back it can neither finish nor thaw.
		late := part{a: a, made: made{keys: slices.Repeat([]string{a.keys.levels}, 5)}}
		require.ErrorIs(t, late.install(ctx, "first"), ErrMoved)
		_, err = a.fork(ctx, "first", "thaw")
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"o1", "u"}, "")
		require.NoError(t, err)
		requireTea(t, a, 10, 0, 0)

		// Several at once: one works.
		shelve(t, a, sink)
		require.NoError(t, a.Drop(ctx))
		require.ErrorIs(t, a.RunJournal(ctx, sink), ErrForked)
		errs := make(chan error)
		for range 5 {
			go func() {
				_, err := a.Rebuild(ctx, sink)
				errs <- err
			}()
		}
		for range 5 {
			require.NoError(t, <-errs)
		}
		requireTea(t, a, 10, 0, 0)
	})
}

// Replies of the sink's scripts get lost, and so does that of a deduct that waits for
// replicas: each runs again, and there is one effect.
func TestLostRepliesOfSinks(t *testing.T) {
	t.Parallel()
	p := redistest.Server(t)
	ctx := t.Context()
	runs := func() int {
		n, err := p.Executions(ctx, "evalsha")
		require.NoError(t, err)
		return n
	}
	// The first round only makes the server know the scripts.
	for round, fault := range []redistest.Fault{0, redistest.CutAfter, redistest.LoseReply} {
		for step, skip := range map[string]int{"feed": 0, "freeze": 0, "rebuild": 1, "wait": 0, "remove": 0} {
			t.Run(fmt.Sprint(step, round), func(t *testing.T) {
				var faults redistest.Faults
				opts := Options{Linger: time.Millisecond, SoldOutFor: -1}
				if step == "wait" {
					opts.WaitReplicas = 1
				}
				plain := open(t, p.Client(), opts)
				a := open(t, p.Client(faults.Options, func(o *redis.Options) { o.ReadTimeout = 300 * time.Millisecond }), plain.opts)
				require.NoError(t, plain.Load(ctx, map[string]int64{"tea": 10}))
				_, err := plain.Deduct(ctx, tea("o1", "u", 1))
				require.NoError(t, err)
				sink := newShelf()
				lose := func() int {
					if fault != 0 {
						faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Skip: skip})
					}
					return runs()
				}
				var before int
				least := 2
				switch step {
				case "feed":
					before = lose()
					f := feed{a: a, sink: sink, name: sink.name}
					require.NoError(t, f.step(ctx))
					require.Equal(t, journal(t, plain), sink.entries)
					require.Equal(t, 1, sink.applied)
				case "remove":
					shelve(t, plain, sink)
					before = lose()
					require.NoError(t, a.RemoveSink(ctx, sink.name))
					info, err := a.Inspect(ctx)
					require.NoError(t, err)
					require.Empty(t, info.Sunk)
				case "wait":
					before = lose()
					res, err := a.Deduct(ctx, tea("o2", "u", 1))
					require.NoError(t, err)
					require.False(t, res.Durable)
					requireTea(t, plain, 8, 0, 2)
				default:
					shelve(t, plain, sink)
					require.NoError(t, plain.Drop(ctx))
					forked(t, plain, sink)
					before = lose()
					least = 3
					_, err = a.Rebuild(ctx, sink)
					require.NoError(t, err)
					requireTea(t, plain, 9, 0, 1)
				}
				if fault != 0 {
					require.Equal(t, 1, faults.Fired(fault), "no reply was lost")
					require.GreaterOrEqual(t, runs()-before, least, "the script ran once")
				}
				require.NoError(t, plain.Drop(ctx))
				require.Empty(t, keysOf(t, plain.rdb, plain))
			})
		}
	}
}

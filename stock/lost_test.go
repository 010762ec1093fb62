package stock

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// A mutation is a verb whose reply gets lost. prepare makes ready what it acts on.
type mutation struct {
	name    string
	prepare func(ctx context.Context, a *Activity) error
	do      func(ctx context.Context, a *Activity) (Result, error)
	state   State
	err     error
	effects []OpKind // in the journal, crossings apart
}

var mutations = []mutation{
	{"Deduct", nil, func(ctx context.Context, a *Activity) (Result, error) { return a.Deduct(ctx, tea("o", "u", 2)) },
		Sold, nil, []OpKind{OpDeduct}},
	{"Reserve", nil, func(ctx context.Context, a *Activity) (Result, error) { return a.Reserve(ctx, tea("o", "u", 2)) },
		Reserved, nil, []OpKind{OpReserve}},
	{"partial", nil, func(ctx context.Context, a *Activity) (Result, error) {
		return a.Deduct(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 2}, {"cup", 9}}, Partial: true})
	}, Sold, nil, []OpKind{OpDeduct}},
	{"refused", nil, func(ctx context.Context, a *Activity) (Result, error) { return a.Reserve(ctx, tea("o", "u", 99)) },
		None, ErrInsufficient, nil},
	{"Confirm", reserved, func(ctx context.Context, a *Activity) (Result, error) { return a.Confirm(ctx, Ref{"o", "u"}) },
		Confirmed, nil, []OpKind{OpReserve, OpConfirm}},
	{"Cancel", reserved, func(ctx context.Context, a *Activity) (Result, error) { return a.Cancel(ctx, Ref{"o", "u"}, "why") },
		Cancelled, nil, []OpKind{OpReserve, OpCancel}},
	{"Cancel of nothing", nil, func(ctx context.Context, a *Activity) (Result, error) { return a.Cancel(ctx, Ref{"o", "u"}, "why") },
		Cancelled, nil, nil},
	{"Restock", nil, func(ctx context.Context, a *Activity) (Result, error) { return a.Restock(ctx, "o", Item{"tea", 2}) },
		None, nil, []OpKind{OpRestock}},
	{"Load", nil, func(ctx context.Context, a *Activity) (Result, error) {
		return Result{}, a.Load(ctx, map[string]int64{"pot": 3})
	}, None, nil, nil},
	{"sweep", func(ctx context.Context, a *Activity) error {
		if err := reserved(ctx, a); err != nil {
			return err
		}
		time.Sleep(a.opts.Hold) // in the bubble
		return nil
	}, func(ctx context.Context, a *Activity) (Result, error) {
		_, _, err := a.sweep(ctx)
		return Result{}, err
	}, None, nil, []OpKind{OpReserve, OpExpire}},
}

func reserved(ctx context.Context, a *Activity) error {
	_, err := a.Reserve(ctx, tea("o", "u", 2))
	return err
}

var lostStock = map[string]int64{"tea": 5, "cup": 2}

// A lost reply changes nothing: the same answer, one effect, and the server did
// run the script twice.
func TestLostReply(t *testing.T) {
	for _, m := range mutations {
		for name, fault := range map[string]redistest.Fault{"cut": redistest.CutAfter, "silence": redistest.LoseReply} {
			for _, times := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s/%s %d", m.name, name, times), func(t *testing.T) {
					redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
						var faults redistest.Faults
						plain := open(t, b.Client(), Options{Hold: 10 * time.Second, SoldOutFor: -1})
						a := open(t, b.Client(faults.Options, shortTimeout), plain.opts)
						losesReplies(t, m, plain, a, &faults, fault, times, func() int { return b.Mini.CommandCount() })
					})
				})
			}
		}
	}
}

// The same on a server that counts its runs.
func TestLostReplyOnServer(t *testing.T) {
	p := redistest.Shared(t)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			var faults redistest.Faults
			opts := Options{SoldOutFor: -1}
			if m.name == "sweep" {
				opts.Hold = 100 * time.Millisecond
			}
			plain := open(t, p.Client(), opts)
			a := open(t, p.Client(faults.Options, shortTimeout), plain.opts)
			if m.name == "sweep" {
				m.prepare = func(ctx context.Context, a *Activity) error {
					if err := reserved(ctx, a); err != nil {
						return err
					}
					due := time.NewTimer(a.opts.Hold + 5*time.Millisecond)
					<-due.C // what is waited for is the time itself
					return nil
				}
			}
			losesReplies(t, m, plain, a, &faults, redistest.CutAfter, 1, func() int {
				n, err := p.Executions(t.Context(), "evalsha")
				require.NoError(t, err)
				return n
			})
		})
	}
}

// losesReplies lets the replies of one call on a get lost that many times.
func losesReplies(t *testing.T, m mutation, plain, a *Activity, faults *redistest.Faults, fault redistest.Fault, times int, runs func() int) {
	ctx := t.Context()
	require.NoError(t, plain.Load(ctx, lostStock))
	_, err := a.Lookup(ctx, Ref{"warm", "up"}) // the server knows the script from here on
	require.ErrorIs(t, err, ErrNotFound)
	if m.prepare != nil {
		require.NoError(t, m.prepare(ctx, plain))
	}
	faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Times: times})
	before := runs()
	res, err := m.do(ctx, a)
	after := runs()
	require.Equal(t, times, faults.Fired(fault), "no reply was lost")
	require.GreaterOrEqual(t, after-before, times+1, "the script ran once")
	switch {
	case m.err == nil:
		require.NoError(t, err)
	case times == 1:
		require.ErrorIs(t, err, m.err)
	default: // the reason went with the second reply
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotErrorIs(t, err, ErrUnknown)
	}
	require.Equal(t, m.state, res.State)
	if m.name != "Load" {
		require.Equal(t, m.effects, kinds(t, plain, "o"))
	} else {
		require.Len(t, ops(t, plain), 2)
	}
	requireConserved(t, plain)

	// And once more, with nothing lost.
	again, err := m.do(ctx, a)
	if m.err == nil {
		require.NoError(t, err)
	} else {
		require.ErrorIs(t, err, m.err)
	}
	require.Equal(t, res.State, again.State)
	require.Equal(t, res.Items, again.Items)
	require.Equal(t, res.Missing, again.Missing)
	require.Equal(t, res.Expires, again.Expires)
	if m.name != "Load" {
		require.Equal(t, m.effects, kinds(t, plain, "o"))
	}
}

// requireConserved adds the journal up, and compares it with the levels.
func requireConserved(t testing.TB, a *Activity) {
	t.Helper()
	want := map[string]Level{}
	was := map[string]OpKind{}
	for _, o := range ops(t, a) {
		for _, it := range o.Items {
			l := want[it.SKU]
			switch o.Kind {
			case OpLoad, OpRestock:
				l.Left += it.Qty
			case OpDeduct:
				l.Left, l.Sold = l.Left-it.Qty, l.Sold+it.Qty
			case OpReserve:
				l.Left, l.Reserved = l.Left-it.Qty, l.Reserved+it.Qty
			case OpConfirm:
				if was[o.ID] == OpReserve {
					l.Reserved, l.Sold = l.Reserved-it.Qty, l.Sold+it.Qty
				}
			case OpCancel, OpExpire:
				if l.Left += it.Qty; was[o.ID] == OpReserve {
					l.Reserved -= it.Qty
				} else {
					l.Sold -= it.Qty
				}
			}
			want[it.SKU] = l
		}
		was[o.ID] = o.Kind
	}
	requireLevels(t, a, want)
}

func TestLostReplyOfDrop(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		a := open(t, b.Client(faults.Options, shortTimeout), Options{})
		require.NoError(t, a.Load(t.Context(), lostStock))
		require.NoError(t, reserved(t.Context(), a))
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "eval", Skip: 1}) // the first is NOSCRIPT
		require.NoError(t, a.Drop(t.Context()))
		require.Equal(t, 1, faults.Fired(redistest.CutAfter))
		require.Empty(t, b.Mini.Keys())
	})
}

// Replies that stay lost end in ErrUnknown; then Lookup and the retry tell the truth.
func TestUnknownIsResolved(t *testing.T) {
	for _, arrived := range []bool{true, false} {
		t.Run(fmt.Sprintf("arrived=%v", arrived), func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				ctx := t.Context()
				var faults redistest.Faults
				a := open(t, b.Client(faults.Options, shortTimeout), Options{})
				require.NoError(t, a.Load(ctx, lostStock))
				_, err := a.Lookup(ctx, Ref{"warm", "up"})
				require.ErrorIs(t, err, ErrNotFound)
				fault := redistest.CutAfter
				if !arrived {
					// The first attempt may have arrived as far as the client knows.
					fault = redistest.CutBefore
				}
				faults.Add(redistest.Rule{Do: fault, Match: "evalsha", Times: -1})
				began := time.Now()
				_, err = a.Reserve(ctx, tea("o", "u", 5))
				require.ErrorIs(t, err, ErrUnknown)
				require.NotErrorIs(t, err, ErrUnavailable)
				require.Less(t, time.Since(began), 8*time.Second)
				require.EqualValues(t, 1, a.Stats().Unknown)
				faults.Clear()

				res, err := a.Lookup(ctx, Ref{"o", "u"})
				if !arrived {
					require.ErrorIs(t, err, ErrNotFound)
					require.Empty(t, kinds(t, a, "o"))
					// That says "so far": the id stays in doubt, and is asked for.
					a.memory.seen("tea", time.Now().UnixMicro(), 0, time.Now())
				} else {
					require.NoError(t, err)
					require.Equal(t, Reserved, res.State)
					require.Equal(t, []Item{{"tea", 5}}, res.Items)
				}
				res, err = a.Reserve(ctx, tea("o", "u", 5))
				require.NoError(t, err)
				require.Equal(t, arrived, res.Replayed)
				require.Equal(t, []OpKind{OpReserve}, kinds(t, a, "o"))
			})
		})
	}
}

// A caller who leaves does not know; the id stays in doubt until Redis answered.
func TestDoubtIsNotAnsweredFromMemory(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		var faults redistest.Faults
		a := open(t, b.Client(faults.Options, shortTimeout), Options{SoldOutFor: time.Second})
		require.NoError(t, a.Load(ctx, lostStock))
		_, err := a.Lookup(ctx, Ref{"warm", "up"})
		require.ErrorIs(t, err, ErrNotFound)
		// This order takes the last units, and its caller leaves before the answer.
		faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: 20 * time.Millisecond})
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		defer cancel()
		_, err = a.Deduct(short, tea("o", "u", 5))
		require.ErrorIs(t, err, ErrUnknown)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		_, err = a.Deduct(ctx, tea("new", "u", 1))
		require.ErrorIs(t, err, ErrInsufficient)
		res, err := a.Deduct(ctx, tea("new", "u", 1))
		require.ErrorIs(t, err, ErrInsufficient)
		require.True(t, res.FromMemory)
		res, err = a.Deduct(ctx, tea("o", "u", 5)) // not marked Retry
		require.NoError(t, err)
		require.True(t, res.Replayed)
	})
}

// An attempt that was refused, when resent, is refused also when it arrives late.
func TestLateAttemptOfARefusedOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, lostStock))
		batch := func() []*op {
			return []*op{
				newOp('R', ':', "other", "u", []Item{{"cup", 1}}),
				newOp('R', ':', "o", "u", []Item{{"tea", 6}}),
				newOp('A', '+', "r", "", []Item{{"nothing", 1}}),
			}
		}
		settle := func(resend string, nonce string, before int, batch []*op) []int64 {
			args := a.arguments(batch, nonce, before)
			args[0] = resend
			reply, err := rdb.Eval(ctx, readLua+"\n"+noteLua+"\n"+settledLua+"\n"+settleLua, a.keys.all, args...).Result()
			require.NoError(t, err)
			_, _, verdicts, err := a.unpack(reply, len(batch), time.Now())
			require.NoError(t, err)
			var codes []int64
			for _, v := range verdicts {
				codes = append(codes, parseVerdict(v).code)
			}
			return codes
		}
		// The second attempt is the first to arrive. It refuses "o" and "r".
		require.Equal(t, []int64{codeDone, codeInsufficient, codeNoSKU}, settle("1", "1.call-", 0, batch()))
		_, err := a.Restock(ctx, "more", Item{"tea", 10})
		require.NoError(t, err)
		require.NoError(t, a.Load(ctx, map[string]int64{"nothing": 1}))
		// The first one comes late: now there would be enough.
		require.Equal(t, []int64{codeReplay, codeSuperseded, codeSuperseded}, settle("0", "1.call-", 0, batch()))
		// As does one that was split from its batch.
		require.Equal(t, []int64{codeSuperseded}, settle("0", "1.call-", 1, batch()[1:2]))
		// Another call under the id that is refused likewise does not make it welcome.
		big := []*op{newOp('R', ':', "o", "u", []Item{{"tea", 60}})}
		require.Equal(t, []int64{codeInsufficient}, settle("1", "2.next-", 0, big))
		require.Equal(t, []int64{codeSuperseded}, settle("0", "2.next-", 0, big))
		require.Equal(t, []int64{codeSuperseded}, settle("0", "1.call-", 1, batch()[1:2]))
		require.Empty(t, kinds(t, a, "o"))
		_, err = a.Lookup(ctx, Ref{"o", "u"})
		require.ErrorIs(t, err, ErrNotFound)
		// A call of its own is not that attempt.
		res, err := a.Reserve(ctx, tea("o", "u", 6))
		require.NoError(t, err)
		require.False(t, res.Replayed)
		_, err = a.Restock(ctx, "r", Item{"nothing", 1})
		require.NoError(t, err)
		requireConserved(t, a)
	})
}

// A batch over which the script fails is settled call by call.
func TestOneBadRecordFailsOnlyItsOwnCall(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		a := open(t, rdb, Options{SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, lostStock))
		require.NoError(t, rdb.HSet(ctx, a.keys.levels, ":bad", "not a level").Err())
		batch := []*op{
			newOp('D', ':', "1", "u", []Item{{"tea", 1}}),
			newOp('D', ':', "2", "u", []Item{{"bad", 1}}),
			newOp('R', ':', "3", "u", []Item{{"cup", 1}}),
		}
		out, err := a.flush(ctx, "", batch)
		require.NoError(t, err)
		require.NoError(t, out[0].err)
		require.ErrorIs(t, out[1].err, ErrUnknown)
		require.NoError(t, out[2].err)
		require.Equal(t, []OpKind{OpDeduct}, kinds(t, a, "1"))
		require.Empty(t, kinds(t, a, "2"))
		require.Equal(t, []OpKind{OpReserve}, kinds(t, a, "3"))
		require.NoError(t, rdb.HDel(ctx, a.keys.levels, ":bad").Err())
		requireConserved(t, a)
	})
}

// What a script finds to be of another type it finds before it writes.
func TestNothingHalfDone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, kind := range []string{"journal", "events", "holds", "limits", "orders"} {
			a := open(t, rdb, Options{SoldOutFor: -1, UserLimit: 9})
			require.NoError(t, a.Load(t.Context(), lostStock))
			before, err := rdb.HGetAll(t.Context(), a.keys.levels).Result()
			require.NoError(t, err)
			entries := len(journal(t, a))
			k := map[string]string{
				"journal": a.keys.stream, "events": a.keys.events, "holds": a.keys.holds, "limits": a.keys.limits, "orders": a.keys.orders + ":0",
			}[kind]
			was := rdb.Exists(t.Context(), k).Val() // the journal exists
			if was == 0 {
				require.NoError(t, rdb.Set(t.Context(), k, "of another type", 0).Err())
			} else {
				require.NoError(t, rdb.Rename(t.Context(), k, k+":away").Err())
				require.NoError(t, rdb.Set(t.Context(), k, "of another type", 0).Err())
			}
			_, err = a.Reserve(t.Context(), tea("o", "u", 5)) // raises an event
			require.Error(t, err, kind)
			require.NotErrorIs(t, err, ErrUnavailable, kind)
			after, err := rdb.HGetAll(t.Context(), a.keys.levels).Result()
			require.NoError(t, err)
			require.Equal(t, before, after, "%s: the levels changed", kind)
			if kind != "journal" {
				require.Len(t, journal(t, a), entries, "%s: the journal changed", kind)
			}
		}
	})
}

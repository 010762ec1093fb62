package stock

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What time does, on a clock that costs nothing.

func bubble(t *testing.T, opts Options, f func(t *testing.T, b *redistest.Env, a *Activity)) {
	t.Helper()
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a := open(t, b.Client(), opts)
		require.NoError(t, a.Load(t.Context(), lostStock))
		f(t, b, a)
	})
}

// A hold is over when it is due: not a millisecond before, and not by Run's leave.
func TestHoldEndsWithoutRun(t *testing.T) {
	for verb, want := range map[string]error{"confirm": ErrExpired, "cancel": ErrExpired, "reserve": ErrExpired, "lookup": nil} {
		t.Run(verb, func(t *testing.T) {
			bubble(t, Options{Hold: time.Minute}, func(t *testing.T, _ *redistest.Env, a *Activity) {
				ctx := t.Context()
				res, err := a.Reserve(ctx, tea("o", "u", 5))
				require.NoError(t, err)
				time.Sleep(time.Until(res.Expires) - time.Millisecond)
				res, err = a.Lookup(ctx, Ref{"o", "u"})
				require.NoError(t, err)
				require.Equal(t, Reserved, res.State)
				requireTea(t, a, 0, 5, 0)
				time.Sleep(time.Millisecond)
				requireTea(t, a, 0, 5, 0) // nobody looked yet
				switch verb {
				case "confirm":
					res, err = a.Confirm(ctx, Ref{"o", "u"})
				case "cancel":
					res, err = a.Cancel(ctx, Ref{"o", "u"}, "")
				case "reserve":
					res, err = a.Reserve(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 5}}, Retry: true})
				default:
					res, err = a.Lookup(ctx, Ref{"o", "u"})
				}
				if want == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, want)
				}
				require.Equal(t, Expired, res.State)
				require.Equal(t, []Item{{"tea", 5}}, res.Items)
				require.Zero(t, res.Expires)
				requireTea(t, a, 5, 0, 0)
				require.Equal(t, []OpKind{OpReserve, OpExpire}, kinds(t, a, "o"))
				require.Equal(t, []Event{{SKU: "tea"}, {SKU: "tea", Left: 5}}, crossings(t, a))
			})
		})
	}
}

// Another order releases what is due before it is refused.
func TestHoldIsReleasedByTheNextOrder(t *testing.T) {
	bubble(t, Options{Hold: time.Minute}, func(t *testing.T, _ *redistest.Env, a *Activity) {
		for i := range 5 {
			_, err := a.Reserve(t.Context(), tea(fmt.Sprint(i), "u", 1))
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		_, err := a.Deduct(t.Context(), tea("early", "u", 1))
		require.ErrorIs(t, err, ErrInsufficient)
		time.Sleep(20 * time.Second) // the first two are due
		_, err = a.Deduct(t.Context(), tea("x", "u", 3))
		require.ErrorIs(t, err, ErrInsufficient)
		_, err = a.Deduct(t.Context(), tea("y", "u", 2))
		require.NoError(t, err)
		requireTea(t, a, 0, 3, 2)
	})
}

// Run releases a hold when it is due, more of them than one call may, and ends
// within a second with no goroutine left, which the bubble would notice.
func TestRunReleasesInTime(t *testing.T) {
	bubble(t, Options{Hold: time.Minute, SoldOutFor: -1}, func(t *testing.T, _ *redistest.Env, a *Activity) {
		require.NoError(t, a.Load(t.Context(), map[string]int64{"many": 2000}))
		const holds = 700 // a call releases at most some 256
		var batch []*op
		for i := range holds {
			batch = append(batch, newOp('R', ':', fmt.Sprint(i), "u", []Item{{"many", 2}}))
		}
		for len(batch) > 0 {
			n := min(100, len(batch))
			_, err := a.flush(t.Context(), "", batch[:n])
			require.NoError(t, err)
			batch = batch[n:]
		}
		due := time.Now().Add(time.Minute)
		stop := start(t, a.Run)
		time.Sleep(time.Until(due) - time.Second)
		info, err := a.Inspect(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, holds, info.OpenHolds)
		require.WithinDuration(t, due, info.NextDue, time.Millisecond)
		time.Sleep(time.Second + 100*time.Millisecond)
		info, err = a.Inspect(t.Context())
		require.NoError(t, err)
		require.Zero(t, info.OpenHolds)
		require.True(t, info.NextDue.IsZero())
		levels, err := a.Stock(t.Context(), "many")
		require.NoError(t, err)
		require.EqualValues(t, 2000, levels["many"].Left)
		requireConserved(t, a)
		began := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(began), time.Second)
	})
}

// Orders and confirms between holds do not make the sweep lose its place.
func TestSweepPassesWhatHoldsNothing(t *testing.T) {
	bubble(t, Options{Hold: time.Minute, SoldOutFor: -1}, func(t *testing.T, _ *redistest.Env, a *Activity) {
		ctx := t.Context()
		require.NoError(t, a.Load(ctx, map[string]int64{"many": 2000}))
		hold := func(id string) {
			_, err := a.Reserve(ctx, Order{ID: id, User: "u", Items: []Item{{"many", 1}}})
			require.NoError(t, err)
		}
		hold("first")
		for i := range 300 { // far more entries than one call walks
			_, err := a.Deduct(ctx, Order{ID: fmt.Sprint("sold", i), User: "u.V+:1;", Items: []Item{{"many", 1}}})
			require.NoError(t, err)
			if i == 200 {
				hold("middle")
				_, err := a.Cancel(ctx, Ref{"sold1", "u.V+:1;"}, "a.reason;V+R5:")
				require.NoError(t, err)
			}
		}
		hold("last")
		hold("paid")
		_, err := a.Confirm(ctx, Ref{"paid", "u"})
		require.NoError(t, err)
		start(t, a.Run)
		time.Sleep(time.Minute + 100*time.Millisecond)
		for _, id := range []string{"first", "middle", "last"} {
			require.Equal(t, []OpKind{OpReserve, OpExpire}, kinds(t, a, id))
		}
		require.Equal(t, []OpKind{OpReserve, OpConfirm}, kinds(t, a, "paid"))
		hold("later") // the schedule begins anew
		time.Sleep(time.Minute + 100*time.Millisecond)
		require.Equal(t, []OpKind{OpReserve, OpExpire}, kinds(t, a, "later"))
		requireConserved(t, a)
	})
}

// A record answers until Retention after its last change, and is gone after twice
// that; a hold is kept whatever Retention says, since its end is what matters.
func TestRetention(t *testing.T) {
	t.Parallel()
	for _, run := range []bool{true, false} {
		t.Run(fmt.Sprintf("run=%v", run), func(t *testing.T) {
			const retention, every = 12 * time.Minute, time.Minute
			bubble(t, Options{Hold: every, Retention: retention, SoldOutFor: -1}, func(t *testing.T, b *redistest.Env, a *Activity) {
				ctx := t.Context()
				if run {
					start(t, a.Run)
				}
				require.NoError(t, a.Load(ctx, map[string]int64{"many": 2000}))
				many := func(id string) Order { return Order{ID: id, User: "u", Items: []Item{{"many", 1}}} }
				began := time.Now()
				placed := map[int]time.Time{}
				for i := range 60 {
					_, err := a.Deduct(ctx, many(fmt.Sprint(i)))
					require.NoError(t, err)
					placed[i] = time.Now()
					for j := 0; j <= i; j++ {
						age := time.Since(placed[j])
						res, err := a.Lookup(ctx, Ref{fmt.Sprint(j), "u"})
						switch {
						case age < retention:
							require.NoError(t, err, "an order of %v", age)
							require.Equal(t, Sold, res.State)
						case age > 2*retention+every:
							require.ErrorIs(t, err, ErrNotFound, "an order of %v", age)
						}
					}
					time.Sleep(every)
				}
				require.Greater(t, time.Since(began), 4*retention)
				// Few generations are left: two that are read, and one on its way out.
				time.Sleep(2 * time.Minute)
				orders := 0
				for _, k := range b.Mini.Keys() {
					if len(k) > len(a.keys.orders) && k[:len(a.keys.orders)] == a.keys.orders {
						orders++
					}
				}
				require.LessOrEqual(t, orders, 2)
			})
		})
	}
}

func TestHoldsOutliveGenerations(t *testing.T) {
	bubble(t, Options{Hold: 50 * time.Minute, Retention: time.Hour, SoldOutFor: -1}, func(t *testing.T, _ *redistest.Env, a *Activity) {
		ctx := t.Context()
		for round := range 12 {
			id := fmt.Sprint("r", round)
			_, err := a.Reserve(ctx, tea(id, "u", 2))
			require.NoError(t, err)
			time.Sleep(35 * time.Minute) // a generation turns in between, now and then
			if round%2 == 0 {
				_, err = a.Cancel(ctx, Ref{id, "u"}, "")
				require.NoError(t, err)
				_, err = a.Reserve(ctx, tea(id, "u", 2))
				require.ErrorIs(t, err, ErrCancelled)
			} else {
				time.Sleep(16 * time.Minute)
				_, err = a.Confirm(ctx, Ref{id, "u"})
				require.ErrorIs(t, err, ErrExpired)
			}
		}
		requireTea(t, a, 5, 0, 0)
	})
}

// Opening hours are those of the server.
func TestOpeningHours(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		opens, closes := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		a := open(t, b.Client(), Options{OpensAt: opens, ClosesAt: closes, Hold: time.Hour})
		require.NoError(t, a.Load(ctx, lostStock))
		refused := func(want error) {
			_, err := a.Deduct(ctx, tea("new", "u", 1))
			require.ErrorIs(t, err, want)
			_, err = a.Reserve(ctx, tea("new", "u", 1))
			require.ErrorIs(t, err, want)
		}
		refused(ErrNotOpen)
		time.Sleep(time.Until(opens) - time.Millisecond)
		refused(ErrNotOpen)
		time.Sleep(time.Millisecond)
		_, err := a.Deduct(ctx, tea("a", "u", 1))
		require.NoError(t, err)
		time.Sleep(time.Until(closes) - time.Millisecond)
		_, err = a.Reserve(ctx, tea("b", "u", 1))
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		refused(ErrEnded)
		// What was granted before goes on.
		res, err := a.Deduct(ctx, tea("a", "u", 1))
		require.NoError(t, err)
		require.True(t, res.Replayed)
		_, err = a.Confirm(ctx, Ref{"b", "u"})
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"a", "u"}, "")
		require.NoError(t, err)
		_, err = a.Restock(ctx, "r", Item{"tea", 1})
		require.NoError(t, err)
	})
}

// Clocks of a server that were set.
func TestServerClock(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{Hold: 10 * time.Minute, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, lostStock))
		real := time.Now()
		at := func(d time.Duration) { b.Mini.SetTime(real.Add(d)) }
		at(0)
		first, err := a.Reserve(ctx, tea("o", "u", 5))
		require.NoError(t, err)

		// Half a second back: time stands still.
		at(-500 * time.Millisecond)
		res, err := a.Lookup(ctx, Ref{"o", "u"})
		require.NoError(t, err)
		require.Equal(t, first.At, res.At)
		_, err = a.Cancel(ctx, Ref{"o", "u"}, "")
		require.NoError(t, err)

		// An hour back: it was wrong before. Versions grow all the same.
		at(-time.Hour)
		res, err = a.Reserve(ctx, tea("p", "u", 5))
		require.NoError(t, err)
		require.Equal(t, real.Add(-time.Hour).UnixMicro(), res.At.UnixMicro())
		require.Equal(t, real.Add(-time.Hour+10*time.Minute).UnixMilli(), res.Expires.UnixMilli())

		// An hour forward: what is due by that clock is over, once.
		at(time.Hour)
		_, err = a.Confirm(ctx, Ref{"p", "u"})
		require.ErrorIs(t, err, ErrExpired)
		at(0)
		_, err = a.Confirm(ctx, Ref{"p", "u"})
		require.ErrorIs(t, err, ErrExpired)
		_, err = a.Deduct(ctx, tea("q", "u", 5))
		require.NoError(t, err)
		require.Len(t, crossings(t, a), 5)
		requireConserved(t, a)
	})
}

// A hold made while the clock was an hour ahead lasts an hour longer once that is
// set right, and so do later ones as far as others want their units; each of them
// by itself knows better.
func TestHoldsAfterTheClockWasSetRight(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx := t.Context()
		a := open(t, b.Client(), Options{Hold: 10 * time.Minute, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, lostStock))
		real := time.Now()
		b.Mini.SetTime(real.Add(time.Hour))
		_, err := a.Reserve(ctx, tea("ahead", "u", 1))
		require.NoError(t, err)
		b.Mini.SetTime(real)
		for _, id := range []string{"right", "also right"} {
			_, err = a.Reserve(ctx, tea(id, "u", 2))
			require.NoError(t, err)
		}
		b.Mini.SetTime(real.Add(10 * time.Minute))
		_, err = a.Confirm(ctx, Ref{"right", "u"})
		require.ErrorIs(t, err, ErrExpired)
		requireTea(t, a, 2, 3, 0)
		b.Mini.SetTime(real.Add(70 * time.Minute))
		_, err = a.Deduct(ctx, tea("next", "u", 5))
		require.NoError(t, err)
		requireConserved(t, a)
	})
}

// Run ends when its context does, also while Redis is away.
func TestRunEnds(t *testing.T) {
	for name, fault := range map[string]redistest.Fault{"refused": redistest.RefuseDial, "cut": redistest.CutAfter, "silent": redistest.LoseReply} {
		t.Run(name, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				var faults redistest.Faults
				a := open(t, b.Client(faults.Options, shortTimeout), Options{})
				faults.Add(redistest.Rule{Do: fault, Times: -1})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				require.NoError(t, a.Run(ctx))
				require.Error(t, ctx.Err())
				require.Positive(t, a.Stats().Failures)
				faults.Clear()
				time.Sleep(2 * time.Second) // go-redis goes on dialling until it succeeds
			})
		})
	}
}

// A Run that begins when holds are over already tells of what its first sweep releases.
func TestBubbleLateRun(t *testing.T) {
	for _, buckets := range []int{1, 3} {
		t.Run(fmt.Sprint(buckets), func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				faults := &redistest.Faults{}
				told := make(chan Event, 10)
				a := open(t, b.Client(faults.Options), Options{Hold: time.Second, Buckets: buckets, OnEvent: func(e Event) { told <- e }})
				require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 1}))
				_, err := a.Reserve(t.Context(), tea("a", "u", 1))
				require.NoError(t, err)
				time.Sleep(2 * time.Second)
				faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "xrevrange", Delay: 100 * time.Millisecond, Times: -1})
				start(t, a.Run)
				select {
				case e := <-told:
					require.Equal(t, int64(1), e.Left)
				case <-time.After(time.Minute):
					t.Fatal("nobody is told that it is back")
				}
			})
		})
	}
}

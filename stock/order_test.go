package stock

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestDeduct(t *testing.T) {
	each(t, Options{}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		res, err := a.Deduct(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 3}, {"cup", 2}}})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), res.At, 5*time.Second)
		require.Equal(t, Result{State: Sold, Items: []Item{{"tea", 3}, {"cup", 2}}, At: res.At}, res)
		requireLevels(t, a, map[string]Level{"tea": {Left: 2, Sold: 3}, "cup": {Sold: 2}})

		// All or nothing; the first item that is short is named.
		_, err = a.Deduct(ctx, Order{ID: "p", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}}})
		var short *InsufficientError
		require.ErrorAs(t, err, &short)
		require.ErrorIs(t, err, ErrInsufficient)
		require.Equal(t, InsufficientError{SKU: "cup"}, *short)
		_, err = a.Deduct(ctx, Order{ID: "p", User: "u", Items: []Item{{"tea", 3}, {"cup", 1}}})
		require.ErrorAs(t, err, &short)
		require.Equal(t, InsufficientError{SKU: "tea", Left: 2}, *short)
		_, err = a.Deduct(ctx, Order{ID: "p", User: "u", Items: []Item{{"tea", 1}, {"pot", 1}}})
		require.ErrorIs(t, err, ErrNoSKU)
		require.ErrorContains(t, err, `"pot"`)

		// A refusal is not remembered: the id may be used anew, for something else too.
		_, err = a.Deduct(ctx, tea("p", "v", 2))
		require.NoError(t, err)
		requireLevels(t, a, map[string]Level{"tea": {Sold: 5}, "cup": {Sold: 2}})
		require.Equal(t, []OpKind{OpDeduct}, kinds(t, a, "p"))
	})
}

// An id that was settled gets that answer, whatever the stock is now.
func TestReplay(t *testing.T) {
	each(t, Options{}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		first := map[string]Result{}
		place := func(id string) (Result, error) {
			switch id {
			case "sold":
				return a.Deduct(ctx, tea(id, "u", 1))
			case "part":
				return a.Reserve(ctx, Order{ID: id, User: "u", Items: []Item{{"cup", 3}, {"tea", 1}}, Partial: true})
			}
			return a.Reserve(ctx, tea(id, "u", 1))
		}
		ids := []string{"sold", "held", "part", "confirmed", "cancelled"}
		for _, id := range ids {
			res, err := place(id)
			require.NoError(t, err)
			require.False(t, res.Replayed)
			first[id] = res
		}
		require.Equal(t, []Item{{"tea", 1}}, first["part"].Items)
		require.Equal(t, []Item{{"cup", 3}}, first["part"].Missing)
		_, err := a.Confirm(ctx, Ref{"confirmed", "u"})
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"cancelled", "u"}, "")
		require.NoError(t, err)
		_, err = a.Deduct(ctx, tea("the last", "u", 1))
		require.NoError(t, err)
		before := ops(t, a)
		for range 2 {
			for _, id := range ids {
				res, err := place(id)
				require.True(t, res.Replayed)
				want := first[id]
				want.Replayed, want.At = true, res.At
				switch id {
				case "confirmed":
					want.State, want.Expires = Confirmed, time.Time{}
				case "cancelled":
					require.ErrorIs(t, err, ErrCancelled)
					want.State, want.Expires = Cancelled, time.Time{}
				}
				if id != "cancelled" {
					require.NoError(t, err)
				}
				require.Equal(t, want, res)
				look, err := a.Lookup(ctx, Ref{id, "u"})
				require.NoError(t, err)
				want.At = look.At
				require.Equal(t, want, look)
			}
		}
		require.Equal(t, before, ops(t, a), "a replay changed something")
	})
}

// The same id with anything else is a conflict, and changes nothing.
func TestConflict(t *testing.T) {
	each(t, Options{}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Reserve(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 2}, {"cup", 1}}})
		require.NoError(t, err)
		_, err = a.Restock(ctx, "r", Item{"tea", 1})
		require.NoError(t, err)
		before := ops(t, a)
		items := []Item{{"tea", 2}, {"cup", 1}}
		for name, err := range map[string]error{
			"other quantity": second(a.Reserve(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}}})),
			"fewer items":    second(a.Reserve(ctx, Order{ID: "o", User: "u", Items: items[:1]})),
			"other item":     second(a.Reserve(ctx, Order{ID: "o", User: "u", Items: []Item{{"tea", 2}, {"pot", 1}}})),
			"other user":     second(a.Reserve(ctx, Order{ID: "o", User: "v", Items: items})),
			"other verb":     second(a.Deduct(ctx, Order{ID: "o", User: "u", Items: items})),
			"partial":        second(a.Reserve(ctx, Order{ID: "o", User: "u", Items: items, Partial: true})),
			"confirm":        second(a.Confirm(ctx, Ref{"o", "v"})),
			"cancel":         second(a.Cancel(ctx, Ref{"o", "v"}, "")),
			"lookup":         second(a.Lookup(ctx, Ref{"o", "v"})),
			"restock":        second(a.Restock(ctx, "r", Item{"tea", 2})),
		} {
			require.ErrorIs(t, err, ErrConflict, name)
		}
		require.Equal(t, before, ops(t, a))
		// Order ids and restock ids are apart.
		_, err = a.Restock(ctx, "o", Item{"tea", 1})
		require.NoError(t, err)
		_, err = a.Deduct(ctx, tea("r", "u", 1))
		require.NoError(t, err)
		_, err = a.Restock(ctx, "load", Item{"tea", 1}) // the name that Load has inside
		require.NoError(t, err)
		require.NoError(t, a.Load(ctx, lostStock))
		requireConserved(t, a)
	})
}

func TestPartial(t *testing.T) {
	each(t, Options{UserLimit: 6, UserSKULimit: 4}, map[string]int64{"tea": 5, "cup": 2, "pot": 9}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		res, err := a.Deduct(ctx, Order{ID: "1", User: "u", Items: []Item{{"pot", 5}, {"cup", 3}, {"tea", 4}, {"jar", 1}}, Partial: true})
		require.ErrorIs(t, err, ErrNoSKU) // a SKU that never was is a mistake, not a shortage
		require.Empty(t, res.Items)
		// pot: over the limit per SKU; cup: too few; tea: fits; and then none of the
		// activity's limit is left for the second cup.
		res, err = a.Reserve(ctx, Order{ID: "2", User: "u", Items: []Item{{"pot", 5}, {"tea", 4}, {"cup", 3}}, Partial: true})
		require.NoError(t, err)
		require.Equal(t, []Item{{"tea", 4}}, res.Items)
		require.Equal(t, []Item{{"pot", 5}, {"cup", 3}}, res.Missing)
		res, err = a.Deduct(ctx, Order{ID: "3", User: "u", Items: []Item{{"cup", 1}, {"pot", 2}}, Partial: true})
		require.NoError(t, err)
		require.Equal(t, []Item{{"cup", 1}}, res.Items)
		// Nothing of it: the first reason.
		_, err = a.Deduct(ctx, Order{ID: "4", User: "u", Items: []Item{{"pot", 2}, {"cup", 9}}, Partial: true})
		var limit *LimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, LimitError{Have: 5, Limit: 6}, *limit)
		// All of it.
		res, err = a.Deduct(ctx, Order{ID: "5", User: "v", Items: []Item{{"cup", 1}, {"tea", 1}}, Partial: true})
		require.NoError(t, err)
		require.Len(t, res.Items, 2)
		require.Empty(t, res.Missing)
		// A partial order ends like any other.
		res, err = a.Confirm(ctx, Ref{"2", "u"})
		require.NoError(t, err)
		require.Equal(t, []Item{{"tea", 4}}, res.Items)
		require.Equal(t, []Item{{"pot", 5}, {"cup", 3}}, res.Missing)
		res, err = a.Cancel(ctx, Ref{"3", "u"}, "")
		require.NoError(t, err)
		require.Equal(t, []Item{{"cup", 1}}, res.Items)
		require.Equal(t, []Item{{"pot", 2}}, res.Missing)
		requireLevels(t, a, map[string]Level{"tea": {Sold: 5}, "cup": {Left: 1, Sold: 1}, "pot": {Left: 9}})
		requireConserved(t, a)
	})
}

// What each state says to each verb.
func TestEnds(t *testing.T) {
	each(t, Options{}, map[string]int64{"tea": 100}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		type end func(id string) (Result, error)
		deduct := func(id string) (Result, error) { return a.Deduct(ctx, tea(id, "u", 2)) }
		reserve := func(id string) (Result, error) { return a.Reserve(ctx, tea(id, "u", 2)) }
		confirm := func(id string) (Result, error) { return a.Confirm(ctx, Ref{id, "u"}) }
		cancel := func(id string) (Result, error) { return a.Cancel(ctx, Ref{id, "u"}, "why") }
		lookup := func(id string) (Result, error) { return a.Lookup(ctx, Ref{id, "u"}) }
		for n, c := range []struct {
			before []end
			do     end
			state  State
			err    error
			replay bool
		}{
			{nil, confirm, None, ErrNotFound, false},
			{nil, lookup, None, ErrNotFound, false},
			{nil, cancel, Cancelled, nil, false}, // before it arrives
			{[]end{cancel}, cancel, Cancelled, nil, true},
			{[]end{cancel}, reserve, Cancelled, ErrCancelled, true},
			{[]end{cancel}, deduct, Cancelled, ErrCancelled, true},
			{[]end{cancel}, confirm, Cancelled, ErrCancelled, true},
			{[]end{cancel}, lookup, Cancelled, nil, true},
			{[]end{reserve}, confirm, Confirmed, nil, false},
			{[]end{deduct}, confirm, Confirmed, nil, false},
			{[]end{reserve}, cancel, Cancelled, nil, false},
			{[]end{deduct}, cancel, Cancelled, nil, false},
			{[]end{reserve, confirm}, confirm, Confirmed, nil, true},
			{[]end{reserve, confirm}, cancel, Confirmed, ErrConfirmed, true},
			{[]end{reserve, confirm}, reserve, Confirmed, nil, true},
			{[]end{deduct, confirm}, cancel, Confirmed, ErrConfirmed, true},
			{[]end{deduct, confirm}, deduct, Confirmed, nil, true},
			{[]end{reserve, cancel}, cancel, Cancelled, nil, true},
			{[]end{reserve, cancel}, confirm, Cancelled, ErrCancelled, true},
			{[]end{deduct, cancel}, deduct, Cancelled, ErrCancelled, true},
		} {
			id := fmt.Sprint("order ", n)
			for _, f := range c.before {
				_, err := f(id)
				require.NoError(t, err)
			}
			res, err := c.do(id)
			if c.err == nil {
				require.NoError(t, err, id)
			} else {
				require.ErrorIs(t, err, c.err, id)
				require.ErrorContains(t, err, id)
			}
			require.Equal(t, c.state, res.State, id)
			require.Equal(t, c.replay, res.Replayed, id)
			require.Zero(t, res.Expires)
		}
		requireConserved(t, a)
	})
}

// One winner, and everybody is told the truth.
func TestRaces(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		prefix := redistest.Prefix(t)
		var processes []*Activity
		for range 2 {
			processes = append(processes, open(t, rdb, Options{Prefix: prefix, SoldOutFor: -1, Hold: 100 * time.Millisecond}))
		}
		one, two := processes[0], processes[1]
		require.NoError(t, one.Load(ctx, map[string]int64{"tea": 1000}))
		won := map[State]int{}
		const orders = 60
		expires := make([]time.Time, orders)
		for i := range orders {
			res, err := one.Reserve(ctx, tea(fmt.Sprint(i), "u", 1))
			require.NoError(t, err)
			expires[i] = res.Expires
		}
		for i := range orders {
			ref := Ref{fmt.Sprint(i), "u"}
			if i == orders*2/3 { // the others meet the end of the hold as well
				due := time.NewTimer(time.Until(expires[orders-1]) - 2*time.Millisecond)
				<-due.C
			}
			var wg sync.WaitGroup
			var confirmed, cancelled error
			wg.Go(func() { _, confirmed = one.Confirm(ctx, ref) })
			wg.Go(func() { _, cancelled = two.Cancel(ctx, ref, "") })
			wg.Wait()
			res, err := one.Lookup(ctx, ref)
			require.NoError(t, err)
			won[res.State]++
			switch res.State {
			case Confirmed:
				require.NoError(t, confirmed)
				require.ErrorIs(t, cancelled, ErrConfirmed)
				require.Equal(t, []OpKind{OpReserve, OpConfirm}, kinds(t, one, ref.ID))
			case Cancelled:
				require.NoError(t, cancelled)
				require.ErrorIs(t, confirmed, ErrCancelled)
				require.Equal(t, []OpKind{OpReserve, OpCancel}, kinds(t, one, ref.ID))
			case Expired:
				require.ErrorIs(t, confirmed, ErrExpired)
				require.ErrorIs(t, cancelled, ErrExpired)
				require.Equal(t, []OpKind{OpReserve, OpExpire}, kinds(t, one, ref.ID))
			default:
				t.Fatalf("order %s is %v", ref.ID, res.State)
			}
		}
		t.Logf("won: %v", won)
		requireConserved(t, one)
	})
}

func TestLimits(t *testing.T) {
	each(t, Options{UserLimit: 5, UserSKULimit: 3}, map[string]int64{"tea": 100, "cup": 100, "pot": 100}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		var limit *LimitError
		_, err := a.Deduct(ctx, tea("1", "u", 4))
		require.ErrorAs(t, err, &limit)
		require.ErrorIs(t, err, ErrLimit)
		require.Equal(t, LimitError{SKU: "tea", Have: 0, Limit: 3}, *limit)
		_, err = a.Deduct(ctx, tea("2", "u", 2))
		require.NoError(t, err)
		_, err = a.Deduct(ctx, tea("2", "u", 2)) // a replay does not count
		require.NoError(t, err)
		_, err = a.Reserve(ctx, tea("3", "u", 2))
		require.ErrorAs(t, err, &limit)
		require.Equal(t, LimitError{SKU: "tea", Have: 2, Limit: 3}, *limit)
		_, err = a.Reserve(ctx, Order{ID: "4", User: "u", Items: []Item{{"tea", 1}, {"cup", 2}}})
		require.NoError(t, err)
		_, err = a.Reserve(ctx, Order{ID: "5", User: "u", Items: []Item{{"pot", 1}}})
		require.ErrorAs(t, err, &limit)
		require.Equal(t, LimitError{Have: 5, Limit: 5}, *limit)
		_, err = a.Reserve(ctx, tea("6", "v", 3)) // somebody else
		require.NoError(t, err)
		// Confirm keeps, cancel gives back.
		_, err = a.Confirm(ctx, Ref{"2", "u"})
		require.NoError(t, err)
		_, err = a.Deduct(ctx, Order{ID: "5", User: "u", Items: []Item{{"pot", 1}}})
		require.ErrorIs(t, err, ErrLimit)
		_, err = a.Cancel(ctx, Ref{"4", "u"}, "")
		require.NoError(t, err)
		_, err = a.Deduct(ctx, Order{ID: "5", User: "u", Items: []Item{{"pot", 3}}})
		require.NoError(t, err)
		_, err = a.Cancel(ctx, Ref{"5", "u"}, "")
		require.NoError(t, err)
		_, err = a.Deduct(ctx, Order{ID: "7", User: "u", Items: []Item{{"cup", 3}}})
		require.NoError(t, err)
		requireConserved(t, a)
	})
}

func TestLimitsComeBackWithExpiry(t *testing.T) {
	bubble(t, Options{UserLimit: 4, UserSKULimit: 3, Hold: time.Minute}, func(t *testing.T, _ *redistest.Env, a *Activity) {
		for i := range 5 {
			_, err := a.Reserve(t.Context(), tea(fmt.Sprint(i), "u", 3))
			require.NoError(t, err)
			_, err = a.Reserve(t.Context(), tea("x", "u", 1))
			require.ErrorIs(t, err, ErrLimit)
			time.Sleep(time.Minute)
		}
	})
}

func TestEligible(t *testing.T) {
	each(t, Options{EligibleOnly: true}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Deduct(ctx, tea("1", "u", 1))
		require.ErrorIs(t, err, ErrNotEligible)
		users := []string{"u", "{}\r\n"}
		for i := range 2500 {
			users = append(users, fmt.Sprint("user", i))
		}
		require.NoError(t, a.Allow(ctx, users...))
		for i, u := range []string{"u", "{}\r\n", "user2499"} {
			_, err = a.Deduct(ctx, tea(fmt.Sprint(i), u, 1))
			require.NoError(t, err)
		}
		_, err = a.Reserve(ctx, tea("v", "v", 1))
		require.ErrorIs(t, err, ErrNotEligible)
		// Others' calls do not need to be eligible.
		_, err = a.Restock(ctx, "r", Item{"tea", 1})
		require.NoError(t, err)
		_, err = a.Lookup(ctx, Ref{"v", "v"})
		require.ErrorIs(t, err, ErrNotFound)
	})
}

func TestHalt(t *testing.T) {
	each(t, Options{}, lostStock, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		_, err := a.Reserve(ctx, tea("o", "u", 1))
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, a.Halt(ctx, "price is wrong"))
		}
		info, err := a.Inspect(ctx)
		require.NoError(t, err)
		require.Equal(t, "price is wrong", info.Halted)
		_, err = a.Reserve(ctx, tea("p", "u", 1))
		require.ErrorIs(t, err, ErrHalted)
		require.ErrorContains(t, err, "price is wrong")
		_, err = a.Deduct(ctx, tea("p", "u", 9))
		require.ErrorIs(t, err, ErrHalted)
		res, err := a.Reserve(ctx, tea("o", "u", 1))
		require.NoError(t, err)
		require.True(t, res.Replayed)
		_, err = a.Restock(ctx, "r", Item{"tea", 1})
		require.NoError(t, err)
		_, err = a.Confirm(ctx, Ref{"o", "u"})
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, a.Resume(ctx))
		}
		_, err = a.Reserve(ctx, tea("p", "u", 1))
		require.NoError(t, err)
	})
}

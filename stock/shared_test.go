package stock

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Calls that share a round trip, or an answer.

// blocked returns an activity of a bubble whose next call takes a while.
func blocked(t *testing.T, b *redistest.Env, opts Options, delay time.Duration) (a, other *Activity, faults *redistest.Faults) {
	faults = &redistest.Faults{}
	a = open(t, b.Client(faults.Options), opts)
	other = open(t, b.Client(), a.opts)
	require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 10, "cup": 10}))
	_, err := a.Lookup(t.Context(), Ref{"warm", "up"})
	require.ErrorIs(t, err, ErrNotFound)
	faults.Add(redistest.Rule{Do: redistest.DelayReply, Match: "evalsha", Delay: delay})
	return a, other, faults
}

// A caller may do with its slice what it likes once it has left, though another
// caller waits for the same order.
func TestItemsOfACallerWhoLeft(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a, _, _ := blocked(t, b, Options{}, 30*time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = a.Deduct(t.Context(), tea("in flight", "nobody", 11)) })
		synctest.Wait()
		items := []Item{{"tea", 1}, {"cup", 1}}
		short, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := a.Deduct(short, Order{ID: "o", User: "u", Items: items})
			require.ErrorIs(t, err, context.Canceled)
			items[0].Qty, items[1] = 7, Item{"nothing", 1}
		})
		synctest.Wait()
		wg.Go(func() {
			res, err := a.Deduct(t.Context(), Order{ID: "o", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}}})
			require.NoError(t, err)
			require.Equal(t, []Item{{"tea", 1}, {"cup", 1}}, res.Items)
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		requireConserved(t, a)
		requireTea(t, a, 9, 0, 1)
	})
}

// Lookup and Confirm speak of the time at which they are called: they do not take
// the answer to a question that was asked before.
func TestAnswersAreNotOlderThanTheCall(t *testing.T) {
	ask := map[string]func(a *Activity, ctx context.Context, ref Ref) (Result, error){
		"Lookup": (*Activity).Lookup, "Confirm": (*Activity).Confirm,
	}
	for name, ask := range ask {
		t.Run(name, func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				a, other, faults := blocked(t, b, Options{}, time.Second)
				var wg sync.WaitGroup
				wg.Go(func() { // its answer, "not found", takes a second to arrive
					_, err := ask(a, t.Context(), Ref{"o", "u"})
					require.ErrorIs(t, err, ErrNotFound)
				})
				synctest.Wait()
				_, err := other.Reserve(t.Context(), tea("o", "u", 1))
				require.NoError(t, err)
				_, err = ask(a, t.Context(), Ref{"o", "u"})
				require.NoError(t, err)
				wg.Wait()
				require.Equal(t, 1, faults.Fired(redistest.DelayReply))
			})
		})
	}
}

// Nor does an order: one that is placed after its like was cancelled is told so, while
// the answer to the first is still on its way.
func TestAnOrderDoesNotTakeAnOlderAnswer(t *testing.T) {
	for _, unmerged := range []bool{false, true} {
		redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
			a, _, faults := blocked(t, b, Options{Unmerged: unmerged}, time.Second)
			var wg sync.WaitGroup
			wg.Go(func() {
				res, err := a.Deduct(t.Context(), tea("o", "u", 1))
				require.NoError(t, err)
				require.Equal(t, Sold, res.State)
			})
			synctest.Wait()
			_, err := a.Cancel(t.Context(), Ref{"o", "u"}, "")
			require.NoError(t, err)
			_, err = a.Deduct(t.Context(), tea("o", "u", 1))
			require.ErrorIs(t, err, ErrCancelled)
			wg.Wait()
			require.Equal(t, 1, faults.Fired(redistest.DelayReply))
		})
	}
}

// Goroutines that ask for the same at the same time get the same, once.
func TestTheSameOrderFromManyGoroutines(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, unmerged := range []bool{false, true} {
			a := open(t, rdb, Options{Unmerged: unmerged})
			require.NoError(t, a.Load(t.Context(), lostStock))
			var wg sync.WaitGroup
			results, errs := make([]Result, 50), make([]error, 50)
			for i := range results {
				wg.Go(func() {
					results[i], errs[i] = a.Reserve(t.Context(), Order{ID: "o", User: "u", Items: []Item{{"tea", 3}}, Retry: i%2 == 0})
				})
			}
			wg.Wait()
			for i, res := range results {
				require.NoError(t, errs[i])
				require.Equal(t, Reserved, res.State)
				require.Equal(t, []Item{{"tea", 3}}, res.Items)
				require.Equal(t, results[0].Expires, res.Expires)
			}
			require.Equal(t, []OpKind{OpReserve}, kinds(t, a, "o"))
			requireTea(t, a, 2, 3, 0)
		}
	})
}

// One after the other in a batch, in the order of arrival: the journal entry has
// the whole batch, and the verdicts are each order's own.
func TestABatchKeepsItsOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{SoldOutFor: -1})
		require.NoError(t, a.Load(t.Context(), lostStock))
		out, err := a.flush(t.Context(), "", []*op{
			newOp('D', ':', "1", "u", []Item{{"tea", 3}}),
			newOp('D', ':', "2", "u", []Item{{"tea", 3}}),
			newOp('R', ':', "3", "u", []Item{{"tea", 2}}),
			newOp('D', ':', "1", "u", []Item{{"tea", 3}}),
			newOp('D', ':', "1", "u", []Item{{"tea", 2}}),
			newOp('D', ':', "4", "u", []Item{{"tea", 1}}),
		})
		require.NoError(t, err)
		var codes []int64
		for _, o := range out {
			require.NoError(t, o.err)
			codes = append(codes, o.code)
		}
		require.Equal(t, []int64{codeDone, codeInsufficient, codeDone, codeReplay, codeConflict, codeInsufficient}, codes)
		// And with verbs of all kinds, some of them on what the batch itself did.
		out, err = a.flush(t.Context(), "", []*op{
			newOp('X', ':', "3", "u", nil),
			newOp('D', ':', "4", "u", []Item{{"tea", 1}}),
			newOp('X', ':', "5", "u", nil),
			newOp('D', ':', "5", "u", []Item{{"tea", 1}}),
			newOp('A', '+', "1", "", []Item{{"tea", 1}}),
			newOp('R', ':', "6", "u", []Item{{"tea", 2}}),
			newOp('C', ':', "6", "u", nil),
			newOp('X', ':', "6", "u", nil),
			newOp('S', ':', "6", "other", nil),
			newOp('S', ':', "7", "u", nil),
		})
		require.NoError(t, err)
		codes = nil
		for _, o := range out {
			require.NoError(t, o.err)
			codes = append(codes, o.code)
		}
		require.Equal(t, []int64{codeDone, codeDone, codeDone, codeReplay, codeDone, codeDone, codeDone, codeReplay, codeConflict, codeNotFound}, codes)
		require.Len(t, journal(t, a), 3)
		requireTea(t, a, 0, 0, 6)
		requireConserved(t, a)
		require.Equal(t, []Event{{SKU: "tea"}, {SKU: "tea", Left: 2}, {SKU: "tea"}}, crossings(t, a))
	})
}

// The largest batches that the limits allow, in bytes and in SKUs.
func TestLargestOrders(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{UserLimit: maxQty, UserSKULimit: maxQty})
		stock := map[string]int64{}
		var items []Item
		for i := range maxItems {
			sku := fmt.Sprintf("%0*d", maxSKU, i)
			stock[sku] = 1 << 40
			items = append(items, Item{sku, 1 << 40})
		}
		require.NoError(t, a.Load(t.Context(), stock))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				id := fmt.Sprintf("%0*d", maxID, i)
				_, err := a.Reserve(t.Context(), Order{ID: id, User: id, Items: items, Partial: i%2 == 0})
				if err != nil {
					require.ErrorIs(t, err, ErrInsufficient)
				}
			})
		}
		wg.Wait()
		levels, err := a.Stock(t.Context())
		require.NoError(t, err)
		require.Len(t, levels, maxItems)
		for sku, l := range levels {
			require.Equal(t, Level{Reserved: 1 << 40, Version: l.Version}, l, sku)
		}
		holds := 0
		for h, err := range a.Holds(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, items, h.Items)
			_, err = a.Cancel(t.Context(), h.Ref, "")
			require.NoError(t, err)
			holds++
		}
		require.Equal(t, 1, holds)
		requireConserved(t, a)
	})
}

func TestClose(t *testing.T) {
	for _, unmerged := range []bool{false, true} {
		t.Run(fmt.Sprintf("unmerged=%v", unmerged), func(t *testing.T) {
			redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
				a, _, _ := blocked(t, b, Options{Unmerged: unmerged}, 300*time.Millisecond)
				var wg sync.WaitGroup
				wg.Go(func() {
					_, err := a.Deduct(t.Context(), tea("o", "u", 1))
					require.NoError(t, err)
				})
				synctest.Wait()
				began := time.Now()
				require.NoError(t, a.Close(t.Context()))
				if !unmerged {
					require.Equal(t, 300*time.Millisecond, time.Since(began), "Close waits for the call under way")
				}
				wg.Wait()
				for range 2 {
					_, err := a.Deduct(t.Context(), tea("p", "u", 1))
					require.ErrorIs(t, err, ErrClosed)
					require.NoError(t, a.Close(t.Context()))
				}
				require.Empty(t, kinds(t, a, "p"))
			})
		})
	}
}

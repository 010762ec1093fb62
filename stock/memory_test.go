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

// Answers from memory, and the events that take them back.

// soldOutBubble has two processes of one activity, the second with Run, of which
// tea is sold out and both know it.
func soldOutBubble(t *testing.T, soldOutFor time.Duration, f func(t *testing.T, one, two *Activity)) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		one := open(t, b.Client(), Options{SoldOutFor: soldOutFor, Hold: time.Minute})
		two := open(t, b.Client(), one.opts)
		require.NoError(t, one.Load(t.Context(), lostStock))
		_, err := one.Reserve(t.Context(), tea("last", "u", 5))
		require.NoError(t, err)
		start(t, two.Run)
		synctest.Wait()
		for _, a := range []*Activity{one, two} {
			requireAsked(t, a, a == two) // one has seen the crossing itself
			requireAsked(t, a, false)
		}
		f(t, one, two)
	})
}

// requireAsked orders what is sold out, and demands that Redis was asked or not.
func requireAsked(t testing.TB, a *Activity, asked bool) {
	t.Helper()
	res, err := a.Deduct(t.Context(), tea("new", "v", 1))
	var short *InsufficientError
	require.ErrorAs(t, err, &short)
	require.ErrorIs(t, err, ErrInsufficient)
	require.Equal(t, "tea", short.SKU)
	require.Zero(t, short.Left)
	require.Equal(t, !asked, res.FromMemory)
	require.Equal(t, !asked, short.FromMemory)
	require.Equal(t, !asked, res.At.IsZero())
}

func TestSoldOutFor(t *testing.T) {
	soldOutBubble(t, 100*time.Millisecond, func(t *testing.T, one, _ *Activity) {
		calls := one.Stats().Calls
		time.Sleep(100 * time.Millisecond)
		requireAsked(t, one, false) // exactly then it still holds
		time.Sleep(time.Millisecond)
		requireAsked(t, one, true)
		requireAsked(t, one, false)
		require.Equal(t, calls+1, one.Stats().Calls)
		require.EqualValues(t, 4, one.Stats().FromMemory)
	})
}

func TestSoldOutNever(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		a := open(t, b.Client(), Options{SoldOutFor: -1})
		require.NoError(t, a.Load(t.Context(), map[string]int64{"tea": 0}))
		for range 3 {
			requireAsked(t, a, true)
		}
	})
}

// What only Redis can know is asked of Redis.
func TestMemoryIsNotAsked(t *testing.T) {
	soldOutBubble(t, time.Second, func(t *testing.T, one, _ *Activity) {
		ctx := t.Context()
		// A retry: the order that took the last unit is never told sold out.
		again := tea("last", "u", 5)
		again.Retry = true
		res, err := one.Reserve(ctx, again)
		require.NoError(t, err)
		require.True(t, res.Replayed)
		require.Equal(t, Reserved, res.State)
		// Lookup, Confirm and Cancel.
		_, err = one.Lookup(ctx, Ref{"last", "u"})
		require.NoError(t, err)
		_, err = one.Confirm(ctx, Ref{"last", "u"})
		require.NoError(t, err)
		// A partial order of which something is left.
		res, err = one.Deduct(ctx, Order{ID: "part", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}}, Partial: true})
		require.NoError(t, err)
		require.Equal(t, []Item{{"cup", 1}}, res.Items)
		require.Equal(t, []Item{{"tea", 1}}, res.Missing)
		// One of which nothing is left, and one that wants all, are not.
		_, err = one.Deduct(ctx, Order{ID: "c", User: "u", Items: []Item{{"cup", 1}}})
		require.NoError(t, err)
		res, err = one.Deduct(ctx, Order{ID: "d", User: "u", Items: []Item{{"tea", 1}, {"cup", 1}}, Partial: true})
		require.ErrorIs(t, err, ErrInsufficient)
		require.True(t, res.FromMemory)
		res, err = one.Deduct(ctx, Order{ID: "e", User: "u", Items: []Item{{"new", 1}, {"tea", 1}}})
		require.ErrorIs(t, err, ErrInsufficient)
		require.True(t, res.FromMemory)
	})
}

// Units that another process gives back are known here as soon as the event is.
func TestMemoryIsClearedByEvents(t *testing.T) {
	for name, giveBack := range map[string]func(ctx context.Context, a, other *Activity) error{
		"restock": func(ctx context.Context, a, _ *Activity) error {
			_, err := a.Restock(ctx, "r", Item{"tea", 2})
			return err
		},
		"cancel": func(ctx context.Context, a, _ *Activity) error {
			_, err := a.Cancel(ctx, Ref{"last", "u"}, "")
			return err
		},
		"expiry": func(ctx context.Context, _, other *Activity) error {
			time.Sleep(time.Minute - 200*time.Millisecond)
			_, err := other.Deduct(ctx, tea("again", "u", 1)) // it knows for another second
			if err == nil {
				return fmt.Errorf("the hold ended early")
			}
			time.Sleep(200 * time.Millisecond) // Run of process two releases it
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			soldOutBubble(t, time.Second, func(t *testing.T, one, two *Activity) {
				require.NoError(t, giveBack(t.Context(), one, two))
				synctest.Wait()
				res, err := two.Deduct(t.Context(), tea("new", "v", 1))
				require.NoError(t, err)
				require.False(t, res.FromMemory)
			})
		})
	}
}

// An answer that was on its way when the units came back does not hide them.
func TestLateSoldOutIsIgnored(t *testing.T) {
	var m memory
	m.ttl = time.Minute
	now := time.Now()
	m.seen("tea", 5, 0, now)
	require.ErrorIs(t, m.soldOut("tea"), ErrInsufficient)
	m.seen("tea", 7, 3, now)
	require.NoError(t, m.soldOut("tea"))
	m.seen("tea", 5, 0, now) // late
	require.NoError(t, m.soldOut("tea"))
	m.seen("tea", 8, 0, now.Add(-2*time.Minute)) // sent too long ago
	require.NoError(t, m.soldOut("tea"))
	m.seen("tea", 8, 0, now)
	require.ErrorIs(t, m.soldOut("tea"), ErrInsufficient)
	m.seen("tea", 8, 0, now.Add(-time.Hour)) // does not shorten what is known
	require.ErrorIs(t, m.soldOut("tea"), ErrInsufficient)
}

// Ids in doubt beyond those that fit make every order ask.
func TestDoubtsAreBounded(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, _ *redistest.Env) {
		var d doubts
		field := func(id string) string { return fmt.Sprintf("%d:%s", len(id), id) }
		require.False(t, d.has("a"))
		d.add(field("a"), time.Hour)
		require.True(t, d.has("a"))
		require.False(t, d.has("b"))
		d.clear(field("a"))
		require.False(t, d.has("a"))
		for i := range maxDoubts {
			d.add(field(fmt.Sprint(i)), time.Hour)
		}
		require.False(t, d.has("b"))
		d.add(field("b"), time.Hour) // no room: everything is in doubt
		require.True(t, d.has("b"))
		require.True(t, d.has("c"))
		for i := range maxDoubts {
			d.clear(field(fmt.Sprint(i)))
		}
		require.True(t, d.has("b"))
		time.Sleep(2 * time.Hour)
		require.False(t, d.has("b"))
		d.add(field("d"), time.Hour) // makes room
		require.True(t, d.has("d"))
		require.False(t, d.has("c"))
	})
}

// Exactly one event a crossing, and none for what does not cross.
func TestEvents(t *testing.T) {
	each(t, Options{}, map[string]int64{"tea": 100, "pot": 0}, func(t *testing.T, a *Activity) {
		ctx := t.Context()
		must := func(_ Result, err error) { t.Helper(); require.NoError(t, err) }
		none := func() { t.Helper(); require.Empty(t, crossings(t, a)) }
		must(a.Deduct(ctx, tea("1", "u", 1))) // 100 → 99
		must(a.Deduct(ctx, tea("2", "u", 1)))
		must(a.Cancel(ctx, Ref{"2", "u"}, ""))
		must(a.Restock(ctx, "more", Item{"tea", 1}))
		_, err := a.Deduct(ctx, Order{ID: "3", User: "u", Items: []Item{{"pot", 1}}})
		require.ErrorIs(t, err, ErrInsufficient)
		none()
		must(a.Reserve(ctx, tea("4", "u", 100)))
		_, err = a.Deduct(ctx, tea("5", "u", 1))
		require.ErrorIs(t, err, ErrInsufficient)
		must(a.Confirm(ctx, Ref{"1", "u"}))
		want := []Event{{SKU: "tea"}}
		require.Equal(t, want, crossings(t, a))
		must(a.Cancel(ctx, Ref{"4", "u"}, ""))
		must(a.Restock(ctx, "pots", Item{"pot", 2}))
		must(a.Deduct(ctx, Order{ID: "6", User: "u", Items: []Item{{"pot", 2}, {"tea", 100}}}))
		want = append(want, Event{"tea", 0, 100}, Event{"pot", 0, 2}, Event{SKU: "pot"}, Event{SKU: "tea"})
		require.Equal(t, want, crossings(t, a))
		levels, err := a.Stock(ctx)
		require.NoError(t, err)
		last := map[string]int64{}
		for _, o := range ops(t, a) {
			if o.Kind == OpCrossing {
				last[o.Event.SKU] = o.Event.Version
			}
		}
		for sku, v := range last {
			require.Equal(t, v, levels[sku].Version)
		}
		// The short stream has the same ones.
		stream, err := a.rdb.XRange(ctx, a.keys.events, "-", "+").Result()
		require.NoError(t, err)
		var short []Event
		for _, m := range stream {
			ev, ok := parseEvent(m.Values)
			require.True(t, ok)
			ev.Version = 0
			short = append(short, ev)
		}
		require.Equal(t, want, short)
	})
}

// OnEvent is told once, in every process, though two Runs of one tail the stream.
func TestOnEvent(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		var told eventsTold
		prefix := redistest.Prefix(t)
		activity := func(i int) *Activity {
			return open(t, rdb, Options{Prefix: prefix, OnEvent: told.add(i), SoldOutFor: -1})
		}
		one, two := activity(1), activity(2)
		require.NoError(t, one.Load(ctx, lostStock))
		_, err := one.Deduct(ctx, tea("before", "u", 5)) // nobody is told of the past
		require.NoError(t, err)
		_, err = one.Cancel(ctx, Ref{"before", "u"}, "")
		require.NoError(t, err)
		stop := start(t, func(ctx context.Context) error {
			return together([]*Activity{one, one, two}, func(a *Activity) error { return a.Run(ctx) })
		})
		count := func(i int) int {
			told.mu.Lock()
			defer told.mu.Unlock()
			return len(told.events[i])
		}
		// The tails are there when both have heard of a first event.
		n := 0
		eventually(t, func() bool {
			n++
			id := fmt.Sprint("probe", n)
			_, err := one.Deduct(ctx, tea(id, "u", 5))
			_, err2 := one.Cancel(ctx, Ref{id, "u"}, "")
			return err == nil && err2 == nil && count(1) > 0 && count(2) > 0
		}, "no event arrives")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				id := fmt.Sprint("o", i)
				if _, err := two.Reserve(ctx, tea(id, "u", 5)); err == nil {
					_, _ = two.Cancel(ctx, Ref{id, "u"}, "")
				}
			})
		}
		wg.Wait()
		var all []Event
		for _, o := range ops(t, one) {
			if o.Kind == OpCrossing {
				all = append(all, o.Event)
			}
		}
		last := func(i int) bool {
			told.mu.Lock()
			defer told.mu.Unlock()
			e := told.events[i]
			return len(e) > 0 && e[len(e)-1] == all[len(all)-1]
		}
		eventually(t, func() bool { return last(1) && last(2) }, "the last event does not arrive")
		stop()
		told.require(t, all)
		require.EqualValues(t, count(2), two.Stats().Events)
	})
}

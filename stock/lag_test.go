package stock

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Redis loses the journal that a sink has, and its clock lags so far behind that it lives
// through the same milliseconds again, with other orders. It is a fork like any other:
// with ids that are the clock's alone, the sink would find its checkpoint and go on.
func TestBubbleForkInTheSameMilliseconds(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx, t0 := t.Context(), time.Now()
		a := open(t, b.Client(), Options{Linger: time.Millisecond, SoldOutFor: -1})
		sell := func(who string, n int) (ids []string) {
			b.Mini.SetTime(t0)
			require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
			for i := range n {
				b.Mini.SetTime(t0.Add(time.Duration(i+1) * time.Millisecond))
				_, err := a.Deduct(ctx, tea(fmt.Sprint(who, i), "u", 1))
				require.NoError(t, err)
			}
			entries, err := a.rdb.XRange(ctx, a.keys.stream, "-", "+").Result()
			require.NoError(t, err)
			for _, e := range entries {
				ids = append(ids, e.ID)
			}
			return ids
		}
		sink := newShelf()
		before := sell("a", 5)
		shelve(t, a, sink)
		b.Mini.FlushAll()
		after := sell("b", 10)
		require.Len(t, before, 6)
		require.Len(t, after, 11)
		for i, id := range before {
			require.Equal(t, milli(id), milli(after[i]))
			require.NotEqual(t, id, after[i])
		}
		forked(t, a, sink)
		_, err := a.Reconcile(ctx, sink)
		require.ErrorIs(t, err, ErrForked)
	})
}

// milli is the millisecond of an entry's id.
func milli(id string) string {
	ms, _, _ := strings.Cut(id, "-")
	return ms
}

// Also where both begin behind the same entry, and the clock does not move.
func TestBubbleForkInTheSameMillisecond(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx, rdb := t.Context(), b.Client()
		b.Mini.SetTime(time.Now())
		a := open(t, rdb, Options{Linger: time.Millisecond, SoldOutFor: -1})
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
		sell := func(who string, n int) {
			for i := range n {
				_, err := a.Deduct(ctx, tea(fmt.Sprint(who, i), "u", 1))
				require.NoError(t, err)
			}
		}
		sink, middle := newShelf(), save(t, rdb, a)
		sell("a", 2)
		shelve(t, a, sink)
		middle.restore(t)
		sell("b", 10)
		forked(t, a, sink)
	})
}

// Entries of one millisecond, and those made while the clock stands behind the last one,
// follow each other.
func TestBubbleJournalOfOneMillisecond(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		ctx, t0 := t.Context(), time.Now()
		a := open(t, b.Client(), Options{Linger: time.Millisecond, SoldOutFor: -1})
		b.Mini.SetTime(t0)
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 100}))
		for i, d := range []time.Duration{0, 0, -500 * time.Millisecond, -time.Hour, time.Millisecond} {
			b.Mini.SetTime(t0.Add(d))
			_, err := a.Deduct(ctx, tea(fmt.Sprint(i), "u", 1))
			require.NoError(t, err)
		}
		entries, err := a.rdb.XRange(ctx, a.keys.stream, "-", "+").Result()
		require.NoError(t, err)
		require.Len(t, entries, 6)
		last := int64(-1)
		for _, e := range entries[:5] {
			var ms, seq int64
			_, err = fmt.Sscanf(e.ID, "%d-%d", &ms, &seq)
			require.NoError(t, err)
			require.Equal(t, t0.UnixMilli(), ms)
			require.Greater(t, seq, last)
			require.LessOrEqual(t, seq-last, int64(1<<24))
			last = seq
		}
		require.Equal(t, fmt.Sprint(t0.UnixMilli()+1), milli(entries[5].ID))
		sink := newShelf()
		shelve(t, a, sink)
		d, err := a.Reconcile(ctx, sink)
		require.NoError(t, err)
		require.True(t, d.None(), "%+v", d)
	})
}

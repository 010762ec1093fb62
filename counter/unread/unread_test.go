package unread

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestUnreadIsWhatWasSentAndNotRead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		u, err := NewUnread(rdb, Options{Prefix: redistest.Prefix(t)})
		require.NoError(t, err)
		ctx := t.Context()
		counts := func(user string) []int64 {
			n, err := u.Counts(ctx, user, []string{"a", "b", "never"})
			require.NoError(t, err)
			return n
		}
		assert.Equal(t, []int64{0, 0, 0}, counts("ann"))
		require.NoError(t, u.Sent(ctx, "a", 5))
		require.NoError(t, u.Sent(ctx, "b", 2))
		require.NoError(t, u.Sent(ctx, "a", 3), "late")
		assert.Equal(t, []int64{5, 2, 0}, counts("ann"))
		require.NoError(t, u.Read(ctx, "ann", "a", 4))
		require.NoError(t, u.Read(ctx, "ann", "a", 2), "does not go back")
		assert.Equal(t, []int64{1, 2, 0}, counts("ann"))
		assert.Equal(t, []int64{5, 2, 0}, counts("bob"))
		require.NoError(t, u.Read(ctx, "ann", "a", 9), "before the message is known here")
		assert.Equal(t, []int64{0, 2, 0}, counts("ann"))
		none, err := u.Counts(ctx, "ann", nil)
		require.NoError(t, err)
		assert.Empty(t, none)
	})
}

func TestManyConversations(t *testing.T) {
	_, rdb := redistest.Mini(t)
	u, err := NewUnread(rdb, Options{})
	require.NoError(t, err)
	var all []string
	for i := range 1200 {
		all = append(all, fmt.Sprint("c", i))
		if i%100 == 7 {
			require.NoError(t, u.Sent(t.Context(), all[i], int64(i)))
			require.NoError(t, u.Read(t.Context(), "ann", all[i], int64(i-5)))
		}
	}
	counts, err := u.Counts(t.Context(), "ann", all)
	require.NoError(t, err)
	for i, n := range counts {
		want := int64(0)
		if i%100 == 7 {
			want = 5
		}
		require.Equal(t, want, n, i)
	}
}

func TestRedDot(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d, err := NewRedDot(rdb, Options{Prefix: redistest.Prefix(t)})
		require.NoError(t, err)
		ctx, noon := t.Context(), time.UnixMilli(1_800_000_000_000)
		lit := func() ([]bool, []time.Time) {
			on, newest, err := d.Lit(ctx, "ann", []string{"friends", "shop"})
			require.NoError(t, err)
			return on, newest
		}
		on, newest := lit()
		assert.Equal(t, []bool{false, false}, on)
		assert.True(t, newest[0].IsZero())
		require.NoError(t, d.Seen(ctx, "ann", "friends", newest[0]))
		require.NoError(t, d.Publish(ctx, "friends", noon))
		on, newest = lit()
		assert.Equal(t, []bool{true, false}, on)
		// Something comes while ann looks at the page: it is not seen with it.
		require.NoError(t, d.Publish(ctx, "friends", noon.Add(time.Millisecond)))
		require.NoError(t, d.Seen(ctx, "ann", "friends", newest[0]))
		on, newest = lit()
		assert.Equal(t, []bool{true, false}, on)
		require.NoError(t, d.Seen(ctx, "ann", "friends", newest[0]))
		require.NoError(t, d.Publish(ctx, "friends", noon), "late")
		on, newest = lit()
		assert.Equal(t, []bool{false, false}, on)
		assert.True(t, newest[0].Equal(noon.Add(time.Millisecond)))
	})
}

func TestFeed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f, err := NewFeedUnread(rdb, Options{Prefix: redistest.Prefix(t)})
		require.NoError(t, err)
		ctx := t.Context()
		following := []string{"bob", "cat", "dan"}
		step := func(call func(context.Context, string, []string) (int64, error), want int64) {
			t.Helper()
			n, err := call(ctx, "ann", following)
			require.NoError(t, err)
			assert.Equal(t, want, n)
		}
		require.NoError(t, f.Posted(ctx, "bob", 100))
		step(f.Count, 0) // what was before the first visit is not new
		step(f.Visit, 0)
		step(f.Count, 0)
		require.NoError(t, f.Posted(ctx, "bob", 103))
		require.NoError(t, f.Posted(ctx, "bob", 102))
		require.NoError(t, f.Posted(ctx, "cat", 1))
		step(f.Count, 4)
		following = append(following, "eve")
		require.NoError(t, f.Posted(ctx, "eve", 50))
		step(f.Count, 4) // followed since
		step(f.Visit, 4)
		step(f.Count, 0)
		require.NoError(t, f.Posted(ctx, "eve", 51))
		step(f.Count, 1)
	})
}

// Both layouts are the set of pairs that they stand for.
func TestReceipts(t *testing.T) {
	for _, layout := range []Layout{ByMessage, ByMember} {
		redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
			r, err := NewReceipts(rdb, layout, Options{Prefix: redistest.Prefix(t)})
			require.NoError(t, err)
			ctx, model := t.Context(), map[[2]int]bool{}
			rng := rand.New(rand.NewPCG(1, uint64(layout)))
			for range 60 {
				member := rng.IntN(20)
				messages := []int{rng.IntN(30), rng.IntN(30), rng.IntN(30)}
				require.NoError(t, r.Mark(ctx, "room", member, messages...))
				for _, m := range messages {
					model[[2]int{member, m}] = true
				}
			}
			for message := range 30 {
				want := 0
				for member := range 20 {
					has, err := r.Has(ctx, "room", member, message)
					require.NoError(t, err)
					require.Equal(t, model[[2]int{member, message}], has)
					if has {
						want++
					}
				}
				got, err := r.Count(ctx, "room", message, 20)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			require.NoError(t, r.Mark(ctx, "room", 1<<20-1, 1<<20-1))
			require.NoError(t, r.Mark(ctx, "room", 1))
			n, err := r.Count(ctx, "other room", 0, 20)
			require.NoError(t, err)
			assert.Zero(t, n)
		})
	}
}

func TestVisitors(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		v, err := NewVisitors(rdb, Options{Prefix: redistest.Prefix(t)})
		require.NoError(t, err)
		ctx := t.Context()
		for i := range 20 {
			var some []string
			for k := range 200 {
				some = append(some, fmt.Sprint("visitor-", i*100+k)) // each twice
			}
			require.NoError(t, v.Add(ctx, "home", some...))
		}
		require.NoError(t, v.Add(ctx, "home"))
		n, err := v.Count(ctx, "home", "nowhere")
		require.NoError(t, err)
		assert.InEpsilon(t, 2100, n[0], 0.04)
		assert.Zero(t, n[1])
	})
}

// Every change has its reply lost twice, and is what it would have been.
func TestLostReplies(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb, ctx := b.Client(faults.Options), t.Context()
		lose := func(name string, call func() error) {
			t.Helper()
			require.NoError(t, call(), name) // the script is known from here on
			before := faults.Fired(redistest.CutAfter)
			faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "evalsha", Times: 2})
			require.NoError(t, call(), name)
			require.Equal(t, 2, faults.Fired(redistest.CutAfter)-before, name)
		}
		u, err := NewUnread(rdb, Options{})
		require.NoError(t, err)
		r, err := NewReceipts(rdb, ByMessage, Options{})
		require.NoError(t, err)
		v, err := NewVisitors(rdb, Options{})
		require.NoError(t, err)
		lose("Sent", func() error { return u.Sent(ctx, "c", 3) })
		lose("Read", func() error { return u.Read(ctx, "ann", "c", 1) })
		lose("Mark", func() error { return r.Mark(ctx, "room", 1, 1) })
		lose("Add", func() error { return v.Add(ctx, "page", "ann") })
		counts, err := u.Counts(ctx, "ann", []string{"c"})
		require.NoError(t, err)
		assert.Equal(t, []int64{2}, counts)
		n, err := r.Count(ctx, "room", 1, 9)
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		seen, err := v.Count(ctx, "page")
		require.NoError(t, err)
		assert.Equal(t, []int64{1}, seen)

		// What counting one by one would make of it.
		faults.Add(redistest.Rule{Do: redistest.CutAfter, Match: "hincrby", Times: 2})
		require.NoError(t, rdb.HIncrBy(ctx, "k", "unread", 1).Err())
		assert.Equal(t, "3", rdb.HGet(ctx, "k", "unread").Val())
	})
}

func TestForgetsAfterTTL(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		rdb, ctx := b.Client(), t.Context()
		opts := Options{TTL: time.Hour}
		u, err := NewUnread(rdb, opts)
		require.NoError(t, err)
		r, err := NewReceipts(rdb, ByMember, opts)
		require.NoError(t, err)
		v, err := NewVisitors(rdb, opts)
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, u.Sent(ctx, "c", 3))
			require.NoError(t, r.Mark(ctx, "room", 1, 1, 2))
			require.NoError(t, v.Add(ctx, "page", "ann"))
			time.Sleep(50 * time.Minute)
			assert.Len(t, rdb.Keys(ctx, "*").Val(), 3, "each change gives another hour")
		}
		time.Sleep(11 * time.Minute)
		assert.Empty(t, rdb.Keys(ctx, "*").Val())
	})
}

func TestOutage(t *testing.T) {
	redistest.Bubble(t, func(t *testing.T, b *redistest.Env) {
		var faults redistest.Faults
		rdb, ctx := b.Client(faults.Options), t.Context()
		u, err := NewUnread(rdb, Options{})
		require.NoError(t, err)
		require.NoError(t, u.Sent(ctx, "c", 1))
		faults.Add(redistest.Rule{Do: redistest.CutBefore, Times: -1})
		err = u.Sent(ctx, "c", 2)
		require.ErrorIs(t, err, ErrUnknown)
		_, err = u.Counts(ctx, "ann", []string{"c"})
		require.ErrorIs(t, err, ErrUnavailable)
		faults.Clear()
		require.NoError(t, u.Sent(ctx, "c", 2))
		require.NoError(t, rdb.Close())
		require.ErrorIs(t, u.Sent(ctx, "c", 3), ErrClosed)
		_, err = u.Counts(ctx, "ann", []string{"c"})
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestInvalid(t *testing.T) {
	_, rdb := redistest.Mini(t)
	ctx, long := t.Context(), strings.Repeat("x", 257)
	u, err := NewUnread(rdb, Options{})
	require.NoError(t, err)
	d, err := NewRedDot(rdb, Options{})
	require.NoError(t, err)
	f, err := NewFeedUnread(rdb, Options{})
	require.NoError(t, err)
	r, err := NewReceipts(rdb, ByMember, Options{})
	require.NoError(t, err)
	v, err := NewVisitors(rdb, Options{})
	require.NoError(t, err)
	last := func(_ any, err error) error { return err }
	lit := func(_, _ any, err error) error { return err }
	for name, err := range map[string]error{
		"rdb":            last(NewUnread(nil, Options{})),
		"TTL":            last(NewVisitors(rdb, Options{TTL: time.Second})),
		"layout":         last(NewReceipts(rdb, 7, Options{})),
		"conversation":   u.Sent(ctx, "", 1),
		"negative":       u.Sent(ctx, "c", -1),
		"2^53":           u.Read(ctx, "ann", "c", 1<<53),
		"user":           u.Read(ctx, long, "c", 1),
		"counts":         last(u.Counts(ctx, "ann", []string{"c", ""})),
		"too many":       last(u.Counts(ctx, "ann", make([]string, 10_001))),
		"area":           d.Publish(ctx, long, time.Now()),
		"before 1970":    d.Publish(ctx, "shop", time.UnixMilli(-1)),
		"seen":           d.Seen(ctx, "", "shop", time.Now()),
		"lit":            lit(d.Lit(ctx, "", nil)),
		"author":         f.Posted(ctx, "", 1),
		"count":          last(f.Count(ctx, "", nil)),
		"visit":          last(f.Visit(ctx, "ann", []string{long})),
		"room":           r.Mark(ctx, "", 1, 1),
		"member":         r.Mark(ctx, "room", 1<<20, 1),
		"message":        r.Mark(ctx, "room", 1, -1),
		"messages":       r.Mark(ctx, "room", 1, make([]int, 501)...),
		"has":            last(r.Has(ctx, "room", -1, 1)),
		"has message":    last(r.Has(ctx, "room", 1, 1<<20)),
		"members":        last(r.Count(ctx, "room", 1, 1001)),
		"count message":  last(r.Count(ctx, "room", -1, 1)),
		"count room":     last(r.Count(ctx, long, 1, 1)),
		"page":           v.Add(ctx, "", "ann"),
		"visitor":        v.Add(ctx, "page", ""),
		"visitors":       v.Add(ctx, "page", strings.Split(strings.Repeat("a ", 500)+"a", " ")...),
		"count of pages": last(v.Count(ctx, "")),
	} {
		assert.ErrorIs(t, err, ErrInvalid, name)
	}
	assert.Zero(t, rdb.DBSize(ctx).Val())
}

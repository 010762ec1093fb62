package stock

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func open(t *testing.T, rdb redis.UniversalClient, opts Options) *Activity {
	t.Helper()
	opts.Prefix = redistest.Prefix(t)
	a, err := New(rdb, "sale", opts)
	require.NoError(t, err)
	return a
}

func one(id, user string, qty int64) Order {
	return Order{ID: id, User: user, Items: []Item{{"tea", qty}}}
}

func TestFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := open(t, rdb, Options{UserLimit: 3})
		ctx := t.Context()
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5, "cup": 2}))
		require.NoError(t, a.Load(ctx, map[string]int64{"tea": 5, "cup": 2}))
		require.ErrorIs(t, a.Load(ctx, map[string]int64{"tea": 6, "cup": 2}), ErrConflict)
		r, err := a.Deduct(ctx, one("o1", "u1", 2))
		require.NoError(t, err)
		fmt.Printf("%+v\n", r)
		r, err = a.Deduct(ctx, one("o1", "u1", 2))
		require.NoError(t, err)
		require.True(t, r.Replayed)
		_, err = a.Deduct(ctx, one("o1", "u1", 3))
		require.ErrorIs(t, err, ErrConflict)
		_, err = a.Deduct(ctx, one("o2", "u1", 2))
		require.ErrorIs(t, err, ErrLimit)
		fmt.Println(err)
		r, err = a.Reserve(ctx, one("o3", "u2", 3))
		require.NoError(t, err)
		fmt.Printf("%+v\n", r)
		_, err = a.Reserve(ctx, one("o4", "u4", 1))
		require.ErrorIs(t, err, ErrInsufficient)
		fmt.Println(err)
		r, err = a.Cancel(ctx, Ref{"o3", "u2"}, "bored")
		require.NoError(t, err)
		fmt.Printf("%+v\n", r)
		_, err = a.Confirm(ctx, Ref{"o3", "u2"})
		require.ErrorIs(t, err, ErrCancelled)
		r, err = a.Deduct(ctx, Order{ID: "o5", User: "u5", Items: []Item{{"tea", 2}, {"cup", 3}}, Partial: true})
		require.NoError(t, err)
		fmt.Printf("%+v\n", r)
		_, err = a.Restock(ctx, "r1", Item{"tea", 7})
		require.NoError(t, err)
		s, err := a.Stock(ctx)
		require.NoError(t, err)
		fmt.Printf("%+v\n", s)
		for e, err := range a.Entries(ctx, "") {
			require.NoError(t, err)
			fmt.Printf("%+v\n", e)
		}
		i, err := a.Inspect(ctx)
		require.NoError(t, err)
		fmt.Printf("%+v\n", i)
		require.NoError(t, a.Drop(ctx))
		require.NoError(t, a.Close(ctx))
	})
}

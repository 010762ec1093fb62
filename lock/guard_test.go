package lock

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestFenceGuard(t *testing.T) {
	var g FenceGuard
	wrote := 0
	write := func() error { wrote++; return nil }
	require.NoError(t, g.Do(5, write))
	require.NoError(t, g.Do(5, write), "a holder writes more than once")
	require.NoError(t, g.Do(7, write))
	require.ErrorIs(t, g.Do(6, write), ErrStale)
	require.Equal(t, 3, wrote)
	broken := errors.New("broken")
	require.ErrorIs(t, g.Do(8, func() error { return broken }), broken)
	require.ErrorIs(t, g.Do(7, write), ErrStale, "a write that failed may have been half done")
}

func TestFenceLua(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		p := "{" + redistest.Prefix(t) + "}"
		write := FenceLua() + `
			if not admit(KEYS[2], ARGV[1]) then return 0 end
			redis.call('SET', KEYS[1], ARGV[2])
			return 1`
		try := func(fence int64, value string) any {
			got, err := rdb.Eval(t.Context(), write, []string{p + "row", p + "fence"}, fence, value).Result()
			require.NoError(t, err)
			return got
		}
		const big = int64(1)<<53 - 3
		require.EqualValues(t, 1, try(1, "a"))
		require.EqualValues(t, 1, try(big, "b"))
		require.EqualValues(t, 1, try(big, "c"))
		require.EqualValues(t, 0, try(big-1, "d"))
		require.EqualValues(t, 1, try(big+1, "e"))
		require.EqualValues(t, 0, try(big, "f"))
		require.Equal(t, "e", rdb.Get(t.Context(), p+"row").Val())
	})
}

func TestFenceSQL(t *testing.T) {
	set, where := FenceSQL("fence", "$3")
	require.Equal(t, "fence = $3", set)
	require.Equal(t, "fence <= $3", where)
}

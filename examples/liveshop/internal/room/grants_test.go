package room

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/cache"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestGrantToNobody(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	r, _ := rooms(t, env)
	r.name = func(_ context.Context, uid int64) (string, error) {
		return "", fmt.Errorf("user %d: %w", uid, cache.ErrNotFound)
	}
	a := shoptest.Caller(t, env, r)(0, "POST /admin/grants", `{"uid":7,"grant":"rain"}`)
	require.Equal(t, 404, a.Status)
	require.Equal(t, "not_found", a.Code)
	granted, err := r.Granted(t.Context(), 7, Rain)
	require.NoError(t, err)
	require.False(t, granted)
}

package feed

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// A second post under the key of a first one is not lost without a word.
func TestKeyOfAnotherPost(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	call := shoptest.Caller(t, env, feeds(t, env))
	for range 2 {
		require.Equal(t, 200, call(1, "POST /posts", `{"text":"one","key":"k"}`).Status)
	}
	require.Equal(t, "key_used", call(1, "POST /posts", `{"text":"two","key":"k"}`).Code)
	require.Equal(t, 200, call(2, "POST /posts", `{"text":"two","key":"k"}`).Status, "of somebody else")
}

package room

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

func TestSeenWhen(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	r, _ := rooms(t, env)
	call := shoptest.Caller(t, env, r)
	for at, status := range map[int64]int{-1: 400, 0: 400, 1: 200, 1<<53 - 1: 200, 1 << 53: 400, 1<<63 - 1: 400} {
		require.Equal(t, status, call(7, "POST /unread/seen", fmt.Sprintf(`{"area":"live","at":%d}`, at)).Status, at)
	}
}

package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// A switch without a position stays where it is.
func TestSwitchWithoutPosition(t *testing.T) {
	t.Parallel()
	env := shoptest.Env(t)
	call := shoptest.Caller(t, env, newOperate(env, nil))
	require.Equal(t, 200, call(0, "PUT /admin/switch/"+infra.NoCoupons, `{"on":true}`).Status)
	require.Equal(t, 400, call(0, "PUT /admin/switch/"+infra.NoCoupons, `{}`).Status)
	require.True(t, env.Switches.On(infra.NoCoupons))
}

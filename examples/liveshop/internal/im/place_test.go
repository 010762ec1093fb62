package im

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// Who names a number that cannot be has seen nothing.
func TestPlaceOfNonsense(t *testing.T) {
	h, err := New(shoptest.Env(t), Options{
		Name:  func(context.Context, int64) (string, error) { return "Ann", nil },
		Enter: func(context.Context, int64, int64) error { return nil },
	})
	require.NoError(t, err)
	want, err := h.place(t.Context(), 5, 0)
	require.NoError(t, err)
	got, err := h.place(t.Context(), 5, -5)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

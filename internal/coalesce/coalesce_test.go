package coalesce

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDoReturnsTheResultOfItsOwnItem(t *testing.T) {
	g := New(func(_ context.Context, lane string, batch []int) ([]int, error) { return batch, nil }, Options{})
	r, err := g.Do(t.Context(), "lane", "id", 7, 1)
	require.NoError(t, err)
	require.Equal(t, 7, r)
	require.NoError(t, g.Close(t.Context()))
}

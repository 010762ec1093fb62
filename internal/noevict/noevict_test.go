package noevict

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestPolicies(t *testing.T) {
	safe := redistest.Server(t, "--maxmemory-policy", "noeviction").Client()
	p, err := Check(t.Context(), safe)
	require.NoError(t, err)
	require.Equal(t, NoEviction, p)

	unsafe := redistest.Server(t, "--maxmemory-policy", "volatile-lru").Client()
	p, err = Check(t.Context(), unsafe)
	require.NoError(t, err)
	require.Equal(t, "volatile-lru", p)

	// CONFIG is renamed away by many hosts; INFO then tells.
	hidden := redistest.Server(t, "--rename-command", "CONFIG", "", "--maxmemory-policy", "allkeys-lru").Client()
	p, err = Check(t.Context(), hidden)
	require.NoError(t, err)
	require.Equal(t, "allkeys-lru", p)
}

func TestUnreadable(t *testing.T) {
	_, rdb := redistest.Mini(t) // knows neither
	_, err := Check(t.Context(), rdb)
	require.True(t, errors.Is(err, errors.ErrUnsupported), "%v", err)
}

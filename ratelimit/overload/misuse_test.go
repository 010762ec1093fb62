package overload

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A client that nobody has made is no wish for switches of this process alone.
func TestMisuse(t *testing.T) {
	var nobody *redis.Client
	_, err := NewSwitches(nobody, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	s, err := NewSwitches(nil, Options{})
	require.NoError(t, err)
	require.ErrorIs(t, s.Set(t.Context(), "", true), ErrInvalid)
	require.Empty(t, s.All())
}

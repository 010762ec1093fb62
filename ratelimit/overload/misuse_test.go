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

// Who calls done twice, deferred and by hand, gives back one place.
func TestDoneTwice(t *testing.T) {
	s, err := NewShedder(2, 2)
	require.NoError(t, err)
	k, err := NewPerKey(2)
	require.NoError(t, err)
	for name, acquire := range map[string]func() (func(), error){
		"shedder": s.Acquire,
		"key":     func() (func(), error) { return k.Acquire(t.Context(), "k") },
	} {
		first, err := acquire()
		require.NoError(t, err, name)
		_, err = acquire()
		require.NoError(t, err, name)
		first()
		first()
		_, err = acquire()
		require.NoError(t, err, name)
	}
	_, err = s.Acquire()
	require.ErrorIs(t, err, ErrShed)
	require.Equal(t, 2, k.m["k"].in)
}

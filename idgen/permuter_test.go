package idgen

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPermuter(t *testing.T) {
	const domain = 62 * 62 * 62
	p, err := NewPermuter([]byte("secret"), domain)
	require.NoError(t, err)
	for x := range int64(domain) {
		y, err := p.Permute(x)
		require.NoError(t, err)
		back, err := p.Invert(y)
		require.NoError(t, err)
		require.Equal(t, x, back)
	}
	for _, x := range []int64{-1, domain} {
		_, err := p.Permute(x)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = p.Invert(x)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = NewPermuter(nil, domain)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = NewPermuter([]byte("secret"), 1)
	require.ErrorIs(t, err, ErrInvalid)
}

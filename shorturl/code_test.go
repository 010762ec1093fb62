package shorturl

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

type counter struct{ n atomic.Int64 }

func (c *counter) Next(context.Context) (int64, error) { return c.n.Add(1), nil }

// Successive ids give codes of one length, all different and unrelated.
func TestSequentialCodes(t *testing.T) {
	n := 100_000
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		n = 10_000_000
	}
	s := service(t, Options{})
	seen := make(map[string]struct{}, n)
	same, last := 0, ""
	for range n {
		c, err := s.code(t.Context(), Link{}, 0)
		require.NoError(t, err)
		require.True(t, len(c) == 7 && wellFormed(c) && s.generated(c), c)
		if last != "" {
			for i := range c {
				if c[i] == last[i] {
					same++
				}
			}
		}
		seen[c], last = struct{}{}, c
	}
	require.Len(t, seen, n)
	require.InDelta(t, float64(n)*7/62, same, float64(n)*7/62*0.1, "neighbours share as many characters as strangers")
	id := &counter{}
	id.n.Store(s.domain)
	s.opts.IDs = id
	_, err := s.code(t.Context(), Link{}, 0)
	require.ErrorIs(t, err, ErrInvalid)
}

// What was handed out must not change with a release.
func TestCodesGolden(t *testing.T) {
	s := service(t, Options{Key: []byte("golden")})
	c, err := s.code(t.Context(), Link{}, 0)
	require.NoError(t, err)
	require.Equal(t, "5kKbBcD", c)
	s = service(t, Options{Key: []byte("golden"), Codes: Digest})
	c, err = s.code(t.Context(), Link{URL: "https://example.com/", Owner: "o"}, 0)
	require.NoError(t, err)
	require.Equal(t, "vMPZVEb", c)
}

// In a space that is nearly full, digest and random codes are tried again; a code is
// given once.
func TestCodesCollide(t *testing.T) {
	for _, codes := range []Codes{Digest, Random} {
		s := service(t, Options{Codes: codes, Length: 4})
		s.domain = 50 // of 62^4
		seen := map[string]bool{}
		var err error
		for range 200 {
			var l Link
			if l, err = s.Shorten(t.Context(), Request{URL: "https://example.com/"}); err != nil {
				break
			}
			require.False(t, seen[l.Code])
			seen[l.Code] = true
		}
		require.ErrorIs(t, err, ErrTaken)
		require.Greater(t, len(seen), 30)
		require.LessOrEqual(t, len(seen), 50)
	}
}

func TestAliases(t *testing.T) {
	s := service(t, Options{Reserved: []string{"Promo"}})
	for _, bad := range []string{"ab", "a b", "a/b", "名前名前", "abcdefg", "1234567", strings.Repeat("a", 65), "abc.def"} {
		_, err := s.Shorten(t.Context(), Request{URL: "https://example.com", Alias: bad})
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
	for _, taken := range []string{"admin", "API", "promo", "PROMO"} {
		_, err := s.Shorten(t.Context(), Request{URL: "https://example.com", Alias: taken})
		require.ErrorIs(t, err, ErrTaken, taken)
	}
	for _, good := range []string{"abc", "abc-efg", "abcdefgh", "Sale_2026"} {
		l, err := s.Shorten(t.Context(), Request{URL: "https://example.com", Alias: good})
		require.NoError(t, err, good)
		require.Equal(t, good, l.Code)
		_, err = s.Shorten(t.Context(), Request{URL: "https://example.org", Alias: good})
		require.ErrorIs(t, err, ErrTaken, good)
	}
}

// Generated codes that are reserved words are skipped.
func TestGeneratedIsNotReserved(t *testing.T) {
	s := service(t, Options{})
	c, err := s.code(t.Context(), Link{}, 0)
	require.NoError(t, err)
	s = service(t, Options{Reserved: []string{c}})
	l, err := s.Shorten(t.Context(), Request{URL: "https://example.com"})
	require.NoError(t, err)
	require.NotEqual(t, c, l.Code)
}

func BenchmarkCode(b *testing.B) {
	s := service(b, Options{})
	for b.Loop() {
		if _, err := s.code(b.Context(), Link{}, 0); err != nil {
			b.Fatal(err)
		}
	}
}

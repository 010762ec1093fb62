package key

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestShape(t *testing.T) {
	s := New("", "stock", 1, "sale-11")
	require.Equal(t, "spillway:stock1:{sale-11}:left", s.Key("left"))
	require.Equal(t, "shop:stock1:{sale-11}:left", New("shop", "stock", 1, "sale-11").Key("left"))
}

func TestUserInputCannotChooseItsSlot(t *testing.T) {
	require.Equal(t, "spillway:lock1:{a%7Db%7B}:x", New("", "lock", 1, "a}b{").Key("x"))
	require.Equal(t, "p%7Bq:lock1:{%25}:x", New("p{q", "lock", 1, "%").Key("x"))
	require.Equal(t, "spillway:lock1:{%e}:x", New("", "lock", 1, "").Key("x"))
	require.Equal(t, "spillway:lock1:{a%0Ab}:x", New("", "lock", 1, "a\nb").Key("x"))
}

// Two names never share a key, whatever they contain, and the hash tag of every
// key is its object's own.
func TestDistinctNamesDistinctKeys(t *testing.T) {
	name := rapid.OneOf(rapid.StringOf(rapid.SampledFrom([]rune("a{}%:h\x00"))), rapid.String(),
		rapid.Map(rapid.IntRange(190, 210), func(n int) string { return strings.Repeat("x", n) }))
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		ka, kb := New("", "p", 1, a).Key("k"), New("", "p", 1, b).Key("k")
		if (a == b) != (ka == kb) {
			t.Fatalf("%q and %q: keys %q and %q", a, b, ka, kb)
		}
		open, end := strings.IndexByte(ka, '{'), strings.IndexByte(ka, '}')
		if open != len("spillway:p1:") || end <= open+1 || ka[end+1:] != ":k" || strings.Count(ka, "{") != 1 {
			t.Fatalf("%q: bad hash tag in %q", a, ka)
		}
		if len(ka) > 250 {
			t.Fatalf("key of %d bytes", len(ka))
		}
	})
}

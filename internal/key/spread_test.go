package key

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSlot(t *testing.T) {
	// The example of the specification, and what CLUSTER KEYSLOT says of another.
	require.Equal(t, 0x31C3, Slot("123456789"))
	require.Equal(t, 12182, Slot("foo"))
}

// Buckets have slots of their own, evenly over the masters of a usual cluster, and
// keys that no other object has.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, n := rapid.String().Draw(t, "name"), rapid.IntRange(2, 64).Draw(t, "n")
		seen := map[int]bool{}
		for _, masters := range []int{1, 2, 3, 5, 6} {
			load := make([]int, masters)
			for _, s := range Spread("", "p", 1, name, n) {
				k := s.Key("k")
				tag := k[strings.IndexByte(k, '{')+1 : strings.IndexByte(k, '}')]
				slot := Slot(tag)
				seen[slot] = true
				load[slot*masters/slots]++
			}
			for _, have := range load {
				if have < n/masters-1 || have > n/masters+2 {
					t.Fatalf("%d buckets over %d masters: %v", n, masters, load)
				}
				if n == masters && have != 1 {
					t.Fatalf("%d buckets over as many masters: %v", n, load)
				}
			}
		}
		if len(seen) != n {
			t.Fatalf("%d slots for %d buckets", len(seen), n)
		}
	})
	other := map[string]bool{}
	for _, n := range []int{2, 3, 4, 6} {
		for _, s := range Spread("", "p", 1, "sale", n) {
			require.False(t, other[s.Tag()], "%s is a bucket of two layouts", s.Tag())
			other[s.Tag()] = true
		}
	}
	require.NotEqual(t, Spread("", "p", 1, "sale", 2)[0], New("", "p", 1, "sale%b2.0.0"))
}

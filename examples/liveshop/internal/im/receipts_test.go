package im

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// Receipts: who read what, of those who were there.
func TestReceipts(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		a, c := one.viewer(1, 10), one.viewer(1, 11)
		one.gifts(1, 1, 5)
		settle()
		a.say(`{"t":"read","seq":3}`)
		c.say(`{"t":"read","seq":1000}`) // more than there is
		settle()
		for seq, want := range map[int]int{1: 2, 3: 2, 4: 1, 5: 1, 6: 0} {
			n, err := one.receipts.Count(t.Context(), Conversation(1), seq, 2)
			require.NoError(t, err)
			require.Equal(t, want, n, "message %d", seq)
		}
		require.NoError(t, one.Sent(t.Context(), 1, 5))
		n, err := one.Unread(t.Context(), 10, []int64{1, 2})
		require.NoError(t, err)
		require.Equal(t, []int64{2, 0}, n)
	})
}

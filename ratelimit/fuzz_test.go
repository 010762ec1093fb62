package ratelimit

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a server (or a proxy before it) replies, no call is granted more than it
// asked for, and nothing panics.
func FuzzReply(f *testing.F) {
	l, err := NewLocal([]Limit{PerSecond(5), PerHour(100)})
	require.NoError(f, err)
	f.Add([]byte{}, 0, false)
	f.Add(make([]byte, 8*6), 0, true)
	f.Add(make([]byte, 8*11), 5, false)
	f.Fuzz(func(t *testing.T, figures []byte, text int, nested bool) {
		var reply []any
		for ; len(figures) >= 8; figures = figures[8:] {
			n := int64(binary.LittleEndian.Uint64(figures))
			if n > 7 || n < -7 {
				n >>= 60 // small figures are the interesting ones
			}
			reply = append(reply, n)
		}
		if text >= 0 && text < len(reply) {
			reply[text] = "text"
		}
		if nested {
			reply = append(reply, []any{reply})
		}
		for _, s := range []*stop{{runs: []run{{n: 1, k: 3}}}, {runs: []run{{n: 2, k: 1}, {n: 1, k: 2}}}, {runs: []run{{n: 1, k: 1}}, extra: 5}} {
			verdicts, err := l.unpack(reply, s)
			if err != nil {
				require.ErrorIs(t, err, ErrUnknown)
				continue
			}
			for i, r := range s.runs {
				for j := range r.k {
					v := verdicts[i].of(call{j: j, k: 1}, r)
					require.LessOrEqual(t, v.granted, int64(1))
					require.GreaterOrEqual(t, v.granted, int64(0))
					_ = l.rules[v.limit]
				}
			}
		}
	})
}

package delayqueue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever stands in Redis is read or refused, and a record is read as it was written.
func FuzzFormats(f *testing.F) {
	f.Add("AbCdEfGh::body", "key", 3)
	f.Add("AbCdEfGh25:3:keybody", "", 0)
	f.Add("RAbCdEfGhcons.1 - 0 0 1795211820194  0:", "k", 1)
	f.Add("DAbCdEfGh- cons.1 3 1 1795211820194 7 1:kno", "k", 1)
	f.Add("1795211820194 1795211820194000", "7:", 1)
	f.Fuzz(func(t *testing.T, text, unique string, attempts int) {
		_, _, _ = parseRecord(text)
		var i Info
		if parseState(text, &i) == nil {
			require.Contains(t, []State{Waiting, Running, Dead}, i.State)
		}
		require.GreaterOrEqual(t, untilDue(text), time.Duration(0))
		_ = score(text)

		j := Job{Body: []byte(text), MaxAttempts: min(max(attempts, 0), maxMaxAttempts)}
		if unique != "" {
			j.Unique = &Unique{Key: unique}
		}
		body, n, err := parseRecord(string(j.record(newToken())))
		require.NoError(t, err)
		require.Equal(t, text, body)
		require.Equal(t, j.MaxAttempts, n)
	})
}

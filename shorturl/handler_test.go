package shorturl

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// HEAD and bots hear that a link with MaxClicks is gone, without being counted.
func TestGoneForWhoIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &spy{Store: MemoryStore()}
		s := service(t, Options{Store: store})
		disabled := shorten(t, s, Request{MaxClicks: 3})
		require.NoError(t, s.Disable(t.Context(), disabled.Code))
		expired := shorten(t, s, Request{MaxClicks: 3, Expires: time.Now().Add(time.Hour)})
		used := shorten(t, s, Request{MaxClicks: 1})
		require.Equal(t, 302, get(s, "GET", "/"+used.Code).Code)
		time.Sleep(time.Hour)
		counts := store.counts.Load()
		for name, l := range map[string]Link{"disabled": disabled, "expired": expired, "used up": used} {
			require.Equal(t, 410, get(s, "HEAD", "/"+l.Code).Code, name)
			require.Equal(t, 410, get(s, "GET", "/"+l.Code, "User-Agent", "Googlebot/2.1").Code, name)
		}
		require.Equal(t, counts, store.counts.Load())
	})
}

package shorturl

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

type recorder struct {
	mu     sync.Mutex
	clicks []Click
	err    error
	block  chan struct{}
}

func (r *recorder) Record(_ context.Context, clicks []Click) error {
	if r.block != nil {
		<-r.block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.clicks = append(r.clicks, clicks...)
	return nil
}

func TestClicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		s := service(t, Options{Clicks: rec, Address: func(r *http.Request) string { return r.Header.Get("X-Address") }})
		l := shorten(t, s, Request{Permanent: true})
		long := strings.Repeat("é", 500)
		require.Equal(t, 302, get(s, "GET", "/"+l.Code, "Referer", "https://example.org/"+long, "X-Address", "192.0.2.1").Code, "counted, so not 301")
		get(s, "GET", "/"+l.Code, "X-Address", "192.0.2.1")
		get(s, "GET", "/"+l.Code, "X-Address", "192.0.2.2")
		get(s, "HEAD", "/"+l.Code)
		for _, bot := range []string{"Googlebot/2.1", "Slackbot-LinkExpanding 1.0", "facebookexternalhit/1.1", "curl/8", "WhatsApp/2"} {
			require.Equal(t, 302, get(s, "GET", "/"+l.Code, "User-Agent", bot).Code)
		}
		get(s, "GET", "/unknown")
		synctest.Wait()
		require.Len(t, rec.clicks, 3)
		c := rec.clicks
		require.Equal(t, l.Code, c[0].Code)
		require.Equal(t, time.Now(), c[0].Time)
		require.LessOrEqual(t, len(c[0].Referrer), maxHeader)
		require.True(t, strings.HasPrefix(c[0].Referrer, "https://example.org/é"))
		require.Equal(t, "Mozilla/5.0", c[0].UserAgent)
		require.Equal(t, c[0].Address, c[1].Address)
		require.NotEqual(t, c[0].Address, c[2].Address)
		require.NotContains(t, c[0].Address, "192")
		require.Len(t, c[0].Address, 32)
		require.NoError(t, s.Close(t.Context()))
		require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code, "redirects go on")
		require.EqualValues(t, 3, s.Stats().Clicks)
		require.EqualValues(t, 1, s.Stats().Dropped)
	})
}

// A recorder that hangs costs clicks, never a redirect; Close drains.
func TestClicksSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{block: make(chan struct{})}
		s := service(t, Options{Clicks: rec})
		l := shorten(t, s, Request{})
		const n = clickQueue + 1000
		began := time.Now()
		for range n {
			require.Equal(t, 302, get(s, "GET", "/"+l.Code).Code)
		}
		require.Zero(t, time.Since(began))
		dropped := s.Stats().Dropped
		require.NotZero(t, dropped)
		close(rec.block)
		require.NoError(t, s.Close(t.Context()))
		require.Len(t, rec.clicks, n-int(dropped))
	})
}

func TestClicksFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, Options{Clicks: &recorder{err: errDown}})
		l := shorten(t, s, Request{})
		get(s, "GET", "/"+l.Code)
		require.NoError(t, s.Close(t.Context()))
		require.Equal(t, Stats{Dropped: 1, Loads: 1}, s.Stats())
	})
}

package im

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

// What a client may send.
func TestClients(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		quiet := false
		one := start(t, b.Client(), "one", func(h *Hub) { h.opts.Barrage = func() bool { return !quiet } })
		a, c := one.viewer(1, 10), one.viewer(1, 11)
		a.say(`{"t":"ping"}`)
		a.say(`{"t":"barrage","d":{"text":" Ｃａ-s.i n o! "}}`)
		a.say(`not json`)
		a.say(`{"t":"barrage","d":{"text":"%s"}}`, strings.Repeat("x", longest+1))
		a.say(`{"t":"barrage","d":{"text":"two"}}`)
		a.say(`{"t":"barrage","d":{"text":"three"}}`)
		settle()
		require.Len(t, a.of("pong"), 1)
		require.Equal(t, []string{`{"uid":10,"name":"user 10","text":"**********!"}`, `{"uid":10,"name":"user 10","text":"two"}`}, c.of("barrage"))
		require.Equal(t, []string{`{"text":"too long"}`, `{"text":"slow down"}`}, a.of("system"))
		quiet = true
		a.say(`{"t":"barrage","d":{"text":"four"}}`)
		settle()
		require.Contains(t, a.of("system"), `{"text":"barrage is switched off"}`)
		require.Len(t, c.of("barrage"), 2)
		c.say(`{"t":"barrage","d":{"text":"%s"}}`, strings.Repeat("x", largestFrame))
		<-c.done
		for range 20 {
			_ = a.write(`{"t":"ping"}`)
		}
		<-a.done
	})
}

// A token opens one connection, within 30 s; other people's pages open none.
func TestTokens(t *testing.T) {
	bubble(t, func(t *testing.T, b *redistest.Env) {
		one := start(t, b.Client(), "one")
		v := &viewer{Follower: &Follower{}, t: t, uid: 1, room: 1}
		require.ErrorContains(t, v.dial(one, http.Header{"Origin": {"https://evil.example"}}), "status 403")
		require.NoError(t, v.dial(one, http.Header{"Origin": {"http://shop"}}))

		token, err := one.mint(t.Context(), ticket{1, "x", 1})
		require.NoError(t, err)
		_, err = one.redeem(t.Context(), token)
		require.NoError(t, err)
		_, err = one.redeem(t.Context(), token)
		require.ErrorIs(t, err, errToken)
		token, err = one.mint(t.Context(), ticket{1, "x", 1})
		require.NoError(t, err)
		time.Sleep(tokenTTL + time.Second)
		_, err = one.redeem(t.Context(), token)
		require.ErrorIs(t, err, errToken)
	})
}

package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A mistake on the command line is told at once, and not after a minute of trying.
func TestMistakesAreTold(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "-addr", "127.0.0.1:0", "-hold", "-5s"}, "-hold -5s: want 100ms or more"},
		{[]string{"demo", "-addr", "127.0.0.1:0", "-for", "1s", "-hold", "-5s"}, "-hold -5s: want 100ms or more"},
		{[]string{"bots", "-addr", "127.0.0.1:1", "-n", "1"}, "no service answers at http://127.0.0.1:1: "},
		{[]string{"bots", "-addr", "http://127.0.0.1:1/", "-n", "1"}, "no service answers at http://127.0.0.1:1: "},
		{[]string{"check"}, "say where the shop's data is"},
		{[]string{"nothing"}, `no command "nothing"`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		require.ErrorContains(t, run(ctx, c.args, io.Discard), c.want, "%v", c.args)
		require.NoError(t, ctx.Err(), "%v", c.args)
		cancel()
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	err := run(t.Context(), []string{"bots", "-addr", other.URL, "-n", "1"}, io.Discard)
	require.ErrorContains(t, err, "no service answers at "+other.URL)
}

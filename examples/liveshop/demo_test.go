package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/check"
	"github.com/spillway-go/spillway/examples/liveshop/internal/client"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// TestMain lets the test binary be the program, which starts itself as servers.
func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		main()
		os.Exit(0)
	}
	shoptest.AtOnce(4)
	shoptest.Main(m)
}

// demonstrate runs the demo until the test ends, and returns its address.
func demonstrate(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, append([]string{"demo", "-addr", "127.0.0.1:0"}, args...), out)
		_ = out.Close()
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	lines := bufio.NewReader(in)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	_, rest, _ := strings.Cut(line, "Open ")
	base, _, ok := strings.Cut(rest, " ")
	require.True(t, ok, line)
	return base
}

// A server is killed while customers come, and started again: each call is answered,
// if not at once then when asked again.
func TestDemoSurvivesAKill(t *testing.T) {
	t.Parallel()
	base := demonstrate(t)
	operator := &client.Client{HTTP: http.DefaultClient, Base: base}
	var customers sync.WaitGroup
	var done atomic.Int64
	for n := range 60 {
		customers.Go(func() {
			c := &client.Client{HTTP: http.DefaultClient, Base: base, From: fmt.Sprintf("10.0.0.%d", n)}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if err := c.LogIn(ctx, fmt.Sprintf("138000%05d", n)); err != nil {
				t.Error(err)
				return
			}
			var account struct{ Balance int64 }
			for range 2 { // the second time nothing moves
				if err := c.Sure(ctx, "POST /recharge", map[string]any{"fen": 600, "key": "1"}, &account); err != nil || account.Balance != 600 {
					t.Error(err, account)
				}
			}
			done.Add(1)
		})
	}
	var killed struct{ Server string }
	// Before the rooms are open there is no operator yet: hence Sure.
	require.NoError(t, operator.Sure(t.Context(), "POST /admin/demo/kill", map[string]string{"server": "s2"}, &killed))
	require.Equal(t, "s2", killed.Server)
	customers.Wait()
	require.Equal(t, int64(60), done.Load())
	up := func() (names string) {
		var stats struct {
			Servers []struct {
				ID string
				Up bool
			}
		}
		require.NoError(t, operator.Sure(t.Context(), "GET /admin/stats", nil, &stats))
		for _, s := range stats.Servers {
			if s.Up {
				names += s.ID
			}
		}
		return names
	}
	require.Eventually(t, func() bool { return up() == "s1s3" }, time.Minute, 100*time.Millisecond)
	var restarted struct{ Started []string }
	require.NoError(t, operator.Call(t.Context(), "POST /admin/demo/restart", nil, &restarted))
	require.Equal(t, []string{"s2"}, restarted.Started)
	require.Eventually(t, func() bool { return up() == "s1s2s3" }, time.Minute, 100*time.Millisecond)
}

// With -for the demo ends by itself, judges itself, and its servers are gone.
func TestDemoEnds(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := run(t.Context(), []string{"-addr", "127.0.0.1:0", "-for", "3s"}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	require.Contains(t, out.String(), "Open http://127.0.0.1:")
	require.Contains(t, out.String(), "\nPASS: all ")
	_, list, _ := strings.Cut(out.String(), "behind it: ")
	list, _, _ = strings.Cut(list, "\n")
	addrs := strings.Split(list, ", ")
	require.Len(t, addrs, 3)
	for _, addr := range addrs {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		require.Error(t, err)
	}
}

// The operator starts a sale and sends customers; all is sold, and the books are right.
func TestDemoRush(t *testing.T) {
	t.Parallel()
	base := demonstrate(t)
	operator := &client.Client{HTTP: http.DefaultClient, Base: base}
	var sale struct {
		Room int64
		SKU  string
	}
	require.NoError(t, operator.Sure(t.Context(), "POST /admin/demo/sale", map[string]any{"room": nil}, &sale))
	require.NotEmpty(t, sale.SKU)
	rush := map[string]any{"room": sale.Room, "n": 400}
	require.NoError(t, operator.Call(t.Context(), "POST /admin/demo/bots", rush, nil))
	refused := new(api.Error)
	require.ErrorAs(t, operator.Call(t.Context(), "POST /admin/demo/bots", rush, nil), &refused)
	require.Equal(t, "crowded", refused.Code)
	require.Eventually(t, func() bool {
		var stats struct {
			Stock []struct {
				SKU  string
				Sold int64
			}
		}
		require.NoError(t, operator.Sure(t.Context(), "GET /admin/stats", nil, &stats))
		for _, s := range stats.Stock {
			if s.SKU == sale.SKU {
				return s.Sold >= 80
			}
		}
		return false
	}, 3*time.Minute, 200*time.Millisecond)
	var verdicts []check.Verdict
	wrong := func(v check.Verdict) bool { return !v.OK }
	require.Eventually(t, func() bool { // SQL may be seconds behind
		require.NoError(t, operator.Sure(t.Context(), "GET /admin/invariants", nil, &verdicts))
		return len(verdicts) > 0 && !slices.ContainsFunc(verdicts, wrong)
	}, time.Minute, time.Second, "%+v", &verdicts)
}

// A flag's twin in the environment is heard, here by the demo, the default command.
func TestTwinOfACommand(t *testing.T) {
	t.Setenv("LIVESHOP_FOR", "soon")
	require.ErrorContains(t, run(t.Context(), nil, io.Discard), "LIVESHOP_FOR")
}

func TestUnknownCommand(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"sell"}, io.Discard), `no command "sell"`)
}

// The operator's customers go when all is sold, also where somebody else was faster than
// they for some of it: then there is room for the next ones, who get something new.
func TestRushEndsWhenAllIsSold(t *testing.T) {
	t.Parallel()
	operator := &client.Client{HTTP: http.DefaultClient, Base: demonstrate(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // they stay for three if nothing ends it
	defer cancel()
	var sale struct {
		Room int64  `json:"room"`
		SKU  string `json:"sku"`
	}
	require.NoError(t, operator.Sure(ctx, "POST /admin/demo/sale", map[string]int64{"room": 0}, &sale))
	buyer := &client.Client{HTTP: http.DefaultClient, Base: operator.Base}
	require.NoError(t, buyer.LogIn(ctx, "13899999999"))
	var order struct {
		ID int64 `json:"order_id"`
	}
	require.NoError(t, buyer.Sure(ctx, "POST /orders/token", nil, &order))
	in := map[string]any{"order_id": order.ID, "room": sale.Room, "items": []map[string]any{{"sku": sale.SKU, "qty": 1}}}
	require.NoError(t, buyer.Sure(ctx, "POST /orders", in, nil))
	require.NoError(t, buyer.Sure(ctx, "POST /recharge", map[string]any{"fen": 1_000_000, "key": "1"}, nil))
	require.NoError(t, buyer.Sure(ctx, fmt.Sprintf("POST /orders/%d/pay", order.ID), nil, nil))

	var came struct{ SKU string }
	rush := func(n int64) error {
		return operator.Call(ctx, "POST /admin/demo/bots", map[string]int64{"room": sale.Room, "n": n}, &came)
	}
	require.NoError(t, rush(300))
	require.Equal(t, sale.SKU, came.SKU)
	for err := rush(1); err != nil; err = rush(1) {
		refused := new(api.Error)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "crowded", refused.Code)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("they are still there")
		}
	}
	require.NotEqual(t, sale.SKU, came.SKU, "of which nothing is left")
}

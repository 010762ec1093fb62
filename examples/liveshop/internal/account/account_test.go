package account

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// caller returns a function that calls the routes of accounts.
func caller(t *testing.T, env *infra.Env) func(token, method, path, body string) (int, map[string]any) {
	t.Helper()
	a, _ := accounts(t, env, 0)
	mux, err := api.New(env, a.Authenticate)
	require.NoError(t, err)
	a.Routes(mux)
	return func(token, method, path, body string) (int, map[string]any) {
		r := httptest.NewRequest(method, api.Prefix+path, bytes.NewBufferString(body))
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var answer struct {
			Data map[string]any
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
		return w.Code, answer.Data
	}
}

func TestCodes(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		call := caller(t, env)
		sms := func(phone string) int {
			status, _ := call("", "POST", "/sms", fmt.Sprintf(`{"phone":%q}`, phone))
			return status
		}
		login := func(phone, code string) int {
			status, _ := call("", "POST", "/login", fmt.Sprintf(`{"phone":%q,"code":%q}`, phone, code))
			return status
		}
		require.Equal(t, 401, login("13800000001", "1000"), "nobody asked for a code")
		require.Equal(t, 400, sms("0800"))
		require.Equal(t, 200, sms("13800000001"))
		require.Equal(t, 401, login("13800000001", "1001"))
		require.Equal(t, 401, login("13800000002", "1000"), "another phone's code")
		require.Equal(t, 200, login("13800000001", "1000"))
		require.Equal(t, 401, login("13800000001", "1000"), "a code is for one login")

		require.Equal(t, 200, sms("13800000001"))
		for range tries {
			require.Equal(t, 401, login("13800000001", "1001"))
		}
		require.Equal(t, 401, login("13800000001", "1000"), "who guesses has five tries")
		for range 3 {
			require.Equal(t, 200, sms("13800000001"))
		}
		require.Equal(t, http.StatusTooManyRequests, sms("13800000001"))
	})
}

// Redis holds no token that could be used, and forgets what must expire.
func TestTokensAtRest(t *testing.T) {
	env := shoptest.Env(t)
	call := caller(t, env)
	call("", "POST", "/sms", `{"phone":"13800000001"}`)
	_, me := call("", "POST", "/login", `{"phone":"13800000001","code":"1000"}`)
	token := me["token"].(string)
	keys := env.Redis.Keys(t.Context(), "liveshop:*").Val()
	require.NotEmpty(t, keys)
	for _, key := range keys {
		require.NotContains(t, key, token)
		require.Positive(t, env.Redis.TTL(t.Context(), key).Val(), key)
	}
	call("", "POST", "/sms", `{"phone":"13800000002"}`)
	call("", "POST", "/login", `{"phone":"13800000003","code":"1000"}`)
	for _, key := range env.Redis.Keys(t.Context(), "liveshop:*").Val() {
		require.Positive(t, env.Redis.TTL(t.Context(), key).Val(), key)
	}
}

func TestLoginAtOnceIsOneUser(t *testing.T) {
	shoptest.Each(t, func(t *testing.T, env *infra.Env) {
		a, _ := accounts(t, env, 0)
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[int64]bool{}
		for range 16 {
			wg.Go(func() {
				who, err := a.register(t.Context(), "13812345678")
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[who.UID] = true
			})
		}
		wg.Wait()
		require.Len(t, seen, 1)
		var wallets int
		require.NoError(t, env.DB.QueryRow("SELECT COUNT(*) FROM wallets").Scan(&wallets))
		require.Equal(t, 1, wallets)
	})
}

func TestRecharge(t *testing.T) {
	env := shoptest.Env(t)
	call := caller(t, env)
	call("", "POST", "/sms", `{"phone":"13800000001"}`)
	_, me := call("", "POST", "/login", `{"phone":"13800000001","code":"1000"}`)
	token := me["token"].(string)
	for _, c := range []struct {
		body    string
		status  int
		balance float64
	}{
		{`{"fen":600,"key":"a"}`, 200, 600},
		{`{"fen":600,"key":"a"}`, 200, 600},
		{`{"fen":600,"key":"b"}`, 200, 1200},
		{`{"fen":600,"key":"a"}`, 200, 1200}, // again, and what the balance is now
		{`{"fen":3000,"key":"b"}`, 409, 0},
		{`{"fen":601,"key":"c"}`, 400, 0},
		{`{"fen":600,"key":""}`, 400, 0},
		{`{"fen":600,"key":"` + strings.Repeat("x", 41) + `"}`, 400, 0},
		{`{"fen":600,"key":"d","typo":1}`, 400, 0},
		{`{"fen":6.5,"key":"d"}`, 400, 0},
	} {
		status, data := call(token, "POST", "/recharge", c.body)
		require.Equal(t, c.status, status, c.body)
		if status == 200 {
			require.InDelta(t, c.balance, data["balance"], 0, c.body)
		}
	}
	status, _ := call("", "POST", "/recharge", `{"fen":600,"key":"a"}`)
	require.Equal(t, 401, status)
}

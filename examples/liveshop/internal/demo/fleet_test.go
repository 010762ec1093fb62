package demo

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/examples/liveshop/internal/api"
	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
	"github.com/spillway-go/spillway/examples/liveshop/internal/shoptest"
)

// TestMain lets the test binary be a server of a fleet, which writes a line to its log
// and takes a moment to start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, "started")
		<-time.After(300 * time.Millisecond)
		fmt.Println("http://127.0.0.1:1")
		<-time.After(time.Minute)
		os.Exit(0)
	}
	shoptest.Main(m)
}

// journal is the log of a fleet.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) started() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), "started\n")
}

// wants fails unless n processes were started; the last line may be on its way.
func (j *journal) wants(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return j.started() >= n }, time.Minute, time.Millisecond)
	require.Equal(t, n, j.started())
}

// Both rows of two servers that are down have a button that restarts all that are.
func TestRestartTwiceAtOnce(t *testing.T) {
	var log journal
	fleet, err := NewFleet(t.Context(), infra.Config{}, &log, "s1", "s2", "s3")
	require.NoError(t, err)
	defer fleet.Stop(context.Background())
	log.wants(t, 3)
	m, err := newControl(shoptest.Env(t), fleet, nil)
	require.NoError(t, err)
	for _, name := range []string{"s1", "s2"} {
		_, err := fleet.Kill(name)
		require.NoError(t, err)
	}
	var clicks sync.WaitGroup
	for range 4 {
		clicks.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "http://localhost"+api.Prefix+"/admin/demo/restart", http.NoBody)
			r.RemoteAddr = "127.0.0.1:1"
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	clicks.Wait()
	require.Empty(t, fleet.Down())
	log.wants(t, 5)
}

// Who waits while another one starts the server does not wait for longer than it may.
func TestStartObeysItsContext(t *testing.T) {
	f := &Fleet{members: []*member{{name: "s1", starting: make(chan struct{}, 1)}}}
	f.members[0].starting <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.Start(ctx, "s1"), context.DeadlineExceeded)
}

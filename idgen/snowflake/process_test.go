//go:build unix

package snowflake

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/spillway-go/spillway/internal/redistest"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("SPILLWAY_SNOWFLAKE_CHILD"); addr != "" {
		makeIDs(addr)
		return
	}
	os.Exit(m.Run())
}

// makeIDs leases, makes a few thousand ids, gives back and begins again, until it is
// killed or its reader is gone. It writes a line per run of ids.
func makeIDs(addr string) {
	ctx := context.Background()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	for {
		w, err := LeaseWorker(ctx, rdb, Options{Workers: 3, TTL: time.Second})
		if err != nil {
			continue
		}
		s, err := New(Dense, w)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for range 200 {
			line := []byte{}
			for range 50 {
				id, err := s.Next(ctx)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				line = append(strconv.AppendInt(line, id, 10), ' ')
			}
			if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
				return
			}
			<-time.After(time.Millisecond) // leaves ids of the next unit to the others
		}
		_ = w.Close(ctx)
	}
}

// Processes that are stopped for longer than their lease, go on, and are killed, with
// fewer worker ids than processes.
func TestProcesses(t *testing.T) {
	t.Parallel() // it waits most of the time
	server := redistest.Server(t)
	rounds := 2
	if os.Getenv("SPILLWAY_SOAK") == "1" {
		rounds = 200
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	twice := 0
	var wg sync.WaitGroup
	spawn := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SPILLWAY_SNOWFLAKE_CHILD="+server.Addr())
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		wg.Go(func() {
			lines := bufio.NewReader(out)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return // a line without an end was cut by the kill
				}
				mu.Lock()
				for id := range strings.FieldsSeq(line) {
					if seen[id] {
						twice++
					}
					seen[id] = true
				}
				mu.Unlock()
			}
		})
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd
	}
	pass := func(d time.Duration) { <-time.After(d) } // for processes, time is real
	ids := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	work := func(n int) { // until they have made so many more
		before := ids()
		require.Eventually(t, func() bool { return ids() >= before+n }, 2*time.Minute, 10*time.Millisecond)
	}
	children := []*exec.Cmd{spawn(), spawn(), spawn(), spawn()}
	for round := range rounds {
		work(3000)
		for i, c := range children[:3] {
			require.NoError(t, c.Process.Signal(syscall.SIGSTOP))
			pass(time.Duration(i*50) * time.Millisecond)
		}
		pass(1500 * time.Millisecond) // beyond their leases; others take the ids
		for _, c := range children[:3] {
			require.NoError(t, c.Process.Signal(syscall.SIGCONT))
		}
		pass(300 * time.Millisecond)
		i := round % len(children)
		require.NoError(t, children[i].Process.Kill())
		children[i] = spawn()
	}
	pass(1500 * time.Millisecond)
	work(max(0, 10_000-ids()))
	for _, c := range children {
		_ = c.Process.Kill()
	}
	wg.Wait()
	require.Zero(t, twice)
	require.GreaterOrEqual(t, len(seen), 10_000)
	t.Logf("%d ids", len(seen))
}

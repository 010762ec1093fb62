package redistest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// endEnv, in the environment of this test binary, makes TestEnd end it in that
// way after it has started servers.
const endEnv = "REDISTEST_END"

func TestServersEndWithTheBinary(t *testing.T) {
	requireServer(t)
	if !diesWithParent {
		t.Skip("only Linux ends children with their parent")
	}
	for _, end := range []string{"return", "fail", "panic", "exit", "SIGKILL"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestEnd$", "-test.v")
			cmd.Env = append(os.Environ(), endEnv+"="+end, "TMPDIR="+t.TempDir()) // it cannot clean up
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			var pids []int
			ready := false // all of them had answered: servers that never ran would be gone, too
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				if pid, ok := strings.CutPrefix(lines.Text(), "server "); ok {
					n, err := strconv.Atoi(pid)
					require.NoError(t, err)
					pids = append(pids, n)
				}
				if lines.Text() == "ready" {
					ready = true
					if end == "SIGKILL" {
						require.NoError(t, cmd.Process.Kill())
					}
				}
			}
			err = cmd.Wait()
			require.Equal(t, end == "return", err == nil, "%v", err)
			require.True(t, ready)
			require.Len(t, pids, 3)
			require.NoError(t, poll(t.Context(), func() error {
				for _, pid := range pids {
					if !gone(pid) {
						return fmt.Errorf("%d still runs", pid)
					}
				}
				return nil
			}))
		})
	}
}

func TestEnd(t *testing.T) {
	end := os.Getenv(endEnv)
	if end == "" {
		t.Skip("a part of TestServersEndWithTheBinary")
	}
	procs := []*Proc{Server(t), Shared(t), Cluster(t, 1, 0).Nodes()[0]}
	for _, p := range procs {
		fmt.Println("server", p.PID())
	}
	endThreads()
	for _, p := range procs {
		// A server that has died with a thread is not ended by the end of the binary.
		require.NoError(t, p.Client().Ping(t.Context()).Err())
	}
	fmt.Println("ready")
	switch end {
	case "return":
	case "fail":
		t.Fatal("as asked")
	case "panic":
		panic("as asked")
	case "exit":
		os.Exit(3)
	case "SIGKILL":
		select {}
	}
}

// endThreads ends some threads of this process, as Go may do any time.
func endThreads() {
	for range 20 {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // and never unlock: the thread ends
		}()
		<-ended
	}
}

// gone reports whether the process has ended. It may still wait to be reaped
// by whoever inherited it.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

package redistest

import (
	"os/exec"
	"runtime"
	"sync"
)

type spawnRequest struct {
	cmd *exec.Cmd
	err chan<- error
}

// spawner starts the one goroutine that starts servers. It never ends and
// never leaves its thread: the kernel kills a child when the *thread* that
// started it ends, and Go ends threads when it likes.
var spawner = sync.OnceValue(func() chan<- spawnRequest {
	requests := make(chan spawnRequest)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.err <- r.cmd.Start()
		}
	}()
	return requests
})

// spawn starts cmd so that it ends when this process does (on Linux).
func spawn(cmd *exec.Cmd) error {
	prepare(cmd)
	err := make(chan error)
	spawner() <- spawnRequest{cmd, err}
	return <-err
}

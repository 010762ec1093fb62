//go:build unix && !linux

package redistest

import (
	"os"
	"os/exec"
	"syscall"
)

// diesWithParent is false where the kernel has no such notion: servers then
// end by Close alone, and there are no shared ones, which nothing would close.
const diesWithParent = false

func prepare(*exec.Cmd) {}

func stop(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

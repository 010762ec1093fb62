package redistest

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// diesWithParent says that a server cannot outlive the process that started
// it, however that process ends.
const diesWithParent = true

// prepare makes the kernel kill the server when the thread that starts it
// ends; see spawn for the thread.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// stop returns when the process is stopped: SIGSTOP alone returns before the
// process has noticed, and it may serve a few more commands.
func stop(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/stat")
		if err != nil {
			return err
		}
		// pid (name) state …; the name may hold anything but ends at the last ')'.
		s := string(stat)
		if strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " T") {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

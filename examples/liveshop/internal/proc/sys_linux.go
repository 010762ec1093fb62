package proc

import (
	"os/exec"
	"syscall"
)

// dieWithParent also takes the child out of the terminal's group: Ctrl-C is for the
// parent, who then stops its children in order.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

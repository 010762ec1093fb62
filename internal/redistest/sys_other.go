//go:build !unix

package redistest

import (
	"errors"
	"os"
	"os/exec"
)

// There is no redis-server for these systems; the file lets the tests that
// need none compile and run there.
const diesWithParent = false

func prepare(*exec.Cmd) {}

func stop(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) error { return errors.ErrUnsupported }

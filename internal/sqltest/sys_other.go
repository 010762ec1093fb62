//go:build !linux

package sqltest

import "os/exec"

func start(cmd *exec.Cmd) error { return cmd.Start() }

func unprivileged(string) (func(*exec.Cmd), error) { return func(*exec.Cmd) {}, nil }

//go:build unix

package bots

import (
	"fmt"
	"syscall"
)

// audience returns how many of n customers watch: one in ten. Each takes two
// descriptors where the service is in this process too, and the rest of the program
// needs some.
func audience(n int) (watchers int, why string) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return min(n/10, 100), "the limit of descriptors is unknown"
	}
	room := (int(min(limit.Cur, 1<<20)) - 1200) / 2 // Cur may be "infinite"
	if watchers = max(0, min(n/10, room)); watchers < n/10 {
		return watchers, fmt.Sprintf("ulimit -n is %d", limit.Cur)
	}
	return watchers, "one in ten"
}

package redistest

import (
	"os"
	"runtime/debug"
	"sync"
)

// calmGC lets the heap of the test binary grow to five times what is live before it is
// collected, unless the environment has a GOGC. miniredis makes a Lua state for each
// EVALSHA and throws it away: next to nothing is live, and at Go's default a third of the
// processor time of a test on it went into collecting.
var calmGC = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
})

package im

// backlog is how many frames may wait for a socket, and for how many the server remembers
// that they are not acknowledged; beside those that it was given when it resumed.
const backlog = 1024

// An item waits in a socket's queue.
type item struct {
	f    *frame
	keep bool // may not be dropped: reliable, or the user's own
}

// An outcome is what became of a frame that was offered to a socket.
type outcome int

const (
	taken   outcome = iota
	dropped         // it is sampled out
	full            // it may not be dropped, and there is no room: the socket is too slow
)

// A policy decides what the queue of a socket gives up. So many frames wait, the ones
// being written included, and limit may. It may take some out of q, and returns how many.
type policy func(q []item, waiting, limit int, it item) (rest []item, removed int, o outcome)

// keepReliable drops barrage and figures that come when half of the queue is in use,
// those that are in it already when it is full, and nothing else.
func keepReliable(q []item, waiting, limit int, it item) ([]item, int, outcome) {
	switch {
	case !it.keep && waiting >= limit/2:
		return q, 0, dropped
	case waiting < limit:
		return append(q, it), 0, taken
	}
	rest := q[:0]
	for _, old := range q {
		if old.keep {
			rest = append(rest, old)
		}
	}
	removed := len(q) - len(rest)
	if removed == 0 {
		return rest, 0, full
	}
	return append(rest, it), removed, taken
}

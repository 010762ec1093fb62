//go:build !race

package redistest

// RaceEnabled tells whether the race detector is on, which allocates by itself.
const RaceEnabled = false

//go:build race

package httplimit

const raceEnabled = true // which allocates by itself

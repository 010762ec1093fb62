//go:build race

package lock

const raceEnabled = true // which allocates by itself

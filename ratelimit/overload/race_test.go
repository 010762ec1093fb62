//go:build race

package overload

const raceEnabled = true // which allocates by itself

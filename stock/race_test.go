//go:build race

package stock

const raceEnabled = true // which allocates by itself
